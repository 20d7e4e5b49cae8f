"""From the records of a pickle to plain values: dictionaries, lists, tuples, scalars, tensors, groups of tensors.

Only the few kinds of object that hold data get a meaning here, given by our own code; any other becomes a dictionary of its attributes if it has some, and an
inert `Opaque` name if not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from qualitygate.checkpoints.contents import TensorGroup
from qualitygate.checkpoints.packing import arrays, networks
from qualitygate.checkpoints.packing.arrays import NumpyType, Storage
from qualitygate.checkpoints.packing.bounds import MAX_DEPTH, MAX_VALUES, Budget, over_limit
from qualitygate.checkpoints.packing.records import Call, Damaged, Global, Opaque, Persistent

_ITSELF = Opaque("a reference back to the object that holds it")


class Values:
    """Gives meaning to the records of one pickle.

    Args:
        storage: the storage a persistent reference stands for.
        nested: reads a torch file that stands inside the pickle.
        budget: what the file may still ask for.

    Attributes:
        eras: ``"persistence"`` and ``"tensorflow"`` once a network stored in that way was met.
    """

    def __init__(
        self, storage: Callable[[Persistent], Any], nested: Callable[[memoryview], Any], budget: Budget
    ) -> None:
        self.storage, self.nested, self.budget = storage, nested, budget
        self.eras: set[str] = set()
        self._known: dict[int, Any] = {}
        self._sizes: dict[int, int] = {}

    def value(self, node: Any) -> Any:
        """The plain value of a record, its contents included."""
        value = self._value(node, 0)
        return value

    def _value(self, node: Any, depth: int) -> Any:
        if not isinstance(node, (dict, list, tuple, Call, Global, Persistent)):
            return node
        if depth > MAX_DEPTH:
            raise over_limit("containers inside one another", MAX_DEPTH)
        if id(node) not in self._known:
            self._known[id(node)] = _ITSELF
            self._known[id(node)] = self._convert(node, depth + 1)
            self._sizes[id(node)] = self._size(node)
        return self._known[id(node)]

    def _size(self, node: Any) -> int:
        """Values a walk through this node meets."""
        if isinstance(node, Call):
            parts = (node.args, node.keywords, node.state, *node.items.values(), *node.elements)
        elif isinstance(node, dict):
            parts = tuple(node.values())
        else:
            parts = node if isinstance(node, (list, tuple)) else ()
        size = 1 + sum(self._sizes.get(id(part), 1) for part in parts)
        if size > MAX_VALUES:
            raise over_limit("values", MAX_VALUES)
        return size

    def _convert(self, node: Any, depth: int) -> Any:
        if isinstance(node, dict):
            return {self._key(key): self._value(value, depth) for key, value in node.items()}
        if isinstance(node, list):
            return [self._value(value, depth) for value in node]
        if isinstance(node, tuple):
            return tuple(self._value(value, depth) for value in node)
        if isinstance(node, Global):
            return Opaque(node.name)
        if isinstance(node, Persistent):
            return self.storage(node)
        return self._call(node, depth)

    def _key(self, key: Any) -> Any:
        return key if not isinstance(key, (Global, Call)) else Opaque(_name(key))

    def _call(self, call: Call, depth: int) -> Any:
        name = _name(call)
        args = self._value(call.args, depth)
        if not isinstance(args, (tuple, list)):
            raise Damaged(f"arguments of {name[:80]!a} that are not a tuple")
        state = _attributes(self._value(call.state, depth))
        if name in _MAKERS:
            return _MAKERS[name](self, list(args), state)
        if name in _SHELLS and args and isinstance(args[0], Opaque):
            name = args[0].name
        if name.endswith(networks.TF_CLASSES) and isinstance(state, Mapping):
            self.eras.add("tensorflow")
            return networks.tf_group(state)
        if networks.is_module(state):
            return networks.module_group(name.rpartition(".")[2], state)
        items = {self._key(key): self._value(value, depth) for key, value in call.items.items()}
        return _instance(name, args, state, items, [self._value(element, depth) for element in call.elements])


def _name(node: Any) -> str:
    """The global at the bottom of a call; ``"?"`` where something else stands in its place."""
    if isinstance(node, Call):
        node = node.function
    return node.name if isinstance(node, Global) else "?"


def _attributes(state: Any) -> Any:
    """An object's attributes; those in slots are stored apart and put with the others."""
    if (
        isinstance(state, tuple)
        and len(state) == 2
        and all(part is None or isinstance(part, Mapping) for part in state)
    ):
        return {**(state[0] or {}), **(state[1] or {})}
    return state


def _instance(name: str, args: Any, state: Any, items: dict[Any, Any], elements: list[Any]) -> Any:
    """An object of a class without a meaning of its own, as the data in it."""
    kind = name.rpartition(".")[2]
    if kind in _MAPPINGS or items:
        given = next((arg for arg in args if isinstance(arg, (Mapping, list))), {})
        pairs = (
            given
            if isinstance(given, Mapping)
            else dict(pair for pair in given if isinstance(pair, (list, tuple)) and len(pair) == 2)
        )
        return {**pairs, **items}
    if elements:
        return elements
    if name in _SEQUENCES:
        return list(args[0]) if args and isinstance(args[0], (list, tuple)) else []
    if isinstance(state, Mapping):
        return dict(state)
    return Opaque(name)


