"""A CUDA device that is not there: torch's fake tensors know shape, device and dtype and hold no values, so that every mix of devices or
dtypes is an error, in seconds and without a GPU.

What a build of torch without CUDA cannot do itself with such tensors stands here. Leaving the device is one marked function,
`passes.on_host`: whatever else reads values is an error, and so is an index made elsewhere, as a GPU would have to be waited for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from qualitygate.generators import passes

CUDA = torch.device("cuda", 0)
_READS = ("item", "tolist", "numpy", "nonzero", "__bool__", "__int__", "__float__", "__index__", "__array__")
_READ_BY = {getattr(Tensor, name): name for name in _READS}
_NOT_WITHOUT_CUDA = (
    "PyTorch is not linked with support for cuda devices",
    "Found no NVIDIA driver on your system",
    "CUDA error: CUDA driver version is insufficient",
)
"""What torch says of functions that look for the device even so: a build without CUDA, and one with it."""


class _Device(TorchFunctionMode):
    """Everything that has to do with CUDA tensors is done with fake ones; on the CPU all is as ever."""

    def __init__(self, mode: FakeTensorMode) -> None:
        super().__init__()
        self._mode = mode

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        if not any(isinstance(one, FakeTensor) or _names_cuda(one) for one in leaves):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if func is torch.autograd.grad:
            return tuple(torch.empty_like(one) for one in args[1])
        if isinstance(args[0], Tensor) and args[0].device == CUDA:
            if func is Tensor.requires_grad_:
                return args[0]
            if func in _READ_BY:
                raise AssertionError(f"{_READ_BY[func]} of a tensor on the device: values leave it in `passes.on_host` alone")
            if func is Tensor.__setitem__:
                _on_one_device([*tree_leaves(args[1]), args[2]])
                return None
            if func in (Tensor.__getitem__, Tensor.split):  # torch 2.9 fails to split what is empty
                _on_one_device(tree_leaves(args[1:]))
                return _as_meta(func, args, kwargs)
        if func is Tensor.to:
            if isinstance(args[0], Tensor) and args[0].device == CUDA and any(str(one) == "cpu" for one in (*args[1:], *kwargs.values())):
                raise AssertionError("to the CPU: values leave the device in `passes.on_host` alone")
            if not isinstance(args[0], FakeTensor):
                args = (self._mode.from_tensor(args[0]), *args[1:])
        try:
            return func(*args, **kwargs)
        except RuntimeError as error:
            if not str(error).startswith(_NOT_WITHOUT_CUDA):
                raise
            _on_one_device(leaves)
            return _as_meta(func, args, kwargs)


def _names_cuda(one: Any) -> bool:
    return isinstance(one, str | torch.device) and str(one).startswith("cuda")


def _on_one_device(leaves: list[Any]) -> None:
    for one in leaves:
        if isinstance(one, Tensor | np.ndarray) and one.ndim and getattr(one, "device", "cpu") != CUDA:
            raise AssertionError(f"on the CPU, where it has to be on the device: {one.dtype} {tuple(one.shape)}")


def _as_meta(func: Any, args: Any, kwargs: Any) -> Any:
    def meta(one: Tensor) -> Tensor:
        return torch.empty_strided(one.shape, one.stride(), dtype=one.dtype, device="meta")

    with unset_fake_temporarily(), torch._C.DisableTorchFunction():
        made = func(*tree_map_only(Tensor, meta, args), **tree_map_only(Tensor, meta, kwargs))
    again = partial(torch.empty_strided, device=CUDA)
    return tree_map_only(Tensor, lambda one: again(one.shape, one.stride(), dtype=one.dtype), made)


@contextmanager
def fake_cuda(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within it CUDA tensors can be made, and have no values. What leaves the device is ones."""

    def left(tensor: Tensor) -> Tensor:
        with unset_fake_temporarily(), torch._C.DisableTorchFunction():
            return torch.ones(tensor.shape, dtype=tensor.dtype)

    def from_numpy(values: np.ndarray, made: Any = torch.from_numpy) -> Tensor:
        with unset_fake_temporarily():
            return made(values)

    stand_ins = {"on_host": left, "leaving": lambda tensor: partial(left, tensor), "free_memory": lambda device: 2**34}
    stand_ins["total_memory"] = lambda device: 2**35
    with patch.context() as here, FakeTensorMode(allow_non_fake_inputs=True) as mode, _Device(mode):
        here.setattr(torch, "from_numpy", from_numpy)
        here.setattr(torch.__future__, "_overwrite_module_params_on_conversion", True)  # a real one does not become a fake one
        originals = {name: getattr(passes, name) for name in stand_ins}
        for name, stand_in in stand_ins.items():
            for module in _holding(name, originals[name]):
                here.setattr(module, name, stand_in)
        yield
    for name, stand_in in stand_ins.items():  # what was imported meanwhile
        for module in _holding(name, stand_in):
            setattr(module, name, originals[name])


def _holding(name: str, value: object) -> list[ModuleType]:
    return [one for one in sys.modules.values() if getattr(one, "__dict__", {}).get(name) is value]


def on_cuda(module: nn.Module) -> None:
    """Put a module's tensors on the device. Within `fake_cuda`."""

    def there(one: Tensor) -> Tensor:
        return torch.empty_strided(one.shape, one.stride(), dtype=one.dtype, device=CUDA)

    for part in module.modules():
        for name, one in part._parameters.items():
            part._parameters[name] = None if one is None else nn.Parameter(there(one), requires_grad=False)
        for name, one in part._buffers.items():
            part._buffers[name] = None if one is None else there(one)
