"""The classes and functions in pickles that mean data to us, each made by our own code; none is ever imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from qualitygate.checkpoints.packing import arrays
from qualitygate.checkpoints.packing.arrays import NumpyType, Storage
from qualitygate.checkpoints.packing.bounds import Budget
from qualitygate.checkpoints.packing.records import Damaged, Opaque

PERSISTENT = "persistence._reconstruct_persistent_obj"
"""How the name of the function ends through which NVIDIA's networks are stored."""


@dataclass(frozen=True)
class Tools:
    """What making a value can need beside its arguments."""

    nested: Callable[[memoryview], Any]
    budget: Budget


_SHORT = 40  # characters of a device or a numpy type
_VIEW_FROM = 4096  # byte strings from this size on are left as views

Maker = Callable[[Tools, Sequence[Any], Any], Any]
"""Makes a value from arguments and state; fails, with `Damaged` where it can say why, if they are something else."""


def maker(name: str) -> Maker | None:
    """What makes the value that calling ``name`` stands for; None if we give it no meaning."""
    return _MAKERS.get(name)


def persistent(args: Sequence[Any]) -> tuple[str, Any]:
    """Class name and attributes of an object of NVIDIA's; the source code between them in the file is left alone."""
    stored = args[0]
    if not isinstance(stored, Mapping) or not isinstance(stored.get("class_name"), str):
        raise Damaged("a persistent object without a class name")
    return stored["class_name"], stored.get("state")


def _tensor(tools: Tools, args: Sequence[Any], state: Any) -> Tensor:
    storage, offset, size, stride = args[:4]
    return arrays.view(storage, offset, size, stride)


def _tensor_of_dtype(tools: Tools, args: Sequence[Any], state: Any) -> Tensor:
    storage, offset, size, stride, _, _, dtype = args[:7]
    return arrays.view(storage, offset, size, stride, arrays.torch_dtype(_known_as(dtype)))


def _tensor_of_subclass(tools: Tools, args: Sequence[Any], state: Any) -> Any:
    """The function that makes the plain tensor, the subclass, the arguments of the function."""
    inner = _known_as(args[0])
    if inner not in _TENSORS:
        raise Damaged(f"a tensor made by {inner[:80]!a}")
    return _TENSORS[inner](tools, args[2], None)


def _first(tools: Tools, args: Sequence[Any], state: Any) -> Any:
    return args[0]


def _nested_storage(tools: Tools, args: Sequence[Any], state: Any) -> Storage:
    storage = tools.nested(_bytes(args[0], tools.budget))
    if not isinstance(storage, Storage):
        raise Damaged("a nested torch file that is not the storage of a tensor")
    return storage


def _size(tools: Tools, args: Sequence[Any], state: Any) -> tuple[Any, ...]:
    return tuple(args[0])


def _device(tools: Tools, args: Sequence[Any], state: Any) -> str:
    return ":".join(str(part) for part in args if isinstance(part, int) or (isinstance(part, str) and len(part) < _SHORT))


def _encoded(tools: Tools, args: Sequence[Any], state: Any) -> memoryview | bytes:
    """How protocols 0 to 2 write bytes: as text in latin-1; empty ones without any."""
    data = _bytes(args[0], tools.budget) if args else b""
    return bytes(data) if len(data) < _VIEW_FROM else data


def _number(tools: Tools, args: Sequence[Any], state: Any) -> Any:
    if len(args) != 1 or not isinstance(args[0], (int, float, str)):
        raise Damaged("a number without a value")
    return args[0]


def _numpy_type(tools: Tools, args: Sequence[Any], state: Any) -> NumpyType:
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else "="
    if not isinstance(args[0], str) or not isinstance(order, str) or len(args[0]) > _SHORT:
        raise Damaged("a numpy type without a name")
    return NumpyType(args[0].lstrip("<>|="), order)


def _numpy_array(tools: Tools, args: Sequence[Any], state: Any) -> Any:
    """All there is to know is in the state: version, shape, type, whether in Fortran's order, bytes."""
    if not isinstance(state, tuple) or len(state) != 5:
        raise Damaged("a numpy array without contents")
    _, shape, kind, fortran, data = state
    return _array(tools, kind, shape, data, bool(fortran))


def _numpy_buffer(tools: Tools, args: Sequence[Any], state: Any) -> Any:
    data, kind, shape, order = args
    return _array(tools, kind, shape, data, order == "F")


def _numpy_scalar(tools: Tools, args: Sequence[Any], state: Any) -> Any:
    value = _array(tools, args[0], (), args[1], False)
    return value.item() if isinstance(value, Tensor) else value


def _array(tools: Tools, kind: Any, shape: Any, data: Any, fortran: bool) -> Any:
    """A tensor; for arrays of texts and dates an inert record, for arrays of Python objects an error."""
    if not isinstance(kind, NumpyType):
        raise Damaged("a numpy array without a type")
    if kind.dtype is None and not kind.code.startswith("O"):
        return Opaque(f"numpy.ndarray of {kind.code[:20]}")
    held = _bytes(data, tools.budget) if kind.dtype else memoryview(b"")
    return arrays.numpy_tensor(kind, shape, held, fortran, tools.budget)


def _bytes(data: Any, budget: Budget) -> memoryview:
    """Writable bytes; a view of the file where the file has them as they are."""
    if isinstance(data, memoryview):
        return data
    if not isinstance(data, (str, bytes, bytearray)):
        raise Damaged(f"a {type(data).__name__} where bytes were due")
    budget.take_copy(len(data))
    return memoryview(bytearray(data.encode("latin-1") if isinstance(data, str) else data))


def _known_as(value: Any) -> str:
    if not isinstance(value, Opaque):
        raise Damaged(f"a {type(value).__name__} where the name of a class or function was due")
    return value.name


_TENSORS: dict[str, Maker] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
}
_MAKERS: dict[str, Maker] = {
    **_TENSORS,
    "torch._tensor._rebuild_from_type": _tensor_of_subclass,
    "torch._tensor._rebuild_from_type_v2": _tensor_of_subclass,
    "torch.storage._load_from_bytes": _nested_storage,
    "torch.Size": _size,
    "torch.device": _device,
    "numpy.dtype": _numpy_type,
    "_codecs.encode": _encoded,
    **{f"{module}.{name}": _encoded for module in ("builtins", "__builtin__") for name in ("bytes", "bytearray")},
    **{f"{module}.{name}": _number for module in ("builtins", "__builtin__") for name in ("int", "long", "float", "bool", "str")},
}
for _package in ("numpy.core", "numpy._core"):
    _MAKERS[f"{_package}.multiarray._reconstruct"] = _numpy_array
    _MAKERS[f"{_package}.multiarray.scalar"] = _numpy_scalar
    _MAKERS[f"{_package}.numeric._frombuffer"] = _numpy_buffer