_SHELLS = {
    "copy_reg._reconstructor",
    "copyreg._reconstructor",
    "copyreg.__newobj__",
    "copy_reg.__newobj__",
    "copyreg.__newobj_ex__",
}
_MAPPINGS = {"OrderedDict", "defaultdict", "Counter", "EasyDict", "dict"}
_SEQUENCES = {
    f"{module}.{kind}" for module in ("builtins", "__builtin__") for kind in ("list", "tuple", "set", "frozenset")
}


def _tensor(values: Values, args: list[Any], state: Any) -> Tensor:
    return arrays.view(*args[:4])


def _tensor_of_dtype(values: Values, args: list[Any], state: Any) -> Tensor:
    dtype = arrays.torch_dtype(args[6].name) if isinstance(args[6], Opaque) else None
    if dtype is None:
        raise Damaged("a tensor without a dtype")
    return arrays.view(*args[:4], dtype)


def _first(values: Values, args: list[Any], state: Any) -> Any:
    return args[0]


def _subclassed(values: Values, args: list[Any], state: Any) -> Any:
    """A tensor of a subclass of Tensor: the function that makes the plain tensor, and its arguments."""
    function, _, inner = args[:3]
    maker = _MAKERS.get(function.name) if isinstance(function, Opaque) else None
    if maker is None:
        raise Damaged("a tensor made in an unknown way")
    return maker(values, list(inner), None)


def _nested(values: Values, args: list[Any], state: Any) -> Any:
    return values.nested(_bytes(args[0]))


def _size(values: Values, args: list[Any], state: Any) -> Any:
    return tuple(args[0]) if args else ()


def _text(values: Values, args: list[Any], state: Any) -> str:
    return ":".join(str(part) for part in args)


def _encoded(values: Values, args: list[Any], state: Any) -> bytes:
    """How protocols 0 to 2 write bytes: as the latin-1 text of them."""
    if not isinstance(args[0], str):
        raise Damaged("bytes that were not written as text")
    return args[0].encode("latin-1")


def _scalar_of(kind: type) -> Callable[[Values, list[Any], Any], Any]:
    def make(values: Values, args: list[Any], state: Any) -> Any:
        return args[0] if args and isinstance(args[0], (int, float, str)) else kind()

    return make


def _bytes(data: Any) -> memoryview:
    if isinstance(data, str):
        data = data.encode("latin-1")
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise Damaged(f"a {type(data).__name__} where bytes were due")
    return data if isinstance(data, memoryview) else memoryview(bytearray(data))


def _numpy_type(values: Values, args: list[Any], state: Any) -> Any:
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else "="
    if not isinstance(args[0], str) or not isinstance(order, str):
        raise Damaged("a numpy type without a name")
    return NumpyType(args[0].lstrip("<>|="), order)


def _numpy_array(values: Values, args: list[Any], state: Any) -> Any:
    """``_reconstruct(ndarray, (0,), b"b")``; all there is to know is in the state: version, shape, type, order, bytes."""
    if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], NumpyType):
        raise Damaged("a numpy array without contents")
    return _array(state[2], state[1], state[4], bool(state[3]))


def _numpy_buffer(values: Values, args: list[Any], state: Any) -> Any:
    data, kind, shape, order = args
    if not isinstance(kind, NumpyType):
        raise Damaged("a numpy array without a type")
    return _array(kind, shape, data, order == "F")


def _array(kind: NumpyType, shape: Any, data: Any, fortran: bool) -> Any:
    if kind.dtype is None and not kind.code.startswith("O"):
        return Opaque(f"numpy array of {kind.code[:20]}")
    return arrays.numpy_tensor(kind, shape, _bytes(data) if kind.dtype else memoryview(b""), fortran)


def _numpy_scalar(values: Values, args: list[Any], state: Any) -> Any:
    kind, data = args[:2]
    if not isinstance(kind, NumpyType):
        raise Damaged("a numpy scalar without a type")
    value = _array(kind, (), data, False)
    return value.item() if isinstance(value, Tensor) else value


def _persistent_object(values: Values, args: list[Any], state: Any) -> Any:
    """NVIDIA's persistence: one dictionary with the class name, the attributes, and source code that we leave alone."""
    meta = args[0]
    if not isinstance(meta, Mapping) or not isinstance(meta.get("class_name"), str):
        raise Damaged("a persistent object without a class name")
    values.eras.add("persistence")
    inner = meta.get("state")
    return networks.module_group(meta["class_name"], inner) if networks.is_module(inner) else inner


_MAKERS: dict[str, Callable[[Values, list[Any], Any], Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._tensor._rebuild_from_type": _subclassed,
    "torch._tensor._rebuild_from_type_v2": _subclassed,
    "torch.storage._load_from_bytes": _nested,
    "torch.Size": _size,
    "torch.device": _text,
    "_codecs.encode": _encoded,
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent_object,
    "numpy.dtype": _numpy_type,
    **{
        f"{module}.{kind.__name__}": _scalar_of(kind)
        for module in ("builtins", "__builtin__")
        for kind in (int, float, bool, str)
    },
    **{f"{root}.multiarray._reconstruct": _numpy_array for root in ("numpy.core", "numpy._core")},
    **{f"{root}.numeric._frombuffer": _numpy_buffer for root in ("numpy.core", "numpy._core")},
    **{f"{root}.multiarray.scalar": _numpy_scalar for root in ("numpy.core", "numpy._core")},
}

__all__ = ["Storage", "TensorGroup", "Values"]
