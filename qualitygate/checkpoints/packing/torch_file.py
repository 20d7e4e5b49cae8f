"""Files of ``torch.save``: the zip archives of today, and the stream of pickles and storages of before torch 1.6."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from qualitygate.checkpoints.packing.archive import ENTRY_SIGNATURE, Archive
from qualitygate.checkpoints.packing.bounds import MAX_NESTED_FILES, Budget, over_limit
from qualitygate.checkpoints.packing.machine import Machine
from qualitygate.checkpoints.packing.records import Damaged
from qualitygate.checkpoints.packing.storages import Storages, exactly, parse
from qualitygate.checkpoints.packing.values import Values

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_COUNT = struct.Struct("<q")


def is_archive(source: memoryview) -> bool:
    """Whether the file begins like a zip archive."""
    return source[: len(ENTRY_SIGNATURE)] == ENTRY_SIGNATURE


def is_legacy(source: memoryview) -> bool:
    """Whether the first pickle is torch's magic number, in any protocol."""
    start = bytes(source[:48])
    return _MAGIC.to_bytes(10, "little") in start or str(_MAGIC).encode() in start


def read_archive(source: memoryview, budget: Budget) -> Any:
    """The value in a torch zip archive, its tensors on the CPU and over the bytes of ``source``.

    Raises:
        Damaged: not torch's, cut off, or inconsistent.
        CheckpointError: beyond the limits, or hostile.
    """
    archive = Archive(source, budget)
    if "byteorder" in archive and bytes(archive.entry("byteorder")) != b"little":
        raise Damaged("an archive in the byte order of another kind of machine")
    storages = Storages(lambda key: archive.entry(f"data/{key}"), budget)
    machine = Machine(archive.entry("data.pkl"), 0, budget)
    return Values(storages, nested_reader(budget), budget).value(machine.result)


def read_legacy(source: memoryview, budget: Budget) -> Any:
    """The value in an old torch file: magic number, version, machine, value, list of storages, storages.

    Raises:
        Damaged: cut off, or inconsistent.
        CheckpointError: beyond the limits, or hostile.
    """
    position, pickles = 0, []
    for _ in range(5):
        pickles.append(Machine(source, position, budget))
        position = pickles[-1].end
    magic, protocol, _, value, keys = pickles
    if (magic.result, protocol.result) != (_MAGIC, _PROTOCOL) or not isinstance(keys.result, list):
        raise Damaged("a torch file of a version nobody knows")
    itemsizes = {reference.key: reference.dtype.itemsize for reference in map(parse, value.references)}
    raw = {}
    for key in keys.result:
        (count,) = _COUNT.unpack_from(source, position)
        if key not in itemsizes or count < 0:
            raise Damaged("a storage that nothing in the file uses")
        raw[key] = exactly(source, position + _COUNT.size, count * itemsizes[key])
        position += _COUNT.size + len(raw[key])
    return Values(Storages(raw.__getitem__, budget), nested_reader(budget), budget).value(value.result)


def nested_reader(budget: Budget) -> Callable[[memoryview], Any]:
    """A function that reads torch files standing as bytes inside a pickle, within the same budget."""

    def read(source: memoryview) -> Any:
        budget.nested += 1
        if budget.nested > MAX_NESTED_FILES:
            raise over_limit("torch files inside one another", MAX_NESTED_FILES)
        value = read_archive(source, budget) if is_archive(source) else read_legacy(source, budget)
        budget.nested -= 1
        return value

    return read
