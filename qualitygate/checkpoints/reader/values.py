"""From the records of a pickle to plain values: dictionaries, lists, tuples, scalars, tensors, groups of tensors.

The classes and functions in `_MAKERS` get a meaning from our own code; none is ever imported. An object of any other class becomes a
group of tensors if it is a stored network, else a dictionary of its items or attributes if it has some, else an inert `Opaque`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qualitygate.checkpoints.bounds import COPIES, MAX_DEPTH, MAX_NAME, MAX_NESTED_FILES, MAX_VALUES, Budget, Damaged, over_limit
from qualitygate.checkpoints.contents import TensorGroup
from qualitygate.checkpoints.reader.tensors import NUMPY, NumpyType, Storage, Storages, exactly, numpy_tensor, parse, torch_dtype, view
from qualitygate.checkpoints.reader.unpickler import VIEW_FROM, Call, Global, InertUnpickler, Persistent

LEGACY_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_SHORT = 40  # characters of a device or a numpy type
_NAME_COST = 100  # bytes that a flat name costs beside its characters


@dataclass(frozen=True, slots=True)
class Opaque:
    """In the finished tree: a class, or an object of a class without a meaning to us. A name and nothing else."""

    name: str


_ITSELF = Opaque("a reference back to the object that holds it")


class Values:
    """Gives meaning to the records of one pickle; ``storage`` gives the one that a reference stands for.

    In ``eras`` are the ways of storing networks that were met, ``"persistence"`` and ``"tensorflow"``.
    """

    def __init__(self, storage: Callable[[Persistent], Any], budget: Budget) -> None:
        self._storage, self.budget = storage, budget
        self._made: dict[int, Any] = {}
        self.eras: set[str] = set()

    def value(self, root: Any) -> Any:
        """The plain value of a record and of everything in it; long byte strings are views into the file."""
        _measure(root, 0, {})
        return self._value(root)

    def _value(self, node: Any) -> Any:
        """Made once for each record, so that what the file shares stays shared."""
        if (make := _BY_TYPE.get(type(node))) is None:
            return node
        if id(node) not in self._made:
            self._made[id(node)] = _ITSELF
            self._made[id(node)] = make(self, node)
        return self._made[id(node)]

    def _mapping(self, node: Mapping[Any, Any]) -> dict[Any, Any]:
        return {Opaque(key.name) if isinstance(key, (Global, Call)) else key: self._value(value) for key, value in node.items()}

    def _object(self, call: Call) -> Any:
        args, state = self._value(call.args), self._value(call.state)
        if isinstance(state, tuple) and len(state) == 2 and all(part is None or isinstance(part, Mapping) for part in state):
            state = {**(state[0] or {}), **(state[1] or {})}  # attributes in slots are stored apart
        if not isinstance(args, (tuple, list)):
            raise Damaged("arguments that are not a tuple")
        name = call.name
        if name in _RECONSTRUCTORS and args and isinstance(args[0], Opaque):
            name, args = args[0].name, ()
        if (make := _MAKERS.get(name)) is not None:
            return make(self, args, state)
        class_name = name.rpartition(".")[2]
        if name.endswith(_PERSISTENT):
            self.eras.add("persistence")
            # the source code that stands between the two in the file is left alone
            class_name, state = args[0]["class_name"], args[0].get("state")
            if not isinstance(class_name, str):
                raise Damaged("a persistent object without a class name")
            if not _is_module(state):
                return state
        if name.endswith(_TF_CLASSES) and isinstance(state, Mapping):
            self.eras.add("tensorflow")
            return self._tf_group(state)
        if _is_module(state):
            return self._module_group(class_name, state)
        return _contents(name, args, state, self._mapping(call.items or {}), [self._value(element) for element in call.elements or ()])

    def _module_group(self, class_name: str, state: Mapping[str, Any]) -> TensorGroup:
        """The state dict of a stored torch module and the modules in it; buffers that a state dict leaves out are left out.

        Settings are ``init_args`` (list) and ``init_kwargs`` (dict), where NVIDIA's persistence stored them.
        """
        buffers, passing = state.get("_buffers") or {}, state.get("_non_persistent_buffers_set") or ()
        if not isinstance(buffers, Mapping) or not isinstance(passing, (list, tuple)):
            raise Damaged("a module whose buffers have no names")
        left_out = {name for name in passing if isinstance(name, str)}
        own = {**state["_parameters"], **{name: buffer for name, buffer in buffers.items() if name not in left_out}}
        tensors = self._flat(own, {f"{part}.": module for part, module in state["_modules"].items()})
        stored = isinstance(state.get("_init_kwargs"), Mapping)
        settings = {"init_args": list(state.get("_init_args") or ()), "init_kwargs": dict(state["_init_kwargs"])} if stored else {}
        return TensorGroup("", tensors, settings, class_name)

    def _tf_group(self, state: Mapping[str, Any]) -> TensorGroup:
        """A TensorFlow-era network: its variables, and those of its components under theirs.

        Names are as the networks' own code has them: ``dlatent_avg``, ``mapping/Dense0/weight``, ``4x4/Const/const``.
        Settings are its ``static_kwargs``, the kind is the function that built it, e.g. ``"G_main"``.
        """
        variables, components = state.get("variables") or (), state.get("components") or {}
        if not isinstance(variables, (list, tuple)) or not isinstance(components, Mapping):
            raise Damaged("a TensorFlow-era network without variables")
        # single numbers such as ``lod`` were stored as scalars
        named = {name: torch.tensor(value) if isinstance(value, (int, float)) else value for name, value in filter(_is_pair, variables)}
        tensors = self._flat(named, {"" if part == _TF_UNPREFIXED else f"{part}/": network for part, network in components.items()})
        settings, builder = state.get("static_kwargs"), state.get("build_func_name")
        settings = dict(settings) if isinstance(settings, Mapping) else {}
        return TensorGroup("", tensors, settings, builder if isinstance(builder, str) else None)

    def _flat(self, own: Mapping[Any, Any], parts: Mapping[str, Any]) -> dict[str, Tensor]:
        """A network's own tensors and those of its parts, by prefix, under flat names, which are measured before they are made, as there
        may be many."""
        groups = [(prefix, part.tensors) for prefix, part in parts.items() if isinstance(part, TensorGroup)]
        tensors = {}
        for prefix, named in [("", own), *groups]:
            for name, tensor in named.items():
                if isinstance(tensor, Tensor):
                    if (size := len(prefix) + len(str(name))) > MAX_NAME:
                        raise over_limit("characters in the name of a tensor", MAX_NAME)
                    self.budget.take(COPIES, size + _NAME_COST)
                    tensors[f"{prefix}{name}"] = tensor
        return tensors

    def bytes(self, data: Any) -> memoryview:
        """Writable bytes; a view of the file where the file has them as they are."""
        if isinstance(data, memoryview):
            return data
        if not isinstance(data, (str, bytes, bytearray)):
            raise Damaged(f"a {type(data).__name__} where bytes were due")
        self.budget.take(COPIES, len(data))
        return memoryview(bytearray(data.encode("latin-1") if isinstance(data, str) else data))

    def array(self, kind: Any, shape: Any, data: Any, fortran: bool) -> Any:
        """A tensor; for arrays of texts and dates an inert record, for arrays of Python objects an error."""
        if not isinstance(kind, NumpyType):
            raise Damaged("a numpy array without a type")
        if kind.dtype is None and not kind.code.startswith("O"):
            return Opaque(f"numpy.ndarray of {kind.code[:20]}")
        return numpy_tensor(kind, shape, self.bytes(data) if kind.dtype else memoryview(b""), fortran, self.budget)


def _measure(node: Any, depth: int, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Number of values at and below a node as a walk would meet them, shared ones again and again, and levels below it; taken before
    anything is made of them."""
    if not isinstance(node, (dict, list, tuple, Call)):
        return 1, 0
    if id(node) not in known:
        if depth > MAX_DEPTH:
            raise over_limit("containers inside one another", MAX_DEPTH)
        known[id(node)] = 1, 0  # while it is being measured: an object that holds itself is cut there
        size = height = 0
        if isinstance(node, Call):
            parts: Any = [node.args, node.state, *(node.items or {}).values(), *(node.elements or ())]
        else:
            parts = node.values() if isinstance(node, dict) else node
        for part in parts:
            part_size, part_height = _measure(part, depth + 1, known)
            size, height = size + part_size, max(height, part_height)
        known[id(node)] = 1 + size, 1 + height
    size, height = known[id(node)]
    if size > MAX_VALUES:
        raise over_limit("values", MAX_VALUES)
    if height > MAX_DEPTH:
        raise over_limit("containers inside one another", MAX_DEPTH)
    return size, height


