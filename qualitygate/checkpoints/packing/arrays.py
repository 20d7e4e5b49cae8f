"""Tensors over the bytes of a file, every size checked first. Only bytes at an odd address are copied."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qualitygate.checkpoints.packing.bounds import MAX_DIMENSIONS, MAX_REPEATED, Budget, over_limit
from qualitygate.checkpoints.packing.records import Damaged

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
_NUMPY = {
    "f2": torch.float16,
    "f4": torch.float32,
    "f8": torch.float64,
    "c8": torch.complex64,
    "c16": torch.complex128,
    "i1": torch.int8,
    "i2": torch.int16,
    "i4": torch.int32,
    "i8": torch.int64,
    "u1": torch.uint8,
    "u2": torch.uint16,
    "u4": torch.uint32,
    "u8": torch.uint64,
    "b1": torch.bool,
}
_TORCH = {f"torch.{name}": value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
_OTHER_ORDER = ">" if sys.byteorder == "little" else "<"


def storage_dtype(name: str) -> torch.dtype:
    """The dtype of a storage class such as ``"torch.cuda.FloatStorage"``; which device it was on is of no interest."""
    kind = name.rpartition(".")[2]
    if not name.startswith("torch.") or kind not in _STORAGES:
        raise Damaged(f"a storage of unknown type {name[:80]!a}")
    return _STORAGES[kind]


def torch_dtype(name: str) -> torch.dtype:
    """The dtype of a name such as ``"torch.float32"``."""
    if name not in _TORCH:
        raise Damaged(f"an unknown dtype {name[:80]!a}")
    return _TORCH[name]


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """The bytes under one or more tensors, at an address that suits the dtype (see `aligned`)."""

    data: memoryview
    dtype: torch.dtype

    def flat(self, dtype: torch.dtype) -> Tensor:
        """All of it as a tensor (N,)."""
        if len(self.data) % dtype.itemsize:
            raise Damaged(f"a storage of {len(self.data):,} bytes for values of {dtype.itemsize} bytes")
        return torch.frombuffer(self.data, dtype=dtype) if len(self.data) else torch.empty(0, dtype=dtype)


def aligned(data: memoryview, itemsize: int, budget: Budget) -> memoryview:
    """The same bytes at an address that is a multiple of ``itemsize``: themselves, if they stand at one."""
    if not len(data) or np.frombuffer(data, np.uint8).ctypes.data % itemsize == 0:
        return data
    budget.take_copy(len(data))
    return memoryview(bytearray(data))


def view(storage: Any, offset: Any, size: Any, stride: Any, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor over a storage.

    Raises:
        Damaged: if it would reach outside the storage.
    """
    if not isinstance(storage, Storage):
        raise Damaged("a tensor without a storage")
    sizes, strides, (start,) = _naturals(size), _naturals(stride), _naturals((offset,))
    flat = storage.flat(dtype or storage.dtype)
    if len(sizes) != len(strides):
        raise Damaged(f"a tensor of shape {sizes} with strides {strides}")
    if 0 in sizes:
        return flat.new_empty(sizes)
    last = start + sum((length - 1) * step for length, step in zip(sizes, strides, strict=True))
    if last >= flat.numel():
        raise Damaged(f"a tensor of shape {sizes} that ends at value {last:,} of a storage of {flat.numel():,}")
    if math.prod(sizes) > max(flat.numel(), MAX_REPEATED):
        raise over_limit("repeated values in one tensor", MAX_REPEATED)
    return flat.as_strided(sizes, strides, start)


def _naturals(values: Any) -> tuple[int, ...]:
    if not isinstance(values, (tuple, list)) or len(values) > MAX_DIMENSIONS:
        raise Damaged("a shape that is not a short tuple")
    if not all(isinstance(value, int) and 0 <= value < 2**62 for value in values):
        raise Damaged("a shape with something else than sizes in it")
    return tuple(values)


@dataclass(frozen=True, slots=True)
class NumpyType:
    """A numpy dtype, by its code (``"f4"``) and byte order (``"<"``, ``">"``, ``"|"`` or ``"="``)."""

    code: str
    order: str

    @property
    def dtype(self) -> torch.dtype | None:
        """The same as a torch dtype; None for texts, dates and records."""
        return _NUMPY.get(self.code)


def numpy_tensor(kind: NumpyType, shape: Any, data: memoryview, fortran: bool, budget: Budget) -> Tensor:
    """A numpy array as a tensor in the byte order of this machine.

    Raises:
        Damaged: the bytes do not fill the shape, or hold Python objects.
    """
    dtype, sizes = kind.dtype, _naturals(shape)
    if dtype is None:
        raise Damaged(f"an array of numpy type {kind.code[:20]!a}, which holds no plain numbers")
    if math.prod(sizes) * dtype.itemsize != len(data):
        raise Damaged(f"{len(data):,} bytes for an array of shape {sizes} and numpy type {kind.code}")
    if kind.order == _OTHER_ORDER:
        budget.take_copy(2 * len(data))
        data = memoryview(bytearray(np.frombuffer(data, f"{kind.order}{kind.code}").astype(kind.code).tobytes()))
    flat = Storage(aligned(data, dtype.itemsize, budget), dtype).flat(dtype)
    return flat.reshape(sizes[::-1]).permute(*range(len(sizes) - 1, -1, -1)) if fortran else flat.reshape(sizes)
