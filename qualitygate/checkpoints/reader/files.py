"""The kinds of files: zip archives of torch and the stream of before torch 1.6, plain pickles, safetensors."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from qualitygate.checkpoints import save as native
from qualitygate.checkpoints.contents import Contents, TensorGroup
from qualitygate.checkpoints.reader.bounds import (
    MAX_DIMENSIONS,
    MAX_DIRECTORY,
    MAX_JSON,
    MAX_NESTED_FILES,
    MAX_TENSORS,
    Budget,
    Damaged,
    over_limit,
)
from qualitygate.checkpoints.reader.tensors import Storages, exactly, parse
from qualitygate.checkpoints.reader.unpickler import InertUnpickler
from qualitygate.checkpoints.reader.values import Opaque, Values

ZIP_SIGNATURE = b"PK\x03\x04"
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_ENCRYPTED = 1  # bit of an entry's flags
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_TF_NETWORKS = ("G", "D", "Gs")  # generator, discriminator, generator averaged over training


def is_legacy(source: memoryview) -> bool:
    """Whether the first pickle is torch's magic number, in any protocol."""
    start = bytes(source[:48])
    return _MAGIC.to_bytes(10, "little") in start or str(_MAGIC).encode() in start


def read_archive(path: Path, source: memoryview, budget: Budget) -> Contents:
    """The value in a torch zip archive, its tensors on the CPU and over the bytes of ``source``.

    Raises:
        Damaged: not torch's, cut off, or inconsistent.
        CheckpointError: beyond the limits, or hostile.
    """
    archive = _Archive(path, source, budget)
    if "byteorder" in archive and bytes(archive.entry("byteorder")) != b"little":
        raise Damaged("an archive in the byte order of another kind of machine")
    values = Values(Storages(lambda key: archive.entry(f"data/{key}"), budget), _nested_reader(budget), budget)
    return Contents("torch zip archive", values.value(InertUnpickler(archive.entry("data.pkl"), 0, budget).load()))


def read_legacy(source: memoryview, budget: Budget) -> Contents:
    """The value in an old torch file.

    Raises:
        Damaged: cut off, or inconsistent.
        CheckpointError: beyond the limits, or hostile.
    """
    return Contents("torch legacy file", _legacy(source, budget))


def read_pickle(source: memoryview, budget: Budget) -> Contents:
    """The value of a plain pickle: a network pickle of NVIDIA's, or a dictionary of tensors or arrays. A tuple of three TensorFlow-era
    networks is given as a dictionary with their names.

    Raises:
        Damaged: no pickle, cut off, or inconsistent.
        CheckpointError: beyond the limits, or hostile.
    """
    values = Values(lambda _: Opaque("a reference to something beside the file"), _nested_reader(budget), budget)
    tree = values.value(InertUnpickler(source, 0, budget).load())
    if "tensorflow" in values.eras:
        if isinstance(tree, (tuple, list)) and len(tree) == len(_TF_NETWORKS) and isinstance(tree[0], TensorGroup):
            tree = dict(zip(_TF_NETWORKS, tree, strict=True))
        return Contents("pickle (TensorFlow-era NVIDIA networks)", tree)
    return Contents("pickle (NVIDIA networks)" if "persistence" in values.eras else "pickle", tree)


def is_safetensors(source: memoryview) -> bool:
    """Whether the file begins with the length of a header, which never has 4 GB, and a JSON object."""
    return source[4:9] == b"\0\0\0\0{"


def read_safetensors(path: Path, source: memoryview) -> Contents:
    """The tensors, mapped into memory by the format's own library; of a file of our own the networks in it, with family and settings.

    Raises:
        Damaged: cut off, or the header makes no sense.
        CheckpointError: beyond the limits.
    """
    length = int.from_bytes(source[:8], "little")
    if length > MAX_JSON:
        raise over_limit("bytes in the header", MAX_JSON)
    header = json.loads(bytes(source[8 : 8 + length]))
    if len(header) > MAX_TENSORS:
        raise over_limit("tensors", MAX_TENSORS)
    if any(name != "__metadata__" and len(about["shape"]) > MAX_DIMENSIONS for name, about in header.items()):
        raise Damaged("a tensor with too many dimensions")
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
            metadata = dict(file.metadata() or {})
    except SafetensorError as error:
        raise Damaged(f"a safetensors file that is cut off or inconsistent ({error})") from error
    if native.METADATA_KEY not in metadata:
        return Contents("safetensors", tensors, metadata)
    return Contents("safetensors", native.networks(tensors, json.loads(metadata[native.METADATA_KEY])), metadata)


def _legacy(source: memoryview, budget: Budget) -> Any:
    """Magic number, version, machine, value, list of storages, storages."""
    position, results, references = 0, [], []
    for _ in range(5):
        reader = InertUnpickler(source, position, budget)
        results.append(reader.load())
        references += reader.references
        position = reader.end
    magic, protocol, _, value, keys = results
    if (magic, protocol) != (_MAGIC, _PROTOCOL) or not isinstance(keys, list):
        raise Damaged("a torch file of a version nobody knows")
    itemsizes = {key: dtype.itemsize for key, dtype, *_ in map(parse, references)}
    raw = {}
    for key in keys:
        (count,) = struct.unpack_from("<q", source, position)
        if key not in itemsizes or count < 0:
            raise Damaged("a storage that nothing in the file uses")
        raw[key] = exactly(source, position + 8, count * itemsizes[key])
        position += 8 + len(raw[key])
    return Values(Storages(raw.__getitem__, budget), _nested_reader(budget), budget).value(value)


def _nested_reader(budget: Budget) -> Callable[[memoryview], Any]:
    """A function that reads torch files standing as bytes inside a pickle, within the same budget."""

    def read(source: memoryview) -> Any:
        budget.nested += 1
        if budget.nested > MAX_NESTED_FILES:
            raise over_limit("torch files inside one another", MAX_NESTED_FILES)
        value = _legacy(source, budget)
        budget.nested -= 1
        return value

    return read


class _Directory(io.FileIO):
    """A file for `zipfile`, which reads the table of contents in one piece and parses all of it."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size > MAX_DIRECTORY:
            raise over_limit("bytes in the archive's table of contents", MAX_DIRECTORY)
        return super().read(size) or b""


class _Archive:
    """A torch archive: a folder with ``data.pkl`` and all else in it. Stored entries are views, compressed ones are unpacked.

    Raises:
        Damaged: not a zip, cut off, no ``data.pkl``, or entries that share bytes.
        CheckpointError: too many entries.
    """

    def __init__(self, path: Path, source: memoryview, budget: Budget) -> None:
        self._source, self._budget = source, budget
        try:
            with _Directory(path) as file, zipfile.ZipFile(file) as directory:
                entries = directory.infolist()
        except (zipfile.BadZipFile, ValueError, LookupError, OverflowError, NotImplementedError, struct.error) as error:
            raise Damaged("a zip archive without its table of contents: probably cut off") from error
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
        self._budget.take_copy(size)
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
            if signature != ZIP_SIGNATURE or end > len(self._source):
                raise Damaged("an archive whose entries are not where its table of contents says")
            starts[entry.filename] = start
        return starts


PICKLE_STARTS = bytes([pickle.PROTO[0]]) + b"()]}cidlILJKMNFGSTUXV"
"""First bytes of pickles: the mark of protocols 2 to 5, or an instruction that can come first in protocol 0 or 1."""
