"""Writing: everything is written beside its place and renamed into it, so that nobody ever sees half of it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import PIL
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, features
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from qualitygate.errors import InputError, OutputError, ProfileError, QualityGateError, StorageError
from qualitygate.records import canonical_hash
from qualitygate.records.images import ImageEncoding, ImageFormat


def refuse_existing(path: Path) -> None:
    """Raises `OutputError` if something that we would overwrite is there. An empty folder is fine."""
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists() or path.is_symlink():
        holds = f"a folder with {', '.join(sorted(one.name for one in path.iterdir())[:5])}" if path.is_dir() else "a file"
        raise OutputError(f"{path} exists already", holds, "a new or empty folder", "choose another place, or remove it first")


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns what the operating system says about writing into an error that says what to do."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free some space or choose another place" if full else "check the place and its permissions"
        raise StorageError(
            f"Cannot write {path}", os.strerror(error.errno) if error.errno else str(error), "a place to write to", remedy
        ) from error


@contextlib.contextmanager
def new_file(path: str | Path) -> Iterator[Path]:
    """A temporary name beside ``path`` for what becomes ``path`` when the block ends, and vanishes if it fails. Raises `StorageError`."""
    path = Path(path)
    # random: in containers that share a volume all processes may have the same number
    partial = path.with_name(f".{path.name}.partial-{secrets.token_hex(8)}")
    with explained(path):
        try:
            yield partial
            sync(partial)
            partial.replace(path)
        except BaseException:
            if partial.is_dir():
                shutil.rmtree(partial, ignore_errors=True)
            else:
                partial.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """The same for a folder. Raises `OutputError` if ``path`` exists and is not an empty folder."""
    path = Path(path).absolute()
    refuse_existing(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as partial:
        partial.mkdir()
        yield partial


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file in one step: whoever reads it sees the old one or the new one."""
    with new_file(path) as partial:
        partial.write_bytes(data)


def table_bytes(columns: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> bytes:
    """A Parquet file with the given columns and text metadata. NaN stays NaN; None is null."""
    table = pa.table({name: pa.array(values, from_pandas=False) for name, values in columns.items()})
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(dict(metadata or {})), buffer, compression="zstd")
    return buffer.getvalue()


