"""The kinds of files: zip archives of torch and the stream of before torch 1.6, plain pickles, safetensors."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from qualitygate.checkpoints import save as native
from qualitygate.checkpoints.contents import Contents, TensorGroup
from qualitygate.checkpoints.reader.bounds import COPIES, MAX_DIMENSIONS, MAX_DIRECTORY, MAX_JSON, MAX_TENSORS, Budget, Damaged, over_limit
from qualitygate.checkpoints.reader.tensors import Storages
from qualitygate.checkpoints.reader.unpickler import InertUnpickler
from qualitygate.checkpoints.reader.values import LEGACY_MAGIC, Opaque, Values, legacy_value

ZIP_SIGNATURE = b"PK\x03\x04"
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_ENCRYPTED = 1  # bit of an entry's flags
_PICKLE_STARTS = bytes([pickle.PROTO[0]]) + b"()]}cidlILJKMNFGSTUXV"
"""First bytes of pickles: the mark of protocols 2 to 5, or an instruction that can come first in protocol 0 or 1."""
_TF_NETWORKS = ("G", "D", "Gs")  # generator, discriminator, generator averaged over training


def read_bytes(path: Path, source: memoryview) -> Contents:
    """What the file at ``path``, whose bytes are ``source``, holds; its tensors are over those bytes.

    Raises:
        Damaged: of no kind that is known, cut off, or inconsistent.
        CheckpointError: beyond the limits, or hostile.
    """
    if source[4:9] == b"\0\0\0\0{":  # the length of a header, which never has 4 GB, and a JSON object
        return _read_safetensors(path, source)
    budget, start = Budget(len(source)), bytes(source[:48])
    if start.startswith(ZIP_SIGNATURE):
        return Contents("torch zip archive", _archive_value(path, source, budget))
    if LEGACY_MAGIC.to_bytes(10, "little") in start or str(LEGACY_MAGIC).encode() in start:  # the first pickle, in any protocol
        return Contents("torch legacy file", legacy_value(source, budget))
    if start[0] in _PICKLE_STARTS:
        return _read_pickle(source, budget)
    raise Damaged("a kind of file that is no checkpoint")


def _read_pickle(source: memoryview, budget: Budget) -> Contents:
    """A plain pickle: a network pickle of NVIDIA's, or a dictionary of tensors or arrays. A tuple of three TensorFlow-era networks is given
    as a dictionary with their names."""
    values = Values(lambda _: Opaque("a reference to something beside the file"), budget)
    tree = values.value(InertUnpickler(source, 0, budget).load())
    if "tensorflow" in values.eras:
        if isinstance(tree, (tuple, list)) and len(tree) == len(_TF_NETWORKS) and isinstance(tree[0], TensorGroup):
            tree = dict(zip(_TF_NETWORKS, tree, strict=True))
        return Contents("pickle (TensorFlow-era NVIDIA networks)", tree)
    return Contents("pickle (NVIDIA networks)" if "persistence" in values.eras else "pickle", tree)


def _read_safetensors(path: Path, source: memoryview) -> Contents:
    """The tensors, mapped into memory by the format's own library; of a file of our own the networks in it, with family and settings."""
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


class _Directory(io.FileIO):
    """A file for `zipfile`, which reads the table of contents in one piece and parses all of it."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size > MAX_DIRECTORY:
            raise over_limit("bytes in the archive's table of contents", MAX_DIRECTORY)
        return super().read(size) or b""


def _archive_value(path: Path, source: memoryview, budget: Budget) -> Any:
    """The value in a torch archive: a folder with ``data.pkl`` and all else in it."""
    try:
        with _Directory(path) as file, zipfile.ZipFile(file) as directory:
            entries = directory.infolist()
    except (zipfile.BadZipFile, ValueError, LookupError, OverflowError, NotImplementedError, struct.error) as error:
        raise Damaged("a zip archive without its table of contents: probably cut off") from error
    by_name = {entry.filename: entry for entry in entries}
    pickles = [name for name in by_name if f"/{name}".endswith("/data.pkl")]
    if not pickles:
        first = next(iter(by_name), "nothing")
        raise Damaged(f"a zip archive that torch did not write: it has no data.pkl, and begins with {first[:80]!a}")
    folder = min(pickles, key=len).removesuffix("data.pkl")
    starts = _starts(entries, source)

    def content(name: str) -> memoryview:
        if folder + name not in by_name:
            raise Damaged(f"an archive without its entry {name[:80]!a}")
        start, entry = starts[folder + name], by_name[folder + name]
        return _content(entry, source[start : start + entry.compress_size], budget)

    if f"{folder}byteorder" in by_name and bytes(content("byteorder")) != b"little":
        raise Damaged("an archive in the byte order of another kind of machine")
    values = Values(Storages(lambda key: content(f"data/{key}"), budget), budget)
    return values.value(InertUnpickler(content("data.pkl"), 0, budget).load())


def _starts(entries: list[zipfile.ZipInfo], source: memoryview) -> dict[str, int]:
    """Where the bytes of each entry begin, by its name; no two entries share any."""
    starts, end = {}, 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        header = source[entry.header_offset : entry.header_offset + _LOCAL_HEADER.size]
        if entry.header_offset < end or len(header) < _LOCAL_HEADER.size:
            raise Damaged("an archive whose entries overlap")
        signature, *_, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        start = entry.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        end = start + entry.compress_size
        if signature != ZIP_SIGNATURE or end > len(source):
            raise Damaged("an archive whose entries are not where its table of contents says")
        starts[entry.filename] = start
    return starts


def _content(entry: zipfile.ZipInfo, packed: memoryview, budget: Budget) -> memoryview:
    """An entry's content: a view of the file, or unpacked."""
    if entry.flag_bits & _ENCRYPTED or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Damaged(f"an archive packed in a way torch does not use (method {entry.compress_type})")
    if entry.compress_type == zipfile.ZIP_STORED:
        return packed
    budget.take(COPIES, entry.file_size)
    try:
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, entry.file_size + 1)
    except zlib.error as error:
        raise Damaged("a compressed entry that cannot be unpacked") from error
    if len(data) != entry.file_size:
        raise Damaged(f"a compressed entry that is not the {entry.file_size:,} bytes it says")
    return memoryview(bytearray(data))
