"""Encoding and writing beside generation: several threads encode, one writes in order, and a bounded queue lies between."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import numpy as np

from qualitygate.produce.shards import Entry, ShardWriter
from qualitygate.storage import png, to_uint8

ENCODE, WRITE, WAIT = "encode", "write", "wait"
"""Parts of the work: seconds of all encoding threads together, of the writing thread, and of generation held up by them."""

_AHEAD = 256  # images that are encoded or wait
_POLL = 0.2


class Encoding:
    """Encodes images into a shard in the background. Use as a context manager: after it, everything is written or an error was raised.

    Args:
        writer: the shard; closed in the end.
        threads: that encode.
    """

    def __init__(self, writer: ShardWriter, threads: int | None = None) -> None:
        self._writer = writer
        self._pool = ThreadPoolExecutor(threads or min(4, os.cpu_count() or 1), thread_name_prefix="encode")
        self._queue: queue.Queue[Future[Entry] | None] = queue.Queue(_AHEAD)
        self._thread = threading.Thread(target=self._write, name="write", daemon=True)
        self._error: BaseException | None = None
        self._stopped = False
        self._lock = threading.Lock()
        self.seconds: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stopped = error is not None
        self._pool.shutdown(wait=False, cancel_futures=self._stopped)
        self._hand(None)
        self._thread.join()
        self._pool.shutdown()
        if error is None and self._error is not None:
            raise self._error

    def put(self, sample: int, image: np.ndarray, about: dict[str, Any]) -> None:
        """Write an image, (channels, height, width) float in [-1, 1], after those before it. Waits while too many are on their way.

        Raises:
            Whatever went wrong when earlier ones were encoded or written.
        """
        start = time.perf_counter()
        self._hand(self._pool.submit(self._encode, sample, image, about))
        self.seconds[WAIT] += time.perf_counter() - start  # type: ignore[assignment]

    def _hand(self, item: Future[Entry] | None) -> None:
        while self._thread.is_alive():
            try:
                self._queue.put(item, timeout=_POLL)
                return
            except queue.Full:
                continue
        if item is not None and self._error is not None:
            raise self._error

    def _encode(self, sample: int, image: np.ndarray, about: dict[str, Any]) -> Entry:
        start = time.perf_counter()
        entry = Entry(sample, png(to_uint8(image)), about)
        with self._lock:
            self.seconds[ENCODE] += time.perf_counter() - start  # type: ignore[assignment]
        return entry

    def _write(self) -> None:
        try:
            with self._writer:
                while (item := self._queue.get()) is not None:
                    if self._stopped:
                        continue
                    entry, start = item.result(), time.perf_counter()
                    self._writer.add(entry)
                    self.seconds[WRITE] += time.perf_counter() - start  # type: ignore[assignment]
        except BaseException as error:
            self._error = error
