"""Image files in a folder and the folders below it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qualitygate.errors import InputError
from qualitygate.features.images.decoding import SUFFIXES, checked_length, is_image
from qualitygate.features.images.image_set import Item, Source


class FolderSource(Source):
    """The image files below a folder, sorted by their paths within it.

    Raises:
        InputError: there are none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        found = (one.relative_to(path).as_posix() for one in path.rglob("*") if is_image(one.name) and one.is_file())
        self._names = sorted(found)
        if not self._names:
            there = ", ".join(sorted(one.name for one in path.iterdir())[:5]) or "nothing in it"
            raise InputError(f"There are no images in {path}", there, f"files ending in {', '.join(SUFFIXES)}")

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[Item]:
        for name in self._names:
            path = self._path / name
            try:
                checked_length(path.stat().st_size, str(path))
                content = path.read_bytes()
            except OSError as error:
                raise InputError(f"{path} cannot be read", error.strerror, "a file that can be read") from error
            yield Item(str(path), content)
