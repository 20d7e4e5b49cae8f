"""Tensors over the bytes of a file, every size checked first. Only bytes at an odd address are copied."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qualitygate.checkpoints.bounds import COPIES, LAID_OUT, MAX_DIMENSIONS, TENSORS, Budget, Damaged
from qualitygate.checkpoints.reader.unpickler import Global, Persistent

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
_NUMPY_CODES = ("f2", "f4", "f8", "c8", "c16", "b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
NUMPY = {code: torch.from_numpy(np.empty(0, code)).dtype for code in _NUMPY_CODES}
_TORCH = {f"torch.{name}": value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
_OTHER_ORDER = ">" if sys.byteorder == "little" else "<"


def torch_dtype(name: str) -> torch.dtype:
    if name not in _TORCH:
        raise Damaged(f"an unknown dtype {name[:80]!a}")
    return _TORCH[name]


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """The bytes under one or more tensors, at an address that suits the dtype (see `_aligned`)."""

    data: memoryview
    dtype: torch.dtype


def view(storage: Any, offset: Any, size: Any, stride: Any, budget: Budget, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor over a storage; `Damaged` if it would reach outside."""
    if not isinstance(storage, Storage):
        raise Damaged("a tensor without a storage")
    sizes, strides, (start,) = _naturals(size), _naturals(stride), _naturals((offset,))
    flat = _flat(storage.data, dtype or storage.dtype)
    if len(sizes) != len(strides):
        raise Damaged(f"a tensor of shape {sizes} with strides {strides}")
    _take(sizes, flat.dtype, budget)
    if 0 in sizes:
        return flat.new_empty(sizes)
    last = start + sum((length - 1) * step for length, step in zip(sizes, strides, strict=True))
    if last >= flat.numel():
        raise Damaged(f"a tensor of shape {sizes} that ends at value {last:,} of a storage of {flat.numel():,}")
    return flat.as_strided(sizes, strides, start)


@dataclass(frozen=True, slots=True)
class NumpyType:
    """A numpy dtype, by its code (``"f4"``) and byte order (``"<"``, ``">"``, ``"|"`` or ``"="``)."""

    code: str
    order: str
    dtype: torch.dtype | None  # torch's; None for texts, dates and records


def numpy_tensor(kind: NumpyType, shape: Any, data: memoryview, fortran: bool, budget: Budget) -> Tensor:
    """A numpy array as a tensor in the byte order of this machine; `Damaged` if the bytes do not fill it, or hold Python objects."""
    dtype, sizes = kind.dtype, _naturals(shape)
    if dtype is None:
        raise Damaged(f"an array of numpy type {kind.code[:20]!a}, which holds no plain numbers")
    if math.prod(sizes) * dtype.itemsize != len(data):
        raise Damaged(f"{len(data):,} bytes for an array of shape {sizes} and numpy type {kind.code}")
    _take(sizes, dtype, budget)
    if kind.order == _OTHER_ORDER:
        budget.take(COPIES, 2 * len(data))
        data = memoryview(bytearray(np.frombuffer(data, f"{kind.order}{kind.code}").astype(kind.code).tobytes()))
    flat = _flat(_aligned(data, dtype.itemsize, budget), dtype)
    return flat.reshape(sizes[::-1]).permute(*range(len(sizes) - 1, -1, -1)) if fortran else flat.reshape(sizes)


class Storages:
    """The storages of one torch file, each brought to a suitable address at most once; ``raw`` gives the bytes of one by its key."""

    def __init__(self, raw: Callable[[str], memoryview], budget: Budget) -> None:
        self._raw, self._budget = raw, budget
        self._ready: dict[str, memoryview] = {}

    def __call__(self, record: Persistent) -> Storage:
        key, dtype, offset, count = parse(record)
        if key not in self._ready:
            self._ready[key] = _aligned(self._raw(key), dtype.itemsize, self._budget)
        return Storage(exactly(self._ready[key], offset * dtype.itemsize, count * dtype.itemsize), dtype)


def parse(record: Persistent) -> tuple[str, torch.dtype, int, int]:
    """Key, dtype, offset and number of values of ``("storage", class, key, device, numel)``, to which old files add a window (key,
    offset, numel) or None. Which device it was on is of no interest."""
    parts = record.key
    if not isinstance(parts, tuple) or len(parts) not in (5, 6) or parts[0] != "storage":
        raise Damaged("a reference to something that is not the storage of a tensor")
    _, kind, key, _, count = parts[:5]
    _, offset, count = parts[5] if len(parts) == 6 and parts[5] is not None else (key, 0, count)
    if not isinstance(kind, Global) or not isinstance(key, str):
        raise Damaged("a storage without type or name")
    offset, count = _naturals((offset, count))
    name = kind.name.rpartition(".")[2]
    if not kind.name.startswith("torch.") or name not in _STORAGES:
        raise Damaged(f"a storage of unknown type {kind.name[:80]!a}")
    return key, _STORAGES[name], offset, count


def exactly(data: memoryview, start: int, size: int) -> memoryview:
    """That many bytes from there on, or `Damaged`."""
    part = data[start : start + size]
    if len(part) != size:
        raise Damaged(f"a storage of {size:,} bytes, of which {len(part):,} are there: probably cut off")
    return part


def _aligned(data: memoryview, itemsize: int, budget: Budget) -> memoryview:
    """The same bytes at an address that is a multiple of ``itemsize``: themselves, if they stand at one."""
    if not len(data) or np.frombuffer(data, np.uint8).ctypes.data % itemsize == 0:
        return data
    budget.take(COPIES, len(data))
    return memoryview(bytearray(data))


def _flat(data: memoryview, dtype: torch.dtype) -> Tensor:
    if len(data) % dtype.itemsize:
        raise Damaged(f"a storage of {len(data):,} bytes for values of {dtype.itemsize} bytes")
    return torch.frombuffer(data, dtype=dtype) if len(data) else torch.empty(0, dtype=dtype)


def _take(sizes: tuple[int, ...], dtype: torch.dtype, budget: Budget) -> None:
    budget.take(TENSORS)
    budget.take(LAID_OUT, math.prod(sizes) * (max(dtype.itemsize, 4) if dtype.is_floating_point else dtype.itemsize))


def _naturals(values: Any) -> tuple[int, ...]:
    if not isinstance(values, (tuple, list)) or len(values) > MAX_DIMENSIONS:
        raise Damaged("a shape that is not a short tuple")
    if not all(isinstance(value, int) and 0 <= value < 2**62 for value in values):
        raise Damaged("a shape with something else than sizes in it")
    return tuple(values)