def _contents(name: str, args: Any, state: Any, items: dict[Any, Any], elements: list[Any]) -> Any:
    """The data in an object of a class without a meaning of its own."""
    kind = name.rpartition(".")[2]
    if kind in _MAPPINGS or items:
        # the first argument of a dictionary's constructor: another one, or a list of pairs
        given = next((arg for arg in args if isinstance(arg, (Mapping, list))), {})
        pairs = given if isinstance(given, Mapping) else dict(filter(_is_pair, given))
        return {**pairs, **items}
    if kind in _SEQUENCES or elements:
        return [*next((arg for arg in args if isinstance(arg, (list, tuple))), ()), *elements]
    return dict(state) if isinstance(state, Mapping) else Opaque(name)


def _is_pair(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[0], str)


def _is_module(state: Any) -> bool:
    return isinstance(state, Mapping) and all(isinstance(state.get(part), Mapping) for part in ("_parameters", "_modules"))


_RECONSTRUCTORS = {f"{module}.{name}" for module in ("copyreg", "copy_reg") for name in ("_reconstructor", "__newobj__")}
_MAPPINGS = {"OrderedDict", "defaultdict", "Counter", "EasyDict", "dict"}
_SEQUENCES = {"list", "tuple", "set", "frozenset"}
_PERSISTENT = "persistence._reconstruct_persistent_obj"  # how the function ends through which NVIDIA's networks are stored
_TF_CLASSES = ("tfutil.Network", "tflib.network.Network")  # how the class names of TensorFlow-era networks end
_TF_UNPREFIXED = "synthesis"  # the variables of this component go by their bare names


