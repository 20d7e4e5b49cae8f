"""The oldest torch files (before 0.1.10): a tar archive of the storages, the tensors over them, and a pickle."""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Iterator
from typing import Any

from qualitygate.checkpoints.packing import arrays
from qualitygate.checkpoints.packing.arrays import Storage, aligned, storage_dtype
from qualitygate.checkpoints.packing.bounds import MAX_DIMENSIONS, Budget, over_limit
from qualitygate.checkpoints.packing.machine import Machine
from qualitygate.checkpoints.packing.records import Damaged, Global, Persistent
from qualitygate.checkpoints.packing.storages import exactly
from qualitygate.checkpoints.packing.torch_file import nested_reader
from qualitygate.checkpoints.packing.values import Values
from qualitygate.checkpoints.packing.window import Window

_MEMBERS = ("storages", "tensors", "pickle")
_MAX_MEMBERS = 16  # torch wrote four


def is_tar(source: memoryview) -> bool:
    """Whether the file has the mark of a tar archive."""
    return source[257:262] == b"ustar"


def read_tar(source: memoryview, budget: Budget) -> Any:
    """The value in such a file, its tensors on the CPU.

    Raises:
        Damaged: not torch's, cut off, or inconsistent.
    """
    members = dict(_members(source))
    if not members.keys() >= set(_MEMBERS):
        raise Damaged("a tar archive that torch did not write")
    storages = _storages(members["storages"], budget)
    tensors = _tensors(members["tensors"], storages, budget)

    def referred(record: Persistent) -> Any:
        key = int(record.key) if isinstance(record.key, str) else record.key
        return tensors[key] if key in tensors else storages[key]

    machine = Machine(members["pickle"], 0, budget)
    return Values(referred, nested_reader(budget), budget).value(machine.result)


def _members(source: memoryview) -> Iterator[tuple[str, memoryview]]:
    try:
        with tarfile.open(fileobj=io.BufferedReader(Window(source)), mode="r:") as archive:
            for _ in range(_MAX_MEMBERS):
                if (member := archive.next()) is None:
                    return
                if member.isreg() and not member.issparse():
                    yield member.name, exactly(source, member.offset_data, member.size)
    except tarfile.TarError as error:
        raise Damaged("a tar archive that breaks off") from error
    raise over_limit("members of a tar archive", _MAX_MEMBERS)


class _Stream:
    """Pickles and numbers, one after the other."""

    def __init__(self, source: memoryview, budget: Budget) -> None:
        self._source, self._budget, self._position = source, budget, 0

    def pickle(self) -> Any:
        machine = Machine(self._source, self._position, self._budget)
        self._position = machine.end
        return machine.result

    def numbers(self, layout: str) -> tuple[int, ...]:
        return struct.unpack(layout, self.bytes(struct.calcsize(layout)))

    def bytes(self, size: int) -> memoryview:
        part = exactly(self._source, self._position, size)
        self._position += size
        return part


def _storages(source: memoryview, budget: Budget) -> dict[Any, Storage]:
    """A number, so many storages (key, device and class; number of values; values), and windows into them."""
    stream, storages = _Stream(source, budget), {}
    for _ in range(stream.pickle()):
        key, _, kind = stream.pickle()
        dtype = storage_dtype(kind.name if isinstance(kind, Global) else "?")
        (count,) = stream.numbers("<q")
        storages[key] = Storage(aligned(stream.bytes(count * dtype.itemsize), dtype.itemsize, budget), dtype)
    for key, root, offset, count in stream.pickle():
        itemsize = storages[root].dtype.itemsize
        storages[key] = Storage(exactly(storages[root].data, offset * itemsize, count * itemsize), storages[root].dtype)
    return storages


def _tensors(source: memoryview, storages: dict[Any, Storage], budget: Budget) -> dict[Any, Any]:
    """A number, and so many tensors: key, storage and class; number of dimensions; sizes, strides, offset."""
    stream, tensors = _Stream(source, budget), {}
    for _ in range(stream.pickle()):
        key, storage, _ = stream.pickle()
        dimensions, _ = stream.numbers("<ii")
        if not 0 <= dimensions <= MAX_DIMENSIONS:
            raise Damaged(f"a tensor of {dimensions} dimensions")
        sizes, strides = stream.numbers(f"<{dimensions}q"), stream.numbers(f"<{dimensions}q")
        tensors[key] = arrays.view(storages[storage], stream.numbers("<q")[0], sizes, strides)
    return tensors
