"""How a checkpoint file is packed, recognised by its own bytes and read as data.

Nothing that a file holds or names is ever imported or called: see `unpickler`. ``torch.load(weights_only=True)`` is not used: it reads
neither NVIDIA's networks nor the arguments in a training checkpoint, and holds none of the limits in `bounds`.
"""

from __future__ import annotations

import io
import json
import mmap
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from qualitygate.checkpoints import save as native
from qualitygate.checkpoints.bounds import COPIES, MAX_DIMENSIONS, MAX_DIRECTORY, MAX_JSON, MAX_TENSORS, Budget, Damaged, over_limit
from qualitygate.checkpoints.contents import Contents, TensorGroup
from qualitygate.checkpoints.reader.tensors import Storages
from qualitygate.checkpoints.reader.unpickler import InertUnpickler
from qualitygate.checkpoints.reader.values import LEGACY_MAGIC, Opaque, Values, legacy_value
from qualitygate.errors import CheckpointError, QualityGateError

_READABLE = "a safetensors file, a file of torch.save, a network pickle of NVIDIA's, or a Hugging Face folder"
WEIGHTS_IN_FOLDER = ("model.safetensors", "pytorch_model.bin")
"""Weights of a Hugging Face folder, beside its ``config.json``."""
_ZIP_SIGNATURE = b"PK\x03\x04"
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_ENCRYPTED = 1  # bit of an entry's flags
_PICKLE_STARTS = bytes([pickle.PROTO[0]]) + b"()]}cidlILJKMNFGSTUXV"
"""First bytes of pickles: the mark of protocols 2 to 5, or an instruction that can come first in protocol 0 or 1."""
_TF_NETWORKS = ("G", "D", "Gs")  # generator, discriminator, generator averaged over training
_START = 512  # bytes that tell what a file is
_POINTER = b"version https://git-lfs"
_SIGNATURES = (
    (_POINTER, "a Git LFS pointer, which stands for a file that was not fetched"),
    (_ZIP_SIGNATURE, "a zip archive"),
    (b"PK", "a zip archive without files, or a part of one"),
    (b"\x1f\x8b", "gzip-compressed data"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed data"),
    (b"BZh", "bzip2-compressed data"),
    (b"\xfd7zXZ", "xz-compressed data"),
    (b"7z\xbc\xaf", "a 7-zip archive"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a numpy array"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"%PDF", "a PDF document"),
    (b"GGUF", "a GGUF model"),
    (b"\x80", "a pickle"),
    (b"{", "JSON text"),
)
_WEB_PAGES = (b"<!doctype", b"<html", b"<head", b"<body", b"<?xml", b"<!--")


def read(path: str | Path) -> Contents:
    """Read a checkpoint file, or a Hugging Face folder, as data.

    Tensors are on the CPU whatever device they were saved from, and are mapped from the file where it has their bytes
    as they are; changing them does not change the file.

    Raises:
        CheckpointError: no such file, empty, cut off, damaged, of an unknown kind, or beyond the limits in `bounds`.
        UnsafeCheckpointError: the file names something that it would run, e.g. ``os.system``. Nothing was run.
    """
    path = Path(path)
    try:
        return _read_folder(path) if path.is_dir() else _read_file(path)
    except QualityGateError:
        raise
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be opened", error.strerror or str(error), "a file that can be read", "check the path and its permissions"
        ) from error
    except Exception as error:  # a damaged file may break any assumption on the way
        found = str(error) if isinstance(error, Damaged) else "contents that contradict themselves"
        if path.is_file():
            with path.open("rb") as file:
                found = f"{_described(file.read(_START))}: {found}"
        remedy = "compare size and checksum with the original's; copy or download it again; unpack it if it is compressed"
        raise CheckpointError(f"{path.name} cannot be read as a checkpoint", found, _READABLE, remedy) from error


def _read_file(path: Path) -> Contents:
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path} is not a file", "a device or a pipe", _READABLE, "copy its contents to a file first")
    with path.open("rb") as file:
        start = file.read(_START)
        _refuse_early(path, start)
        source = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))  # tensors will be over these bytes
    if source[4:9] == b"\0\0\0\0{":  # the length of a header, which never has 4 GB, and a JSON object
        return _read_safetensors(path, source)
    budget = Budget(len(source))
    if start.startswith(_ZIP_SIGNATURE):
        return Contents("torch zip archive", _archive_value(path, source, budget))
    if LEGACY_MAGIC.to_bytes(10, "little") in start[:48] or str(LEGACY_MAGIC).encode() in start[:48]:  # the first pickle, in any protocol
        return Contents("torch legacy file", legacy_value(source, budget))
    if start[0] in _PICKLE_STARTS:
        return _read_pickle(source, budget)
    raise Damaged("a kind of file that is no checkpoint")


def _refuse_early(path: Path, start: bytes) -> None:
    """Files that are no checkpoints at all, or none any more, told apart because the remedy is another one."""
    if not start:
        kind, found, remedy = "empty", "0 bytes", "copy or download the file again"
    elif _is_web_page(start):
        kind, found = "a web page", f"text that begins with {start.strip()[:40]!r}"
        remedy = "download it again: the server sent a page (a login, a warning, an error) in place of the file"
    elif start.startswith(_POINTER):
        kind, found, remedy = "a Git LFS pointer", _described(start), "fetch the file itself with `git lfs pull`"
    elif start[257:262] == b"ustar":
        kind, found = "a tar archive", "what torch wrote before version 0.1.10, or somebody's packed files"
        remedy = "unpack it; if torch wrote it, load it with torch and save the state dict again"
    else:
        return
    raise CheckpointError(f"{path.name} is {kind}", found, _READABLE, remedy)


def _read_folder(path: Path) -> Contents:
    config = path / "config.json"
    weights = next((path / name for name in WEIGHTS_IN_FOLDER if (path / name).is_file()), None)
    if not config.is_file() or weights is None:
        names = sorted(entry.name for entry in path.iterdir())
        raise CheckpointError(
            f"{path} is a folder, but not a Hugging Face model",
            ", ".join(names[:8]) + (" …" if len(names) > 8 else "") or "nothing in it",
            f"config.json and one of {', '.join(WEIGHTS_IN_FOLDER)}",
            "name the checkpoint file itself",
        )
    if config.stat().st_size > MAX_JSON:
        raise over_limit("bytes of config.json", MAX_JSON)
    settings, tree = json.loads(config.read_text(encoding="utf-8")), _read_file(weights).tree
    tensors = {name: value for name, value in tree.items() if isinstance(value, Tensor)} if isinstance(tree, dict) else {}
    if not isinstance(settings, dict) or not tensors:
        raise Damaged("a folder whose config.json or weights are not a dictionary")
    return Contents("Hugging Face folder", TensorGroup("", tensors, settings))


def _described(start: bytes) -> str:
    """The kind of file that begins like this, and its first bytes, e.g. ``"gzip-compressed data (1f 8b 08 00 …)"``."""
    if _is_web_page(start):
        return "a web page"
    kind = next((kind for signature, kind in _SIGNATURES if start.startswith(signature)), None)
    if kind is None:
        kind = "text" if start.isascii() and start.decode("ascii").isprintable() else "unknown bytes"
    return f"{kind} ({start[:8].hex(' ')} …)"


def _is_web_page(start: bytes) -> bool:
    return start.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_WEB_PAGES)


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
        if signature != _ZIP_SIGNATURE or end > len(source):
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