def write_table(path: str | Path, columns: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    write_bytes(path, table_bytes(columns, metadata))


def read_table(path: str | Path) -> tuple[pa.Table, dict[str, str]]:
    """Table and text metadata of a Parquet file. Raises `ProfileError` if it is not there or cannot be read."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise ProfileError(f"Cannot read the table {path}", str(error), "a Parquet file written by qualitygate") from error
    return table, {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; of a folder, that of its files' names and hashes."""
    path = Path(path)
    if path.is_dir():
        files = sorted(one for one in path.iterdir() if one.is_file() and not one.name.startswith("."))
        return hashlib.sha256("".join(f"{one.name} {file_sha256(one)}\n" for one in files).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """``$QUALITYGATE_CACHE``, else ``qualitygate`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if given := os.environ.get("QUALITYGATE_CACHE"):
        return Path(given).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "qualitygate"


Kept = TypeVar("Kept")


class ContentCache(Generic[Kept]):
    """What was computed, kept under a hash of all that it depends on. Anybody may delete any of it: it is computed anew then.

    A cache never stops the work: what cannot be read is computed anew, what cannot be written is lost, and a `UserWarning` says so.
    ``kind`` is the folder of such things in the cache; ``read`` and ``write``, in one step, raise a `QualityGateError` where they cannot;
    files have a ``suffix``, folders none. An ``identity`` is a mapping of JSON values: all that the thing depends on.
    """

    def __init__(
        self, kind: str, read: Callable[[Path], Kept], write: Callable[[Path, Kept], None], *, suffix: str = "", root: Path | None = None
    ) -> None:
        self._kind, self._read, self._write, self._suffix, self._root = kind, read, write, suffix, root

    def place(self, identity: Mapping[str, Any]) -> Path:
        return (self._root or cache_folder()) / self._kind / f"{canonical_hash(dict(identity))}{self._suffix}"

    def find(self, identity: Mapping[str, Any]) -> Kept | None:
        place = self.place(identity)
        try:
            return self._read(place) if place.exists() else None
        except (QualityGateError, OSError) as error:
            warnings.warn(f"{place} cannot be read and is computed anew: {error}", stacklevel=2)
            return None

    def keep(self, identity: Mapping[str, Any], thing: Kept) -> None:
        place = self.place(identity)
        try:
            with explained(place):
                place.parent.mkdir(parents=True, exist_ok=True)
            self._write(place, thing)
        except QualityGateError as error:
            if self._suffix or not place.exists():  # a folder that is there: another process was quicker
                warnings.warn(f"What was computed is not kept: {error}", stacklevel=2)

    def remove(self, identity: Mapping[str, Any]) -> None:
        """Take a file out of the cache. One that cannot be removed does no harm."""
        with contextlib.suppress(OSError):
            self.place(identity).unlink(missing_ok=True)


def array_cache(kind: str, root: Path | None = None) -> ContentCache[Arrays]:
    """A cache of arrays, which are checked to be what was written, and to be in their own place."""
    return ContentCache(kind, _read_arrays, _write_arrays, suffix=".safetensors", root=root)


Arrays = dict[str, np.ndarray]
_DIGEST, _PLACE = "sha256 of the arrays", "place in the cache"


def _write_arrays(path: Path, arrays: Arrays) -> None:
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with new_file(path) as partial:
        save_file(whole, partial, {_PLACE: path.name, _DIGEST: _digest(whole)})


def _read_arrays(path: Path) -> Arrays:
    try:
        with safe_open(path, framework="numpy") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            metadata = file.metadata() or {}
        if _digest(found) != metadata.get(_DIGEST):
            raise ValueError("its contents were changed")
    except (SafetensorError, OSError, ValueError) as error:
        raise StorageError(f"Cannot read the arrays {path}", str(error), "a file as it was written") from error
    if metadata.get(_PLACE) != path.name:
        raise StorageError(f"{path} is something else than its name says", str(metadata.get(_PLACE)), path.name)
    return found


def _digest(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()


def to_uint8(image: np.ndarray) -> np.ndarray:
    """(channels, height, width) float in [-1, 1] to (height, width, channels) uint8, rounded to the nearest."""
    return np.clip(np.rint((image.transpose(1, 2, 0) + 1.0) * 127.5), 0, 255).astype(np.uint8)


PNG = ImageEncoding()
_CHANNELS = {ImageFormat.PNG: (1, 2, 3, 4), ImageFormat.WEBP: (1, 3, 4), ImageFormat.JPEG: (1, 3)}
_LARGEST = {ImageFormat.PNG: 2**31 - 1, ImageFormat.WEBP: 16_383, ImageFormat.JPEG: 65_500}  # pixels of a side
_CODECS = {ImageFormat.PNG: "zlib", ImageFormat.WEBP: "webp", ImageFormat.JPEG: "jpg"}  # as Pillow calls them


def check_encoding(encoding: ImageEncoding, image_shape: tuple[int, int, int]) -> None:
    """Raises `InputError` if images of this shape (channels, height, width) cannot be written so, or not by this Pillow."""
    channels, height, width = image_shape
    fitting, largest = _CHANNELS[encoding.format], _LARGEST[encoding.format]
    if channels not in fitting or max(height, width) > largest:
        needed = f"{' or '.join(map(str, fitting))} channels and at most {largest:,} pixels a side"
        found = f"{channels} channels of {height}×{width}"
        raise InputError(f"Images of this generator cannot be written as {encoding.format}", found, needed, "choose another --image-format")
    if not features.check(_CODECS[encoding.format]):
        needed, remedy = f"one built with {_CODECS[encoding.format]}", "install Pillow from PyPI, or choose another --image-format"
        raise InputError(f"This Pillow cannot write {encoding.format}", f"Pillow {PIL.__version__}", needed, remedy)


def encode(image: np.ndarray, encoding: ImageEncoding = PNG) -> bytes:
    """An image file of a uint8 image (height, width, channels), the same bytes for the same image and version of the format's library.
    WebP holds grey images as colour ones. JPEG keeps colour at full resolution; WebP, whose fastest method this is, at half of it."""
    options: dict[ImageFormat, dict[str, Any]] = {
        ImageFormat.PNG: {"compress_level": encoding.level},
        ImageFormat.WEBP: {"quality": encoding.quality, "method": 0, "exact": True},  # exact: also where it is transparent
        ImageFormat.JPEG: {"quality": encoding.quality, "subsampling": "4:4:4"},
    }
    buffer = io.BytesIO()
    pixels = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    pixels.save(buffer, encoding.format.upper(), **options[encoding.format])
    return buffer.getvalue()


def image_name(sample_id: int, suffix: str = PNG.suffix) -> str:
    return f"{sample_id:08d}.{suffix}"


def sync(path: Path) -> None:
    """Ask the disk to keep a file, or the names in a folder, before a rename makes it visible."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
