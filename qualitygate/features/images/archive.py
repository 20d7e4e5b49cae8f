"""Image files in a zip or tar archive. Nothing is unpacked to disk, and no entry is read beyond what it may be."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qualitygate.errors import InputError
from qualitygate.features.images.decoding import SUFFIXES, checked_length, is_image
from qualitygate.features.images.image_set import Item, Source

_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, OSError, RuntimeError)
"""What the standard library raises on damaged, encrypted or exotic archives."""


class ZipSource(Source):
    """The image files of a zip archive, sorted by name.

    Raises:
        InputError: no zip archive, or one without images.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _explained(path), zipfile.ZipFile(path) as archive:
            names = [entry.filename for entry in archive.infolist() if is_image(entry.filename)]
        self._names = _some(sorted(set(names)), path)

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[Item]:
        with _explained(self._path), zipfile.ZipFile(self._path) as archive:
            for name in self._names:
                shown = f"{self._path}/{name}"
                checked_length(archive.getinfo(name).file_size, shown)
                with _explained(self._path, name), archive.open(name) as file:
                    # no more than the directory says is ever unpacked
                    content = file.read(archive.getinfo(name).file_size)
                yield Item(shown, content)


class TarSource(Source):
    """The image files of a tar archive, sorted by name; a compressed one is fast only if they are stored in this order.

    Raises:
        InputError: no tar archive, or one without images.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _explained(path), tarfile.open(path) as archive:
            members = {one.name: one for one in archive if one.isreg() and is_image(one.name)}
            _check_end(archive)
        self._members = [members[name] for name in _some(sorted(members), path)]

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Item]:
        with _explained(self._path), tarfile.open(self._path) as archive:
            for member in self._members:
                shown = f"{self._path}/{member.name}"
                checked_length(member.size, shown)
                with _explained(self._path, member.name):
                    file = archive.extractfile(member)
                    assert file is not None  # it is a regular file
                    content = file.read()
                yield Item(shown, content)


def _check_end(archive: tarfile.TarFile) -> None:
    """An archive that was cut off between two files looks whole to the library; a whole one ends in zeros."""
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise tarfile.ReadError("the end of the archive is missing: it was probably cut off")


@contextmanager
def _explained(path: Path, name: str | None = None) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except _BROKEN as error:
        where = f"{name} in {path}" if name else str(path)
        raise InputError(
            f"{where} cannot be read", f"{type(error).__name__}: {error}", "a whole zip or tar archive, not encrypted"
        ) from error


def _some(names: list[str], path: Path) -> list[str]:
    if not names:
        raise InputError(f"There are no images in {path}", "other files, or none", f"files ending in {', '.join(SUFFIXES)}")
    return names
