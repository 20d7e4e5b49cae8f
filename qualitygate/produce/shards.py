"""A shard: some images with what is known of each, in one of the forms that training code reads; encoded and written beside generation.

``webdataset``: a tar with ``000000000012.png`` and ``000000000012.json`` for every image. ``parquet``: columns ``image`` (a structure of
``bytes`` and ``path``, as Hugging Face's datasets has it), ``id`` and what is known. ``folder``: image files beside a ``metadata.jsonl``.
Names end as the images' format has it: ``.png``, ``.webp`` or ``.jpg``.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qualitygate import timing
from qualitygate.errors import StorageError
from qualitygate.produce.request import Form
from qualitygate.records.images import ImageEncoding
from qualitygate.storage import PNG, encode, image_name

_ROWS = 256  # of a group in a Parquet shard: what is held in memory while it is written
_METADATA = "metadata.jsonl"


@dataclass(frozen=True)
class Entry:
    """One image of a shard; ``about`` is what is known of it, as JSON can hold it."""

    id: int
    image: bytes  # its file
    about: dict[str, Any]

    @property
    def key(self) -> str:
        return f"{self.id:012d}"


Add = Callable[[Entry], None]  # writes one more image of a shard


def shard_writer(form: Form | None, path: Path, suffix: str = PNG.suffix) -> AbstractContextManager[Add]:
    """Writes a new shard at ``path``, entries in the order they come; without a form, a folder of images alone. Names of images end in
    ``suffix``. The shard is whole when the context ended well. The same entries make the same bytes."""
    writers = {None: _write_images, Form.WEBDATASET: _write_tar, Form.PARQUET: _write_parquet, Form.FOLDER: _write_folder}
    return writers[form](path, suffix)


def read_shard(form: Form, path: Path) -> Iterator[Entry]:
    """The entries of a shard, in order. Raises `StorageError` if it cannot be read."""
    read = {Form.WEBDATASET: _read_tar, Form.PARQUET: _read_parquet, Form.FOLDER: _read_folder}[form]
    try:
        yield from read(path)
    except (OSError, ValueError, KeyError, tarfile.TarError) as error:
        raise StorageError(f"Cannot read the shard {path}", str(error), f"a shard of form {form}") from error


@contextmanager
def _write_images(path: Path, suffix: str) -> Iterator[Add]:
    path.mkdir()

    def add(entry: Entry) -> None:
        (path / image_name(entry.id, suffix)).write_bytes(entry.image)

    yield add


@contextmanager
def _write_tar(path: Path, suffix: str) -> Iterator[Add]:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as file:

        def add(entry: Entry) -> None:
            for ending, data in ((suffix, entry.image), ("json", _json(entry.about))):
                member = tarfile.TarInfo(f"{entry.key}.{ending}")  # no owner, no time: the same bytes whenever it is made
                member.size = len(data)
                file.addfile(member, io.BytesIO(data))

        yield add


@contextmanager
def _write_parquet(path: Path, suffix: str) -> Iterator[Add]:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    known = [("label", pa.int64()), ("verdict", pa.string()), ("strength", pa.float64())]
    schema = pa.schema([("id", pa.int64()), ("image", kind), *known, ("about", pa.string())])
    waiting: list[dict[str, Any]] = []
    with pq.ParquetWriter(path, schema, compression="none") as writer:  # images do not shrink further

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(waiting, schema=schema))
            waiting.clear()

        def add(entry: Entry) -> None:
            image = {"bytes": entry.image, "path": f"{entry.key}.{suffix}"}
            row = {"id": entry.id, "image": image, "about": _json(entry.about).decode()}
            waiting.append(row | {name: entry.about.get(name) for name, _ in known})
            if len(waiting) >= _ROWS:
                flush()

        yield add
        flush()


@contextmanager
def _write_folder(path: Path, suffix: str) -> Iterator[Add]:
    path.mkdir()
    with (path / _METADATA).open("wb") as metadata:

        def add(entry: Entry) -> None:
            name = f"{entry.key}.{suffix}"
            (path / name).write_bytes(entry.image)
            metadata.write(_json({"file_name": name, **entry.about}) + b"\n")

        yield add


def _read_tar(path: Path) -> Iterator[Entry]:
    with tarfile.open(path, "r:") as file:
        while (image := file.next()) is not None:
            about = file.next()
            if about is None:
                raise ValueError(f"nothing follows {image.name}")
            data, known = (file.extractfile(one).read() for one in (image, about))  # type: ignore[union-attr]
            yield Entry(int(Path(image.name).stem), data, json.loads(known))


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


ENCODE, WRITE = "encode", "write"
"""Parts of the work: seconds of all encoding threads together, and of the writing thread."""

_AHEAD = 256  # images that are encoded or wait


class Encoding(AbstractContextManager["Encoding"]):
    """Encodes images in the background: several threads encode, one writes in order, and what lies between is bounded. Use as a context
    manager: after it, everything is written or an error was raised, and ``seconds`` are those of encoding and of writing."""

    def __init__(self, add: Add, threads: int, encoding: ImageEncoding = PNG) -> None:
        self._add, self._encoding = add, encoding
        self._encoders = ThreadPoolExecutor(threads, thread_name_prefix="encode")
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._waiting: deque[Future[dict[str, float]]] = deque()
        self.seconds: Counter[str] = Counter()

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._settle(0)
        finally:
            for pool in (self._encoders, self._writing):
                pool.shutdown(cancel_futures=True)

    def put(self, sample: int, image: np.ndarray, about: dict[str, Any]) -> None:
        """Write an image, uint8 (height, width, channels), after those before it. Waits while too many are on their way, and
        raises what went wrong with earlier ones."""
        encoded = self._encoders.submit(_encode, sample, image, about, self._encoding)
        self._waiting.append(self._writing.submit(self._write, encoded))
        with timing.part(timing.WAIT):
            self._settle(_AHEAD)

    def _settle(self, leave: int) -> None:
        while len(self._waiting) > leave:
            self.seconds.update(self._waiting.popleft().result())

    def _write(self, encoded: Future[tuple[Entry, float]]) -> dict[str, float]:
        entry, took = encoded.result()
        start = time.perf_counter()
        self._add(entry)
        return {ENCODE: took, WRITE: time.perf_counter() - start}


def _encode(sample: int, image: np.ndarray, about: dict[str, Any], encoding: ImageEncoding) -> tuple[Entry, float]:
    start = time.perf_counter()
    return Entry(sample, encode(image, encoding), about), time.perf_counter() - start


def cores() -> int:
    """Cores that this process may run on, whatever OMP_NUM_THREADS says: encoders are no threads of OpenMP's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def encoding(form: Form | None, path: Path, threads: int | None = None, image_encoding: ImageEncoding = PNG) -> Iterator[Encoding]:
    """An `Encoding` into a new shard, on so many threads: by default one for each core."""
    with shard_writer(form, path, image_encoding.suffix) as add, Encoding(add, threads or cores(), image_encoding) as encoder:
        yield encoder
