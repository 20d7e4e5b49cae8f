"""A shard: some images with what is known of each, in one of the forms that training code reads; encoded and written beside generation.

``webdataset``: a tar with ``000000000012.png`` and ``000000000012.json`` for every image. ``parquet``: columns ``image`` (a structure of
``bytes`` and ``path``, as Hugging Face's datasets has it), ``id`` and what is known. ``folder``: PNG files beside a ``metadata.jsonl``.
"""

from __future__ import annotations

import abc
import io
import json
import os
import queue
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qualitygate import names
from qualitygate.errors import StorageError
from qualitygate.produce.request import Form
from qualitygate.storage import image_name, png, to_uint8

_ROWS = 256  # of a group in a Parquet shard: what is held in memory while it is written
_METADATA = "metadata.jsonl"


@dataclass(frozen=True)
class Entry:
    """One image of a shard.

    Attributes:
        id: of the sample.
        png: the encoded image.
        about: what is known of it, as JSON can hold it.
    """

    id: int
    png: bytes
    about: dict[str, Any]

    @property
    def key(self) -> str:
        return f"{self.id:012d}"


class ShardWriter(abc.ABC):
    """Writes entries in the order they come. Use as a context manager; the shard is whole when that ended well."""

    @abc.abstractmethod
    def add(self, entry: Entry) -> None:
        """Write one more image."""

    @abc.abstractmethod
    def close(self) -> None:
        """Write what is left."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def shard_writer(form: Form | None, path: Path) -> ShardWriter:
    """A writer of a new shard at ``path``; without a form, of a folder of images alone. The same entries make the same bytes."""
    kinds: dict[Form | None, Callable[[Path], ShardWriter]] = {
        None: _Images,
        Form.WEBDATASET: _Tar,
        Form.PARQUET: _Parquet,
        Form.FOLDER: _Folder,
    }
    return kinds[form](path)


def read_shard(form: Form, path: Path) -> Iterator[Entry]:
    """The entries of a shard, in order.

    Raises:
        StorageError: it cannot be read.
    """
    read = {Form.WEBDATASET: _read_tar, Form.PARQUET: _read_parquet, Form.FOLDER: _read_folder}[form]
    try:
        yield from read(path)
    except (OSError, ValueError, KeyError, tarfile.TarError) as error:
        raise StorageError(f"Cannot read the shard {path}", str(error), f"a shard of form {form}") from error


class _Images(ShardWriter):
    def __init__(self, path: Path) -> None:
        path.mkdir()
        self._path = path

    def add(self, entry: Entry) -> None:
        (self._path / image_name(entry.id)).write_bytes(entry.png)

    def close(self) -> None:
        pass


class _Tar(ShardWriter):
    def __init__(self, path: Path) -> None:
        self._file = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 - closed by close

    def add(self, entry: Entry) -> None:
        for suffix, data in (("png", entry.png), ("json", _json(entry.about))):
            member = tarfile.TarInfo(f"{entry.key}.{suffix}")  # no owner, no time: the same bytes whenever it is made
            member.size = len(data)
            self._file.addfile(member, io.BytesIO(data))

    def close(self) -> None:
        self._file.close()


class _Parquet(ShardWriter):
    _SCHEMA = pa.schema(
        [
            ("id", pa.int64()),
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("label", pa.int64()),
            ("verdict", pa.string()),
            ("strength", pa.float64()),
            ("about", pa.string()),
        ]
    )

    def __init__(self, path: Path) -> None:
        self._writer = pq.ParquetWriter(path, self._SCHEMA, compression="none")  # PNG does not shrink further
        self._waiting: list[dict[str, Any]] = []

    def add(self, entry: Entry) -> None:
        image = {"bytes": entry.png, "path": f"{entry.key}.png"}
        known = {key: entry.about.get(key) for key in (names.LABEL, names.VERDICT, names.STRENGTH)}
        self._waiting.append({"id": entry.id, "image": image, **known, "about": _json(entry.about).decode()})
        if len(self._waiting) >= _ROWS:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._waiting, schema=self._SCHEMA))
        self._waiting = []


class _Folder(ShardWriter):
    def __init__(self, path: Path) -> None:
        path.mkdir()
        self._path = path
        self._metadata = (path / _METADATA).open("wb")

    def add(self, entry: Entry) -> None:
        (self._path / f"{entry.key}.png").write_bytes(entry.png)
        self._metadata.write(_json({"file_name": f"{entry.key}.png", **entry.about}) + b"\n")

    def close(self) -> None:
        self._metadata.close()


def _read_tar(path: Path) -> Iterator[Entry]:
    with tarfile.open(path, "r:") as file:
        while (image := file.next()) is not None:
            about = file.next()
            if about is None:
                raise ValueError(f"nothing follows {image.name}")
            png, known = (file.extractfile(one).read() for one in (image, about))  # type: ignore[union-attr]
            yield Entry(int(Path(image.name).stem), png, json.loads(known))


def _read_parquet(path: Path) -> Iterator[Entry]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_ROWS, columns=["id", "image", "about"]):
            for row in batch.to_pylist():
                yield Entry(row["id"], row["image"]["bytes"], json.loads(row["about"]))


def _read_folder(path: Path) -> Iterator[Entry]:
    with (path / _METADATA).open("rb") as lines:
        for line in lines:
            about = json.loads(line)
            name = about.pop("file_name")
            yield Entry(int(Path(name).stem), (path / name).read_bytes(), about)


def _json(about: dict[str, Any]) -> bytes:
    return json.dumps(about, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


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