Maker = Callable[[Values, Sequence[Any], Any], Any]
"""Makes a value from arguments and state; fails, with `Damaged` where it can say why, if they are something else."""


def _tensor(values: Values, args: Sequence[Any], state: Any, dtype: torch.dtype | None = None) -> Tensor:
    storage, offset, size, stride = args[:4]
    return view(storage, offset, size, stride, values.budget, dtype)


def _tensor_of_subclass(values: Values, args: Sequence[Any], state: Any) -> Any:
    """The function that makes the plain tensor, the subclass, the arguments of the function."""
    inner = _name_of(args[0])
    if inner not in _TENSORS:
        raise Damaged(f"a tensor made by {inner[:80]!a}")
    return _TENSORS[inner](values, args[2], None)


def _name_of(value: Any) -> str:
    if not isinstance(value, Opaque):
        raise Damaged(f"a {type(value).__name__} where the name of a class or function was due")
    return value.name


def _nested_storage(values: Values, args: Sequence[Any], state: Any) -> Storage:
    """Of a torch file that stands as bytes inside the pickle, read within the same budget."""
    values.budget.nested += 1
    if values.budget.nested > MAX_NESTED_FILES:
        raise over_limit("torch files inside one another", MAX_NESTED_FILES)
    storage = legacy_value(values.bytes(args[0]), values.budget)
    values.budget.nested -= 1
    if not isinstance(storage, Storage):
        raise Damaged("a nested torch file that is not the storage of a tensor")
    return storage


def _device(values: Values, args: Sequence[Any], state: Any) -> str:
    return ":".join(str(part) for part in args if isinstance(part, int) or (isinstance(part, str) and len(part) < _SHORT))


def _encoded(values: Values, args: Sequence[Any], state: Any) -> memoryview | bytes:
    """How protocols 0 to 2 write bytes: as text in latin-1; empty ones without any."""
    data = values.bytes(args[0]) if args else b""
    return bytes(data) if len(data) < VIEW_FROM else data


def _number(values: Values, args: Sequence[Any], state: Any) -> Any:
    if len(args) != 1 or not isinstance(args[0], (int, float, str)):
        raise Damaged("a number without a value")
    return args[0]


