"""Files of ``torch.save``: the zip archives of today, and the plain stream of pickles and storages that torch wrote before version 1.6."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from typing import Any

import torch

from qualitygate.checkpoints.packing.archive import Archive
from qualitygate.checkpoints.packing.arrays import Storage, storage_dtype
from qualitygate.checkpoints.packing.bounds import MAX_NESTED_FILES, Budget, over_limit
from qualitygate.checkpoints.packing.machine import Machine
from qualitygate.checkpoints.packing.records import Damaged, Global, Persistent
from qualitygate.checkpoints.packing.values import Values

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


def read_archive(source: memoryview, budget: Budget) -> Any:
    """The value in a torch zip archive.

    Raises:
        Damaged: if it is no torch archive, or not whole.
    """
    archive = Archive(source)
    if archive.get("byteorder", b"little").strip() != b"little":
        raise Damaged("an archive written on a big-endian machine")
    storages: dict[str, Storage] = {}

    def storage(reference: Persistent) -> Any:
        dtype, key, numel, _ = _reference(reference)
        if key not in storages:
            storages[key] = Storage(_whole(archive.entry(f"data/{key}"), numel * dtype.itemsize), dtype)
        return storages[key] if storages[key].dtype == dtype else Storage(storages[key].data, dtype)

    machine = Machine(archive.entry("data.pkl"), 0, budget)
    return Values(storage, _nested_reader(budget), budget).value(machine.result)


def read_legacy(source: memoryview, budget: Budget) -> Any:
    """The value in a torch file of before 1.6: magic number, version, machine, value, keys of the storages, storages.

    Raises:
        Damaged: if it is not whole.
    """
    position = 0
    parts = []
    for _ in range(5):
        machine = Machine(source, position, budget)
        parts.append(machine)
        position = machine.end
    magic, protocol, _, value, keys = parts
    if magic.result != _MAGIC or protocol.result != _PROTOCOL:
        raise Damaged(f"a torch file of protocol {str(protocol.result)[:20]}")
    roots = _read_storages(source, position, keys.result, value.references)

    def storage(reference: Persistent) -> Any:
        dtype, key, numel, window = _reference(reference)
        root = _whole(roots.get(key), numel * dtype.itemsize)
        if window is not None:
            start, length = (number * dtype.itemsize for number in window)
            root = _whole(root[start : start + length], length)
        return Storage(root, dtype)

    return Values(storage, _nested_reader(budget), budget).value(value.result)


def is_legacy(source: memoryview) -> bool:
    """Whether a pickle begins with torch's magic number."""
    try:
        return Machine(source, 0, Budget(instructions=100)).result == _MAGIC
    except (Damaged, Exception):
        return False


def _read_storages(source: memoryview, position: int, keys: Any, references: list[Persistent]) -> dict[str, memoryview]:
    """The storages at the end of a file, each its number of values (int64) and its bytes."""
    sizes = {key: dtype.itemsize for dtype, key, _, _ in map(_reference, references)}
    if not isinstance(keys, list):
        raise Damaged("no list of storages")
    roots = {}
    for key in keys:
        (length,) = struct.unpack_from("<q", source, position)
        if key not in sizes or length < 0:
            raise Damaged(f"a storage {str(key)[:20]!a} that nothing uses")
        roots[key] = _whole(source[position + 8 : position + 8 + length * sizes[key]], length * sizes[key])
        position += 8 + length * sizes[key]
    return roots


def _reference(reference: Persistent) -> tuple[torch.dtype, str, int, tuple[int, int] | None]:
    """Dtype, key and number of values of a storage, and offset and length of a window into it, if it is one."""
    key = reference.key
    if not isinstance(key, tuple) or len(key) not in (5, 6) or key[0] not in ("storage", b"storage"):
        raise Damaged("a reference to something that is not a storage")
    _, kind, name, _, numel = key[:5]
    if not isinstance(kind, Global) or not isinstance(name, str) or not isinstance(numel, int) or numel < 0:
        raise Damaged("a storage without type, key or size")
    window = None
    if len(key) == 6 and key[5] is not None:
        _, start, length = key[5]
        if not all(isinstance(number, int) and number >= 0 for number in (start, length)):
            raise Damaged("a window of a storage without a size")
        window = (start, length)
    return storage_dtype(kind.name), name, numel, window


def _whole(data: memoryview | None, size: int) -> memoryview:
    if data is None or len(data) < size:
        raise Damaged(f"a storage of {size:,} bytes, of which the file has {len(data or b''):,}")
    return data[:size]


def _nested_reader(budget: Budget) -> Callable[[memoryview], Any]:
    """Reads the torch files that stand as bytes inside a pickle, within the same budget."""

    def read(source: memoryview) -> Any:
        budget.nested_files += 1
        if budget.nested_files > MAX_NESTED_FILES:
            raise over_limit("torch files inside one another", MAX_NESTED_FILES)
        try:
            return read_archive(source, budget) if source[:4] == b"PK\x03\x04" else read_legacy(source, budget)
        finally:
            budget.nested_files -= 1

    return read


nested_reader = _nested_reader

__all__ = ["is_legacy", "nested_reader", "read_archive", "read_legacy", "zipfile"]
