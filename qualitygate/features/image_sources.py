"""Where images are stored: a folder, a zip or tar archive, Parquet, a numpy file. Nothing is unpacked to disk or held whole, and no
entry is read beyond what it may be."""

from __future__ import annotations

import math
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from PIL import Image

from qualitygate.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MAX_FILE = 2**28  # bytes of one image file; the most pixels are Pillow's MAX_IMAGE_PIXELS
_KNOWN = "a folder, .zip, .tar (.tar.gz, .tgz), .parquet, .npz or .npy"
_BROKEN: tuple[type[Exception], ...] = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, RuntimeError, ValueError)
"""What the standard library and numpy raise on damaged, encrypted or exotic files."""


@dataclass(frozen=True)
class Item:
    """One image as it is stored: bytes of an image file, or uint8 (height, width, 1 or 3). Messages call it by its name."""

    name: str
    content: bytes | np.ndarray


@dataclass(frozen=True)
class Source:
    """So many stored images; ``items`` goes through them from the start, always in the same order, one in memory at a time."""

    count: int
    items: Callable[[], Iterator[Item]]


def open_source(path: Path) -> Source:
    """The images at a path, in the order of their names (of their rows, where they have no names). Nothing is decoded."""
    if not path.exists():
        raise InputError(f"There is nothing at {path}", "no such file or folder", _KNOWN, "check the path")
    if path.is_dir():
        return _folder(path)
    for endings, opened in _OPENERS.items():
        if path.name.lower().endswith(endings):
            return opened(path)
    raise InputError(f"{path} is no set of images", f"a file called {path.name}", _KNOWN, "pack the images in one of these")


def too_large(name: str, found: str) -> InputError:
    limits = f"at most {Image.MAX_IMAGE_PIXELS:,} pixels and {MAX_FILE:,} bytes"
    return InputError(f"{name} is too large for an image", found, limits, "remove it, or make it smaller")


def _checked_length(length: int, name: str) -> int:
    if length > MAX_FILE:
        raise too_large(name, f"{length:,} bytes")
    return length


def _is_image(name: str) -> bool:
    """Whether a file of this name is one that we read: hidden ones are not."""
    return name.lower().endswith(SUFFIXES) and not name.rpartition("/")[2].startswith(".")


@contextmanager
def _explained(where: str | Path, needed: str, *more: type[Exception]) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except _BROKEN + more as error:
        raise InputError(f"{where} cannot be read", f"{type(error).__name__}: {error}".splitlines()[0], needed) from error


def _folder(path: Path) -> Source:
    def entries(_: object) -> dict[str, tuple[int, Path]]:
        files = (one for one in path.rglob("*") if _is_image(one.name) and one.is_file())
        return {one.relative_to(path).as_posix(): (one.stat().st_size, one) for one in files}

    there = ", ".join(sorted(one.name for one in path.iterdir())[:5]) or "nothing in it"
    return _files(path, "a file that can be read", nullcontext, entries, lambda _, file: file.open("rb"), there)


_ARCHIVE = "a whole zip or tar archive, not encrypted"


def _zip(path: Path) -> Source:
    def entries(archive: zipfile.ZipFile) -> dict[str, tuple[int, zipfile.ZipInfo]]:
        return {entry.filename: (entry.file_size, entry) for entry in archive.infolist()}

    return _files(path, _ARCHIVE, zipfile.ZipFile, entries, zipfile.ZipFile.open)


def _tar(path: Path) -> Source:
    """A compressed archive is fast only if its files are stored in the order of their names."""

    def entries(archive: tarfile.TarFile) -> dict[str, tuple[int, tarfile.TarInfo]]:
        found = {entry.name: (entry.size, entry) for entry in archive if entry.isreg()}
        # one that was cut off between two files looks whole to the library; a whole one ends in zeros
        assert archive.fileobj is not None
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise tarfile.ReadError("the end of the archive is missing: it was probably cut off")
        return found

    return _files(path, _ARCHIVE, tarfile.open, entries, tarfile.TarFile.extractfile)


def _files(
    path: Path,
    needed: str,
    opened: Callable[[Path], Any],
    entries: Callable[[Any], Mapping[str, tuple[int, Any]]],
    member: Callable[[Any, Any], Any],
    there: str = "other files, or none",
) -> Source:
    """The image files of what is opened, sorted by name; its entries are their sizes, and what a member is opened by."""
    with _explained(path, needed), opened(path) as archive:
        found = {name: entry for name, entry in entries(archive).items() if _is_image(name)}
    if not found:
        raise InputError(f"There are no images in {path}", there, f"files ending in {', '.join(SUFFIXES)}")

    def items() -> Iterator[Item]:
        with _explained(path, needed), opened(path) as archive:
            for name in sorted(found):
                size, entry = found[name]
                _checked_length(size, f"{path}/{name}")
                with _explained(f"{path}/{name}", needed), member(archive, entry) as file:
                    content = file.read(size)  # no more than the directory says is ever unpacked
                yield Item(f"{path}/{name}", content)

    return Source(len(found), items)


_PARQUET = "a whole Parquet file"


