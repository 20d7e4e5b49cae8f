"""Images in a numpy file, read a few at a time: neither an ``.npy`` nor an ``.npz`` is ever held whole."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from qualitygate.errors import InputError
from qualitygate.features.images.decoding import checked_length
from qualitygate.features.images.image_set import Item, Source

_NEEDED = "an array (N, height, width), (N, height, width, 1 or 3) or (N, 1 or 3, height, width) of uint8, or of floats in [-1, 1]"
_NAMES = ("images", "image", "x", "data", "arr_0")
"""Arrays of an ``.npz`` that are taken for the images where there are several of their shape, in this order."""
_BROKEN = (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool

    @property
    def axes(self) -> tuple[int, int, int] | None:
        """Which axes of one image are height, width and channels; None if these are no images. 2 may stand for a channel
        axis that there is not."""
        one = self.shape[1:]
        if self.dtype.kind not in "uf" or (self.dtype.kind == "u" and self.dtype.itemsize > 1) or self.fortran:
            return None
        if len(one) == 2 or (len(one) == 3 and one[2] in (1, 3)):
            return 0, 1, 2
        return (1, 2, 0) if len(one) == 3 and one[0] in (1, 3) else None


class ArraySource(Source):
    """The images of an ``.npy`` file, or of the array of images in an ``.npz``.

    Raises:
        InputError: no such file, or no array of images in it, or several.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _explained(path):
            headers = dict(_headers(path))
        fitting = [name for name, header in headers.items() if header.axes is not None and header.shape[0]]
        chosen = [name for name in _NAMES if name in fitting][:1] if len(fitting) > 1 else fitting
        if len(chosen) != 1:
            there = ", ".join(f"{name or 'an array'} {one.dtype} {one.shape}" for name, one in headers.items())
            raise InputError(f"It is not clear what in {path} are images", there[:300] or "no arrays", _NEEDED)
        self._name, self._header = chosen[0], headers[chosen[0]]

    def __len__(self) -> int:
        return self._header.shape[0]

    def __iter__(self) -> Iterator[Item]:
        header = self._header
        shape = header.shape[1:]
        size = checked_length(math.prod(shape) * header.dtype.itemsize, f"an image of {self._path}")
        lowest = math.inf
        with _explained(self._path), _opened(self._path, self._name) as file:
            _read_header(file)
            for row in range(len(self)):
                data = file.read(size)
                if len(data) != size:
                    raise EOFError(f"it breaks off in image {row} of {len(self)}")
                values = np.frombuffer(data, header.dtype).reshape(shape if len(shape) == 3 else (*shape, 1))
                if header.dtype.kind == "f":
                    values = _as_8_bit(values, f"image {row} of {self._path}")
                    lowest = min(lowest, int(values.min()))
                assert header.axes is not None  # it was chosen for that
                yield Item(f"image {row} of {self._path}", np.ascontiguousarray(values.transpose(header.axes)))
        if header.dtype.kind == "f" and lowest > 127:
            raise InputError(f"The images of {self._path} seem to be in [0, 1]", "no value below 0", _NEEDED, "store 2·images − 1")


def _as_8_bit(values: np.ndarray, name: str) -> np.ndarray:
    if not np.isfinite(values).all() or np.abs(values).max() > 1.0:
        found = f"values from {values.min():g} to {values.max():g}"
        raise InputError(f"The values of {name} are none of an image", found, _NEEDED)
    return np.rint((values.astype(np.float64) + 1.0) * 127.5).astype(np.uint8)


def _headers(path: Path) -> Iterator[tuple[str, _Header]]:
    """Names and headers of the arrays; the one of an ``.npy`` has no name."""
    names = [""]
    if path.suffix.lower() == ".npz":
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    for name in names:
        with _opened(path, name) as file:
            yield name, _read_header(file)


@contextmanager
def _opened(path: Path, name: str) -> Iterator[IO[bytes]]:
    if path.suffix.lower() == ".npy":
        with path.open("rb") as file:
            yield file
    else:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as member:
            yield member


def _read_header(file: IO[bytes]) -> _Header:
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(npy.read_magic(file))
    if read is None:
        raise ValueError("a version of numpy's format that nobody writes for images")
    shape, fortran, dtype = read(file)
    return _Header(shape, dtype, fortran and len(shape) > 1)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except _BROKEN as error:
        raise InputError(f"{path} cannot be read", str(error), "a whole .npy or .npz file") from error
