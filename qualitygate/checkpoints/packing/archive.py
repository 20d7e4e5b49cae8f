"""Zip archives over the bytes of a file. Stored entries are views; compressed ones are unpacked within the budget."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

from qualitygate.checkpoints.packing.bounds import MAX_ENTRIES, Budget, over_limit
from qualitygate.checkpoints.packing.records import Damaged
from qualitygate.checkpoints.packing.window import Window

ENTRY_SIGNATURE = b"PK\x03\x04"
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_ENCRYPTED = 1  # bit of an entry's flags


class Archive:
    """A torch archive: a folder with ``data.pkl`` and all else in it.

    Raises:
        Damaged: not a zip, cut off, no ``data.pkl``, or entries that share bytes.
        CheckpointError: too many entries.
    """

    def __init__(self, source: memoryview, budget: Budget) -> None:
        self._source, self._budget = source, budget
        try:
            with zipfile.ZipFile(io.BufferedReader(Window(source))) as directory:
                entries = directory.infolist()
        except (zipfile.BadZipFile, ValueError, LookupError, OverflowError, NotImplementedError, struct.error) as error:
            raise Damaged("a zip archive without its table of contents: probably cut off") from error
        if len(entries) > MAX_ENTRIES:
            raise over_limit("entries in the archive", MAX_ENTRIES)
        self._entries = {entry.filename: entry for entry in entries}
        pickles = [name for name in self._entries if f"/{name}".endswith("/data.pkl")]
        if not pickles:
            first = next(iter(self._entries), "nothing")
            raise Damaged(f"a zip archive that torch did not write: it has no data.pkl, and begins with {first[:80]!a}")
        self._folder = min(pickles, key=len).removesuffix("data.pkl")
        self._starts = self._checked_starts(entries)

    def __contains__(self, name: str) -> bool:
        return self._folder + name in self._entries

    def entry(self, name: str) -> memoryview:
        """The bytes of an entry."""
        if name not in self:
            raise Damaged(f"an archive without its entry {name[:80]!a}")
        entry = self._entries[self._folder + name]
        start = self._starts[entry.filename]
        packed = self._source[start : start + entry.compress_size]
        if entry.flag_bits & _ENCRYPTED or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Damaged(f"an archive packed in a way torch does not use (method {entry.compress_type})")
        return packed if entry.compress_type == zipfile.ZIP_STORED else self._unpacked(packed, entry.file_size)

    def _unpacked(self, packed: memoryview, size: int) -> memoryview:
        self._budget.take_copy(2 * size)
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, size + 1)
        except zlib.error as error:
            raise Damaged("a compressed entry that cannot be unpacked") from error
        if len(data) != size:
            raise Damaged(f"a compressed entry that is not the {size:,} bytes it says")
        return memoryview(bytearray(data))

    def _checked_starts(self, entries: list[zipfile.ZipInfo]) -> dict[str, int]:
        """Where the bytes of each entry begin; no two entries share any."""
        starts, end = {}, 0
        for entry in sorted(entries, key=lambda entry: entry.header_offset):
            header = self._source[entry.header_offset : entry.header_offset + _LOCAL_HEADER.size]
            if entry.header_offset < end or len(header) < _LOCAL_HEADER.size:
                raise Damaged("an archive whose entries overlap")
            signature, *_, name_length, extra_length = _LOCAL_HEADER.unpack(header)
            start = entry.header_offset + _LOCAL_HEADER.size + name_length + extra_length
            end = start + entry.compress_size
            if signature != ENTRY_SIGNATURE or end > len(self._source):
                raise Damaged("an archive whose entries are not where its table of contents says")
            starts[entry.filename] = start
        return starts
