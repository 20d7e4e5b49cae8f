"""References to the storages of a torch file, and the bytes that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from qualitygate.checkpoints.packing.arrays import Storage, aligned, storage_dtype
from qualitygate.checkpoints.packing.bounds import Budget
from qualitygate.checkpoints.packing.records import Damaged, Global, Persistent


@dataclass(frozen=True, slots=True)
class Reference:
    """``("storage", class, key, device, numel)``; old files add a window (key, offset, numel) or None."""

    dtype: torch.dtype
    key: str
    numel: int
    offset: int


def parse(record: Persistent) -> Reference:
    """Check a reference and read it; a window becomes offset and number of values."""
    parts = record.key
    if not isinstance(parts, tuple) or len(parts) not in (5, 6) or parts[0] != "storage":
        raise Damaged("a reference to something that is not the storage of a tensor")
    _, kind, key, _, numel = parts[:5]
    offset = 0
    if len(parts) == 6 and parts[5] is not None:
        _, offset, numel = parts[5]
    if not isinstance(kind, Global) or not isinstance(key, str) or not _naturals(offset, numel):
        raise Damaged("a storage without type, name or size")
    return Reference(storage_dtype(kind.name), key, numel, offset)


class Storages:
    """The storages of one file, each brought to a suitable address at most once.

    Args:
        raw: the bytes of a storage by its key.
    """

    def __init__(self, raw: Callable[[str], memoryview], budget: Budget) -> None:
        self._raw, self._budget = raw, budget
        self._ready: dict[str, memoryview] = {}

    def __call__(self, record: Persistent) -> Storage:
        """The storage a reference stands for.

        Raises:
            Damaged: the file has fewer bytes of it than the reference says.
        """
        reference = parse(record)
        if reference.key not in self._ready:
            self._ready[reference.key] = aligned(self._raw(reference.key), reference.dtype.itemsize, self._budget)
        start = reference.offset * reference.dtype.itemsize
        size = reference.numel * reference.dtype.itemsize
        return Storage(exactly(self._ready[reference.key], start, size), reference.dtype)


def exactly(data: memoryview, start: int, size: int) -> memoryview:
    """That many bytes from there on, or `Damaged`."""
    part = data[start : start + size]
    if len(part) != size:
        raise Damaged(f"a storage of {size:,} bytes, of which {len(part):,} are there: probably cut off")
    return part


def _naturals(*numbers: object) -> bool:
    return all(isinstance(number, int) and 0 <= number < 2**62 for number in numbers)
