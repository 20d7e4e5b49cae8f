"""Bytes of a mapped file for libraries that want to read from a file."""

from __future__ import annotations

import io


class Window(io.RawIOBase):
    """Bytes as a file, without a copy of them."""

    def __init__(self, source: memoryview) -> None:
        self._source, self._position = source, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._source)}[whence] + offset
        if position < 0:
            raise ValueError("a position before the first byte")
        self._position = position
        return position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        part = self._source[self._position : self._position + len(buffer)]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)
