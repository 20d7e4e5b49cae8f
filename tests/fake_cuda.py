"""A CUDA device that is not there: torch's fake tensors know shape, device and dtype and hold no values, so that every mix of devices or dtypes
is an error, in seconds and without a GPU.

Two things a build of torch without CUDA cannot do itself with such tensors stand here: indexing, in which an index made elsewhere is an error
(on a GPU it would be copied there each time, and waited for), and leaving the device, which is one marked function: anything else
that reads values is an error too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from qualitygate.generators import passes

CUDA = torch.device("cuda", 0)
_READS = {
    getattr(Tensor, name): name
    for name in ("item", "tolist", "numpy", "__bool__", "__int__", "__float__", "__index__", "__array__", "nonzero")
}


class _Device(TorchFunctionMode):
    """Indexing of CUDA tensors, and an error where values are read."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        first = args[0] if args else None
        if isinstance(first, Tensor) and first.device.type == "cuda":
            if func in _READS:
                raise AssertionError(f"{_READS[func]} of a tensor on the device: values leave it in `passes.on_host` alone")
            if func is Tensor.contiguous:
                return torch.empty_like(first, memory_format=(kwargs or {}).get("memory_format", torch.contiguous_format))
            if func is Tensor.__getitem__:
                return _indexed(first, args[1])
            if func is Tensor.__setitem__:
                there = _indexed(first, args[1])
                if isinstance(args[2], Tensor) and args[2].ndim:
                    there.copy_(args[2]) if args[2].device == there.device else _mixed(args[2])
                return None
        return func(*args, **(kwargs or {}))


def _mixed(tensor: Tensor) -> None:
    raise AssertionError(f"a tensor on {tensor.device} is put into one on the device")


def _indexed(tensor: Tensor, index: Any) -> Tensor:
    for one in tree_leaves(index):
        if isinstance(one, Tensor | np.ndarray) and getattr(one, "device", None) != tensor.device:
            raise AssertionError(f"an index made on {getattr(one, 'device', 'the CPU')} for a tensor on {tensor.device}")
    host = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
    found = host[tree_map_only(Tensor, lambda one: torch.zeros(one.shape, dtype=one.dtype), index)]
    return torch.empty_strided(found.shape, found.stride(), dtype=found.dtype, device=tensor.device)


@contextmanager
def fake_cuda(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within it tensors have no values, and CUDA tensors can be made. What leaves the device is zeros."""
    with patch.context() as here, FakeTensorMode(allow_non_fake_inputs=True), _Device():
        here.setattr(passes, "on_host", lambda tensor: np.zeros(tuple(tensor.shape), np.dtype(str(tensor.dtype).removeprefix("torch."))))
        yield


def on_cuda(module: nn.Module) -> None:
    """Put a module's tensors on the device. Within `fake_cuda`."""
    for part in module.modules():
        for name, one in part._parameters.items():
            if one is not None:
                part._parameters[name] = nn.Parameter(
                    torch.empty_strided(one.shape, one.stride(), dtype=one.dtype, device=CUDA), requires_grad=False
                )
        for name, one in part._buffers.items():
            if one is not None:
                part._buffers[name] = torch.empty_strided(one.shape, one.stride(), dtype=one.dtype, device=CUDA)