def _parquet(path: Path) -> Source:
    """The images in the rows of a Parquet file, in the order of the rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _explained(path, _PARQUET, pa.ArrowException), pq.ParquetFile(path) as file:
        column, nested = _image_column(file.schema_arrow, path)
        rows = file.metadata.num_rows
    if not rows:
        raise InputError(f"There are no images in {path}", "no rows", "at least one")

    def items() -> Iterator[Item]:
        with _explained(path, _PARQUET, pa.ArrowException), pq.ParquetFile(path) as file:
            columns = (batch.column(0) for batch in file.iter_batches(64, columns=[column]))
            for row, value in enumerate(chain.from_iterable(one.field("bytes") if nested else one for one in columns)):
                name = f"row {row} of {path}"
                if not value.is_valid:
                    raise InputError(f"There is no image in {name}", "a missing value", "the bytes of an image", "remove the row")
                content: bytes = value.as_py()
                _checked_length(len(content), name)
                yield Item(name, content)

    return Source(rows, items)


def _image_column(schema: Any, path: Path) -> tuple[str, bool]:
    """Name of the column with images, and whether they are a field of its records."""
    import pyarrow.types as types

    def is_binary(kind: Any) -> bool:
        return types.is_binary(kind) or types.is_large_binary(kind)

    found = {}
    for field in schema:
        nested = types.is_struct(field.type) and any(one.name == "bytes" and is_binary(one.type) for one in field.type)
        if nested or is_binary(field.type):
            found[field.name] = nested
    chosen = [name for name in ("image", "img", "png", "jpg", "bytes") if name in found][:1] or list(found)
    if len(chosen) != 1:
        columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
        needed = "one column of image bytes, or of records with a field `bytes` (as Hugging Face data sets have)"
        raise InputError(f"It is not clear which column of {path} holds images", columns[:300], needed)
    return chosen[0], found[chosen[0]]


_NUMPY = "a whole .npy or .npz file"
_IMAGES = "an array (N, height, width), (N, height, width, 1 or 3) or (N, 1 or 3, height, width) of uint8, or of floats in [-1, 1]"
_NAMES = ("images", "image", "x", "data", "arr_0")
"""Arrays of an ``.npz`` that are taken for the images where there are several of their shape, in this order."""


def _array(path: Path) -> Source:
    """The images of an ``.npy`` file, or of the array of images in an ``.npz``, read one at a time."""
    with _explained(path, _NUMPY):
        names, headers = [""], {}
        if path.suffix.lower() == ".npz":
            with zipfile.ZipFile(path) as archive:
                names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        for name in names:
            with _opened(path, name) as (_, header):
                headers[name] = header
    fitting = {name: axes for name, (shape, _, axes) in headers.items() if axes is not None and shape[0]}
    chosen = [name for name in _NAMES if name in fitting][:1] if len(fitting) > 1 else list(fitting)
    if len(chosen) != 1:
        there = ", ".join(f"{name or 'an array'} {dtype} {shape}" for name, (shape, dtype, _) in headers.items())
        raise InputError(f"It is not clear what in {path} are images", there[:300] or "no arrays", _IMAGES)
    (count, *shape), dtype, _ = headers[chosen[0]]
    axes, floats = fitting[chosen[0]], dtype.kind == "f"

    def items() -> Iterator[Item]:
        size = _checked_length(math.prod(shape) * dtype.itemsize, f"an image of {path}")
        lowest = math.inf
        with _explained(path, _NUMPY), _opened(path, chosen[0]) as (file, _):
            for row in range(count):
                data = file.read(size)
                if len(data) != size:
                    raise EOFError(f"it breaks off in image {row} of {count}")
                values = np.frombuffer(data, dtype).reshape(shape if len(shape) == 3 else (*shape, 1))
                if floats:
                    if not np.isfinite(values).all() or np.abs(values).max() > 1.0:
                        found = f"values from {values.min():g} to {values.max():g}"
                        raise InputError(f"The values of image {row} of {path} are none of an image", found, _IMAGES)
                    values = np.rint((values.astype(np.float64) + 1.0) * 127.5).astype(np.uint8)
                    lowest = min(lowest, int(values.min()))
                yield Item(f"image {row} of {path}", np.ascontiguousarray(values.transpose(axes)))
        if floats and lowest > 127:
            raise InputError(f"The images of {path} seem to be in [0, 1]", "no value below 0", _IMAGES, "store 2·images − 1")

    return Source(count, items)


_Header = tuple[tuple[int, ...], np.dtype, tuple[int, int, int] | None]
"""Shape and type of an array; and height, width and channels among the axes of one image, 2 also where there is no channel axis, or None if
these are no images."""


@contextmanager
def _opened(path: Path, name: str) -> Iterator[tuple[IO[bytes], _Header]]:
    """An array of a file, from its first value on, and its header; the one of an ``.npy`` has no name."""
    with path.open("rb") as file:
        if name:
            with zipfile.ZipFile(file) as archive, archive.open(f"{name}.npy") as member:
                yield member, _read_header(member)
        else:
            yield file, _read_header(file)


def _read_header(file: IO[bytes]) -> _Header:
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(npy.read_magic(file))
    if read is None:
        raise ValueError("a version of numpy's format that nobody writes for images")
    shape, fortran, dtype = read(file)
    one, axes = shape[1:], None
    if dtype.kind == "f" or dtype == np.uint8:
        if len(one) == 2 or (len(one) == 3 and one[2] in (1, 3)):
            axes = 0, 1, 2
        elif len(one) == 3 and one[0] in (1, 3):
            axes = 1, 2, 0
    return shape, dtype, None if fortran and len(shape) > 1 else axes


_OPENERS: dict[tuple[str, ...], Callable[[Path], Source]] = {
    (".zip",): _zip,
    (".tar", ".tar.gz", ".tgz"): _tar,
    (".parquet",): _parquet,
    (".npz", ".npy"): _array,
}
"""By the endings of file names."""
