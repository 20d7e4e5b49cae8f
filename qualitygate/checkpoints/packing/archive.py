"""Zip archives over the bytes of a file. Stored entries are views; compressed ones are unpacked within a bound."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

from qualitygate.checkpoints.packing.bounds import MAX_ENTRIES, MAX_INFLATION, over_limit
from qualitygate.checkpoints.packing.records import Damaged

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_SLACK = 2**20  # small archives may inflate beyond the factor


class Archive:
    """A torch archive: all entries under one folder, with a ``data.pkl`` in it.

    Raises:
        Damaged: not a zip, cut off, entries that overlap, or no ``data.pkl``.
    """

    def __init__(self, source: memoryview) -> None:
        self._source = source
        self._left = MAX_INFLATION * len(source) + _SLACK
        try:
            with zipfile.ZipFile(_Window(source)) as directory:  # type: ignore[arg-type]
                entries = directory.infolist()
        except (zipfile.BadZipFile, ValueError, OverflowError, struct.error, NotImplementedError, IndexError) as error:
            raise Damaged("a zip archive without its directory: cut off, probably") from error
        if len(entries) > MAX_ENTRIES:
            raise over_limit("entries in the archive", MAX_ENTRIES)
        self._entries = {entry.filename: entry for entry in entries}
        folders = [
            name.removesuffix("data.pkl") for name in self._entries if name.endswith("/data.pkl") or name == "data.pkl"
        ]
        if not folders:
            raise Damaged(
                f"a zip archive without data.pkl, so not torch's; it begins with {next(iter(self._entries), 'nothing')[:80]!a}"
            )
        self._folder = min(folders, key=len)
        self._places = self._checked_places()

    def get(self, name: str, default: bytes) -> bytes:
        return bytes(self.entry(name)) if self._folder + name in self._entries else default

    def entry(self, name: str) -> memoryview:
        """The bytes of an entry."""
        entry = self._entries.get(self._folder + name)
        if entry is None:
            raise Damaged(f"no entry {name[:80]!a} in the archive")
        start = self._places[entry.filename]
        packed = self._source[start : start + entry.compress_size]
        if entry.flag_bits & 1:
            raise Damaged("an encrypted archive")
        if entry.compress_type == zipfile.ZIP_STORED:
            return packed
        if entry.compress_type != zipfile.ZIP_DEFLATED:
            raise Damaged(f"compression method {entry.compress_type}")
        return self._inflate(packed, entry.file_size)

    def _inflate(self, packed: memoryview, size: int) -> memoryview:
        self._left -= size
        if self._left < 0:
            raise over_limit("times the size of the file once unpacked", MAX_INFLATION)
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, size + 1)
        except zlib.error as error:
            raise Damaged("a compressed entry that cannot be unpacked") from error
        if len(data) != size:
            raise Damaged("a compressed entry of another size than declared")
        return memoryview(bytearray(data))

    def _checked_places(self) -> dict[str, int]:
        """Where each entry's bytes begin; no two may share bytes."""
        places, end = {}, 0
        for entry in sorted(self._entries.values(), key=lambda entry: entry.header_offset):
            header = self._source[entry.header_offset : entry.header_offset + _LOCAL_HEADER.size]
            if entry.header_offset < end or len(header) < _LOCAL_HEADER.size:
                raise Damaged("an archive whose entries overlap")
            signature, *_, name_length, extra_length = _LOCAL_HEADER.unpack(header)
            start = entry.header_offset + _LOCAL_HEADER.size + name_length + extra_length
            end = start + entry.compress_size
            if signature != b"PK\x03\x04" or end > len(self._source):
                raise Damaged("an archive whose entries reach beyond its end")
            places[entry.filename] = start
        return places


class _Window(io.RawIOBase):
    """A memoryview as a file, without copying it."""

    def __init__(self, source: memoryview) -> None:
        self._source, self._position = source, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        base = (0, self._position, len(self._source))[whence]
        if base + offset < 0:
            raise ValueError("a position before the beginning")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        part = self._source[self._position : self._position + len(buffer)]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)
