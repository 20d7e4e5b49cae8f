"""What a checkpoint file holds, once it has been read as data: named tensors in groups, and nothing that could run."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from qualitygate.checkpoints.bounds import MAX_GROUPS, MAX_PATH, over_limit

_PREFERENCE = ("g_ema", "generator_smooth", "generator_ema", "netg_ema", "avgg", "gs", "ema", "generator", "netg", "gen", "g", "model")
"""Names under which files keep the generator, averaged copies first."""


@dataclass(frozen=True)
class TensorGroup:
    """One set of named tensors in a file: a state dict, or a stored network.

    Attributes:
        path: where it stands in the file, e.g. ``"g_ema"``; empty for the whole file.
        tensors: by their names, a leading ``module.`` removed.
        settings: stored constructor arguments and whatever else was stored beside the tensors, lone vectors (a mean latent) included.
        kind: class name of a stored network, if the file names one.
        others: the other groups of the same file: what one network's tensors do not show, its neighbour's may.
        given: settings that the user gave; they stand in ``settings`` too, and go before any stored deeper in there.
    """

    path: str
    tensors: Mapping[str, Tensor]
    settings: Mapping[str, Any] = field(default_factory=dict)
    kind: str | None = None
    others: Sequence[TensorGroup] = ()
    given: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        """How likely its place in the file makes it the generator to use: lower is better."""
        parts = self.path.lower().replace("_state_dict", "").replace("[", ".").split(".")
        ranks = [_PREFERENCE.index(part) for part in parts if part in _PREFERENCE]
        return min(ranks, default=len(_PREFERENCE))


@dataclass(frozen=True)
class Contents:
    """A file that was read: how it is packed, e.g. ``"safetensors"``, what it holds, and the text metadata of the container.

    The ``tree`` is of nested dictionaries, lists, tuples, scalars, strings, tensors and `TensorGroup` objects; anything else in the file is
    an inert record.
    """

    format: str
    tree: Any
    metadata: Mapping[str, str] = field(default_factory=dict)


def tensor_groups(contents: Contents) -> list[TensorGroup]:
    """All groups of tensors in the file, averaged generators first, then generators, then the rest, in the order of the file."""
    found: list[TensorGroup] = []
    for group in _groups("", contents.tree, ChainMap(), {}):
        if len(found) == MAX_GROUPS:
            raise over_limit("groups of tensors", MAX_GROUPS)
        if len(group.path) > MAX_PATH:
            raise over_limit("characters in the path of a group", MAX_PATH)
        found.append(group)
    groups = sorted(found, key=lambda group: group.rank)
    return [replace(group, others=_Others(groups, index)) for index, group in enumerate(groups)]


class _Others(Sequence[TensorGroup]):
    """All groups but one, without a list of them for each."""

    def __init__(self, groups: Sequence[TensorGroup], own: int) -> None:
        self._groups, self._own = groups, own

    def __len__(self) -> int:
        return len(self._groups) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        return self._groups[position + (position >= self._own)]


def _groups(path: str, node: Any, beside: ChainMap[str, Any], known: dict[int, bool]) -> Iterator[TensorGroup]:
    """Those in a tree, past every part of it that holds no tensors. Settings are laid over one another, not copied."""
    if isinstance(node, TensorGroup):
        if node.tensors:
            yield node if node.path else TensorGroup(path, node.tensors, node.settings, node.kind)
    elif isinstance(node, Mapping):
        tensors = {str(name): value for name, value in node.items() if isinstance(value, Tensor)}
        inner = {str(name): value for name, value in node.items() if not isinstance(value, Tensor) and _has_tensors(value, known)}
        if not tensors and not inner:
            return
        # what stands beside the tensors and is small: settings, config, a step
        plain = {
            str(name): value
            for name, value in node.items()
            if isinstance(value, (str, int, float, bool)) or (isinstance(value, Mapping) and not _has_tensors(value, known))
        }
        if tensors:
            named = tensors
            while all(name.startswith("module.") for name in named):
                named = {name.removeprefix("module."): tensor for name, tensor in named.items()}
            yield TensorGroup(path, named, beside.new_child(plain))
        siblings = beside.new_child({**plain, **{name: value for name, value in tensors.items() if value.ndim <= 1}})
        for name, value in inner.items():
            yield from _groups(f"{path}.{name}" if path else name, value, siblings, known)
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            if _has_tensors(value, known):
                yield from _groups(f"{path}[{index}]", value, beside, known)


def _has_tensors(node: Any, known: dict[int, bool]) -> bool:
    if isinstance(node, (Tensor, TensorGroup)):
        return True
    if not isinstance(node, (Mapping, list, tuple)):
        return False
    if id(node) not in known:
        known[id(node)] = False
        known[id(node)] = any(_has_tensors(value, known) for value in (node.values() if isinstance(node, Mapping) else node))
    return known[id(node)]
