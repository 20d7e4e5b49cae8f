"""From the records of a pickle to plain values: dictionaries, lists, tuples, scalars, tensors, groups of tensors.

The classes and functions that `known` lists get a meaning from our own code. An object of any other class becomes a
group of tensors if it is a module, else a dictionary of its items or attributes if it has some, else an inert `Opaque`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from qualitygate.checkpoints.packing import known, networks
from qualitygate.checkpoints.packing.bounds import Budget
from qualitygate.checkpoints.packing.measure import check_size
from qualitygate.checkpoints.packing.records import Call, Damaged, Global, Opaque, Persistent

_ITSELF = Opaque("a reference back to the object that holds it")


class Values:
    """Gives meaning to the records of one pickle.

    Args:
        storage: the storage that a reference stands for.
        nested: reads the storage in a torch file that stands as bytes inside the pickle.
        budget: what the file may still ask for.

    Attributes:
        eras: the ways of storing networks that were met, ``"persistence"`` and ``"tensorflow"``.
    """

    def __init__(self, storage: Callable[[Persistent], Any], nested: Callable[[memoryview], Any], budget: Budget) -> None:
        self._storage = storage
        self._tools = known.Tools(nested, budget)
        self._made: dict[int, Any] = {}
        self.eras: set[str] = set()

    def value(self, root: Any) -> Any:
        """The plain value of a record and of everything in it; long byte strings are views into the file.

        Raises:
            Damaged: something in it is not what its place in the file says.
            CheckpointError: it asks for more than the limits.
        """
        check_size(root)
        return self._value(root)

    def _value(self, node: Any) -> Any:
        """Made once for each record, so that what the file shares stays shared."""
        if not isinstance(node, (dict, list, tuple, Call, Global, Persistent)):
            return node
        if id(node) not in self._made:
            self._made[id(node)] = _ITSELF
            self._made[id(node)] = self._make(node)
        return self._made[id(node)]

    def _make(self, node: Any) -> Any:
        if isinstance(node, dict):
            return self._mapping(node)
        if isinstance(node, list):
            return [self._value(value) for value in node]
        if isinstance(node, tuple):
            return tuple(self._value(value) for value in node)
        if isinstance(node, Global):
            return Opaque(node.name)
        return self._storage(node) if isinstance(node, Persistent) else self._object(node)

    def _mapping(self, node: Mapping[Any, Any]) -> dict[Any, Any]:
        return {Opaque(key.name) if isinstance(key, (Global, Call)) else key: self._value(value) for key, value in node.items()}

    def _object(self, call: Call) -> Any:
        args, state = self._value(call.args), _attributes(self._value(call.state))
        if not isinstance(args, (tuple, list)):
            raise Damaged("arguments that are not a tuple")
        name = call.name
        if name in _RECONSTRUCTORS and args and isinstance(args[0], Opaque):
            name, args = args[0].name, ()
        if (make := known.maker(name)) is not None:
            return make(self._tools, args, state)
        if name.endswith(known.PERSISTENT):
            self.eras.add("persistence")
            class_name, state = known.persistent(args)
            return networks.module_group(class_name, state) if networks.is_module(state) else state
        if name.endswith(networks.TF_CLASSES) and isinstance(state, Mapping):
            self.eras.add("tensorflow")
            return networks.tf_group(state)
        if networks.is_module(state):
            return networks.module_group(name.rpartition(".")[2], state)
        return _contents(name, args, state, self._mapping(call.items), [self._value(element) for element in call.elements])


def _attributes(state: Any) -> Any:
    """An object's attributes; those it has in slots are stored apart."""
    if isinstance(state, tuple) and len(state) == 2 and all(part is None or isinstance(part, Mapping) for part in state):
        return {**(state[0] or {}), **(state[1] or {})}
    return state


def _contents(name: str, args: Any, state: Any, items: dict[Any, Any], elements: list[Any]) -> Any:
    """The data in an object of a class without a meaning of its own."""
    kind = name.rpartition(".")[2]
    if kind in _MAPPINGS or items:
        return {**next((_as_mapping(arg) for arg in args if isinstance(arg, (Mapping, list))), {}), **items}
    if kind in _SEQUENCES or elements:
        return [*next((arg for arg in args if isinstance(arg, (list, tuple))), ()), *elements]
    return dict(state) if isinstance(state, Mapping) else Opaque(name)


def _as_mapping(given: Mapping[Any, Any] | list[Any]) -> dict[Any, Any]:
    """The first argument of a dictionary's constructor: another one, or a list of pairs."""
    if isinstance(given, Mapping):
        return dict(given)
    return {pair[0]: pair[1] for pair in given if isinstance(pair, (list, tuple)) and len(pair) == 2 and isinstance(pair[0], str)}


_RECONSTRUCTORS = {f"{module}.{name}" for module in ("copyreg", "copy_reg") for name in ("_reconstructor", "__newobj__")}
_MAPPINGS = {"OrderedDict", "defaultdict", "Counter", "EasyDict", "dict"}
_SEQUENCES = {"list", "tuple", "set", "frozenset"}
