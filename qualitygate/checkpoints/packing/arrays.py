"""Tensors and scalars over the bytes of a file, with every size checked before a view is made. No bytes are copied unless they stand at an odd address."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qualitygate.checkpoints.packing.bounds import MAX_DIMENSIONS, MAX_REPEATED, over_limit
from qualitygate.checkpoints.packing.records import Damaged

_STORAGE_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}
_TORCH_DTYPES = {
    f"torch.{name}": dtype for name in dir(torch) if isinstance(dtype := getattr(torch, name), torch.dtype)
}
_NUMPY_DTYPES = {
    "f2": torch.float16, "f4": torch.float32, "f8": torch.float64, "i1": torch.int8, "i2": torch.int16, "i4": torch.int32, "i8": torch.int64,
    "u1": torch.uint8, "u2": torch.uint16, "u4": torch.uint32, "u8": torch.uint64, "b1": torch.bool, "c8": torch.complex64, "c16": torch.complex128,
}  # fmt: skip


def storage_dtype(name: str) -> torch.dtype:
    """The dtype of a storage class, e.g. of ``"torch.cuda.FloatStorage"``: the device is of no interest."""
    try:
        return _STORAGE_DTYPES[name.rpartition(".")[2]]
    except KeyError:
        raise Damaged(f"a storage of unknown type {name[:80]!a}") from None


def torch_dtype(name: str) -> torch.dtype | None:
    """The dtype called ``name``, e.g. ``"torch.float32"``; None if there is none."""
    return _TORCH_DTYPES.get(name)


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """The bytes under one or more tensors."""

    data: memoryview
    dtype: torch.dtype

    def flat(self, dtype: torch.dtype | None = None) -> Tensor:
        """All of it as a tensor (N,)."""
        dtype = dtype or self.dtype
        if len(self.data) % dtype.itemsize:
            raise Damaged(f"a storage of {len(self.data):,} bytes for values of {dtype.itemsize} bytes")
        if not len(self.data):
            return torch.empty(0, dtype=dtype)
        tensor = torch.frombuffer(self.data, dtype=dtype)
        return (
            tensor if tensor.data_ptr() % dtype.itemsize == 0 else torch.frombuffer(bytearray(self.data), dtype=dtype)
        )


def view(storage: Any, offset: Any, size: Any, stride: Any, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor over a storage.

    Raises:
        Damaged: if it would reach outside the storage.
    """
    if not isinstance(storage, Storage):
        raise Damaged("a tensor without a storage")
    shape, strides = _naturals(size), _naturals(stride)
    (start,) = _naturals((offset,))
    flat = storage.flat(dtype)
    if len(shape) != len(strides):
        raise Damaged(f"a tensor of shape {shape} with strides {strides}")
    if 0 in shape:
        return torch.empty(shape, dtype=flat.dtype)
    last = start + sum((length - 1) * step for length, step in zip(shape, strides, strict=True))
    if last >= flat.numel():
        raise Damaged(f"a tensor of shape {shape} that ends at value {last:,} of a storage of {flat.numel():,}")
    if math.prod(shape) > max(flat.numel(), MAX_REPEATED):
        raise over_limit("repeated values in one tensor", MAX_REPEATED)
    return flat.as_strided(shape, strides, start)


def _naturals(values: Any) -> tuple[int, ...]:
    if not isinstance(values, (tuple, list)) or len(values) > MAX_DIMENSIONS:
        raise Damaged("a shape that is not a short tuple")
    if not all(isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62 for value in values):
        raise Damaged(f"a shape with something else than sizes in it: {str(values)[:80]}")
    return tuple(values)


@dataclass(frozen=True, slots=True)
class NumpyType:
    """A numpy dtype, by its code (``"f4"``) and byte order (``"<"``, ``">"`` or ``"|"``)."""

    code: str
    order: str = "="

    @property
    def dtype(self) -> torch.dtype | None:
        return _NUMPY_DTYPES.get(self.code)


def numpy_tensor(kind: NumpyType, shape: Sequence[int], data: memoryview, fortran: bool) -> Tensor:
    """A numpy array's bytes as a tensor, in the byte order of this machine."""
    dtype = kind.dtype
    if dtype is None:
        raise Damaged(f"an array of numpy type {kind.code[:20]!a}, which holds no plain numbers")
    sizes = _naturals(shape)
    if math.prod(sizes) * dtype.itemsize != len(data):
        raise Damaged(f"{len(data):,} bytes for an array of shape {sizes} and numpy type {kind.code}")
    if kind.order == (">" if sys.byteorder == "little" else "<"):
        data = memoryview(bytearray(np.frombuffer(data, f"{kind.order}{kind.code}").astype(kind.code).tobytes()))
    flat = Storage(data, dtype).flat()
    return (
        flat.reshape(sizes[::-1]).permute(*range(len(sizes))[::-1])
        if fortran and len(sizes) > 1
        else flat.reshape(sizes)
    )
