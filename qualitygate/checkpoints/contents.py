"""What a checkpoint file holds, once it has been read as data: named tensors in groups, and nothing that could run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

_PREFERENCE = ("g_ema", "generator_smooth", "generator_ema", "netg_ema", "avgg", "gs", "ema", "generator", "netg", "gen", "g", "model")
"""Names under which files keep the generator, averaged copies first."""


@dataclass(frozen=True)
class TensorGroup:
    """One set of named tensors in a file: a state dict, or a stored network.

    Attributes:
        path: where it stands in the file, e.g. ``"g_ema"``; empty for the whole file.
        tensors: by their names, a leading ``module.`` removed.
        settings: stored constructor arguments and whatever else was stored beside the tensors, lone vectors (a mean
            latent) included; data only.
        kind: class name of a stored network, if the file names one.
        others: the other groups of the same file: what one network's tensors do not show, its neighbour's may.
        given: settings that the user gave; they stand in ``settings`` too, and go before any stored deeper in there.
    """

    path: str
    tensors: Mapping[str, Tensor]
    settings: Mapping[str, Any] = field(default_factory=dict)
    kind: str | None = None
    others: tuple[TensorGroup, ...] = ()
    given: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        """How likely its place in the file makes it the generator to use: lower is better."""
        parts = self.path.lower().replace("_state_dict", "").replace("[", ".").split(".")
        ranks = [_PREFERENCE.index(part) for part in parts if part in _PREFERENCE]
        return min(ranks, default=len(_PREFERENCE))


@dataclass(frozen=True)
class Contents:
    """A file that was read.

    Attributes:
        format: how it is packed, e.g. ``"safetensors"``.
        tree: nested dictionaries, lists, tuples, scalars, strings, tensors and `TensorGroup` objects; anything else in the file
            is an inert record.
        metadata: text metadata of the container.
    """

    format: str
    tree: Any
    metadata: Mapping[str, str] = field(default_factory=dict)


def tensor_groups(contents: Contents) -> list[TensorGroup]:
    """All groups of tensors in the file, averaged generators first, then generators, then the rest, in the order of the file."""
    groups = sorted(_walk("", contents.tree, {}), key=lambda group: group.rank)
    return [replace(group, others=tuple(other for other in groups if other is not group)) for group in groups]


def _walk(path: str, node: Any, beside: Mapping[str, Any]) -> Iterator[TensorGroup]:
    if isinstance(node, TensorGroup):
        yield node if node.path else TensorGroup(path, node.tensors, node.settings, node.kind)
    elif isinstance(node, Mapping):
        tensors = {str(name): value for name, value in node.items() if isinstance(value, Tensor)}
        if tensors:
            rest = {str(name): value for name, value in node.items() if not isinstance(value, Tensor)}
            yield TensorGroup(path, _without_prefix(tensors), {**beside, **_plain(rest)})
        vectors = {name: value for name, value in tensors.items() if value.ndim <= 1}
        siblings = {**beside, **_plain({str(name): value for name, value in node.items()}), **vectors}
        for name, value in node.items():
            if not isinstance(value, Tensor):
                yield from _walk(f"{path}.{name}" if path else str(name), value, siblings)
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _walk(f"{path}[{index}]", value, beside)


def _plain(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """What stands beside the tensors and is small: settings, config, a step. Never other groups of tensors."""
    kept = {}
    for name, value in mapping.items():
        if isinstance(value, (str, int, float, bool)) or (isinstance(value, Mapping) and not _has_tensors(value)):
            kept[name] = value
    return kept


def _has_tensors(node: Any) -> bool:
    if isinstance(node, Mapping):
        return any(_has_tensors(value) for value in node.values())
    if isinstance(node, (list, tuple)):
        return any(_has_tensors(value) for value in node)
    return isinstance(node, (Tensor, TensorGroup))


def _without_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    while tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return dict(tensors)