def _numpy_type(values: Values, args: Sequence[Any], state: Any) -> NumpyType:
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else "="
    if not isinstance(args[0], str) or not isinstance(order, str) or len(args[0]) > _SHORT:
        raise Damaged("a numpy type without a name")
    code = args[0].lstrip("<>|=")
    return NumpyType(code, order, NUMPY.get(code))


def _numpy_array(values: Values, args: Sequence[Any], state: Any) -> Any:
    """All there is to know is in the state: version, shape, type, whether in Fortran's order, bytes."""
    if not isinstance(state, tuple) or len(state) != 5:
        raise Damaged("a numpy array without contents")
    _, shape, kind, fortran, data = state
    return values.array(kind, shape, data, bool(fortran))


def _numpy_scalar(values: Values, args: Sequence[Any], state: Any) -> Any:
    kind, data = args
    if not isinstance(kind, NumpyType) or kind.dtype is None:
        return values.array(kind, (), data, False)
    if not isinstance(data, bytes) or len(data) != kind.dtype.itemsize:
        raise Damaged("a numpy scalar that is not one value")
    return np.frombuffer(data, np.dtype(kind.code).newbyteorder(kind.order))[0].item()  # type: ignore[arg-type]


_TENSORS: dict[str, Maker] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": lambda values, args, state: _tensor(values, args, state, torch_dtype(_name_of(args[6]))),
    "torch._utils._rebuild_parameter": lambda values, args, state: args[0],
    "torch._utils._rebuild_parameter_with_state": lambda values, args, state: args[0],
}
_MAKERS: dict[str, Maker] = {
    **_TENSORS,
    "torch._tensor._rebuild_from_type": _tensor_of_subclass,
    "torch._tensor._rebuild_from_type_v2": _tensor_of_subclass,
    "torch.storage._load_from_bytes": _nested_storage,
    "torch.Size": lambda values, args, state: tuple(args[0]),
    "torch.device": _device,
    "numpy.dtype": _numpy_type,
    "_codecs.encode": _encoded,
    **{f"{module}.{name}": _encoded for module in ("builtins", "__builtin__") for name in ("bytes", "bytearray")},
    **{f"{module}.{name}": _number for module in ("builtins", "__builtin__") for name in ("int", "long", "float", "bool", "str")},
}
for _package in ("numpy.core", "numpy._core"):
    _MAKERS[f"{_package}.multiarray._reconstruct"] = _numpy_array
    _MAKERS[f"{_package}.multiarray.scalar"] = _numpy_scalar
    _MAKERS[f"{_package}.numeric._frombuffer"] = lambda values, args, state: values.array(args[1], args[2], args[0], args[3] == "F")

_BY_TYPE: dict[type, Callable[[Values, Any], Any]] = {
    dict: Values._mapping,
    list: lambda values, node: [values._value(value) for value in node],
    tuple: lambda values, node: tuple(values._value(value) for value in node),
    Global: lambda values, node: Opaque(node.name),
    Persistent: lambda values, node: values._storage(node),
    Call: Values._object,
}


def legacy_value(source: memoryview, budget: Budget) -> Any:
    """The value in torch's stream of before version 1.6: magic number, version, machine, value, list of storages, storages."""
    position, results, references = 0, [], []
    for _ in range(5):
        reader = InertUnpickler(source, position, budget)
        results.append(reader.load())
        references += reader.references
        position = reader.window.position
    magic, protocol, _, value, keys = results
    if (magic, protocol) != (LEGACY_MAGIC, _PROTOCOL) or not isinstance(keys, list):
        raise Damaged("a torch file of a version nobody knows")
    itemsizes = {key: dtype.itemsize for key, dtype, *_ in map(parse, references)}
    raw = {}
    for key in keys:
        (count,) = struct.unpack_from("<q", source, position)
        if key not in itemsizes or count < 0:
            raise Damaged("a storage that nothing in the file uses")
        raw[key] = exactly(source, position + 8, count * itemsizes[key])
        position += 8 + len(raw[key])
    return Values(Storages(raw.__getitem__, budget), budget).value(value)
