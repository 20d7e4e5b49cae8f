"""Which layout a group of tensors is of; and where none fits, which came closest and why it does not."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from qualitygate.checkpoints.contents import TensorGroup
from qualitygate.checkpoints.layout import ANY_FAMILY, Built, DoesNotFit, Layout
from qualitygate.checkpoints.layouts import all_layouts, native
from qualitygate.errors import CheckpointError, InputError


@dataclass(frozen=True)
class Given:
    """What the user says of a checkpoint: the family (None: any), and settings that its tensors do not show."""

    family: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


NOTHING = Given()


@dataclass(frozen=True)
class Fit:
    """A group of tensors, the layout it is of, and the network built from it."""

    group: TensorGroup
    layout: Layout
    built: Built[Any]


def first_fit(groups: Sequence[TensorGroup], role: str, given: Given) -> Fit | None:
    """The first group that is of a layout, and the first layout that it is of.

    Raises:
        InputError: no layout is of the given family.
    """
    layouts = list(_layouts(role, given))
    for group in groups:
        for layout in layouts:
            if not layout.missing(group):
                try:
                    return Fit(group, layout, _build(layout, group, given))
                except DoesNotFit:
                    continue
    return None


def unknown(groups: Sequence[TensorGroup], name: str, given: Given) -> CheckpointError:
    """Says which layout came closest, what does not fit it, and whether there is a discriminator instead."""
    layouts = [layout for layout in _layouts("generator", given) if layout.required]
    group, layout = _closest(groups, layouts)
    first, tensor = next(iter(group.tensors.items()))
    judge = first_fit(groups, "discriminator", NOTHING)
    instead = "" if judge is None else f"; {judge.group.path or 'the top level'} is a discriminator ({judge.layout.name})"
    return CheckpointError(
        f"{name} is not a generator we know",
        f"{len(group.tensors)} tensors in {group.path or 'the top level'}, the first {first} {tuple(tensor.shape)}; "
        f"closest is {layout.name}, but {_misfit(layout, group, given)}{instead}",
        f"one of {', '.join(sorted({layout.name for layout in layouts}))}",
        "pass the network as a Python object, or add its layout as a plug-in",
    )


def _closest(groups: Sequence[TensorGroup], layouts: Sequence[Layout]) -> tuple[TensorGroup, Layout]:
    """The group and the layout that lacks the fewest names in it; ours, where a file says that it is of our own."""
    for group in groups:
        if native.METADATA_KEY in group.settings:
            return group, native.GENERATOR
    pairs = ((group, layout) for group in groups for layout in layouts)
    return min(pairs, key=lambda pair: len(pair[1].missing(pair[0])) / len(pair[1].required))


def _layouts(role: str, given: Given) -> Iterator[Layout]:
    layouts = [layout for layout in all_layouts() if layout.role == role]
    known = {layout.family for layout in layouts}
    if role == "generator" and given.family not in (None, *known - {ANY_FAMILY}):
        raise InputError("There is no such family", repr(given.family), f"one of {', '.join(sorted(known - {ANY_FAMILY}))}")
    return (layout for layout in layouts if given.family is None or layout.family in (given.family, ANY_FAMILY))


def _build(layout: Layout, group: TensorGroup, given: Given) -> Built[Any]:
    """The network, if the group is of this layout and of the given family; `DoesNotFit` otherwise."""
    asked = {name: value for name, value in given.settings.items() if name in layout.asks}
    try:
        # laid over the stored ones, not copied: they may be many, and so may groups and layouts
        built = layout.build(replace(group, settings=ChainMap(asked, group.settings), given=asked))  # type: ignore[arg-type]
    except DoesNotFit:
        raise
    except Exception as error:  # shapes and settings of a file may break any assumption on the way
        raise DoesNotFit(f"its shapes and settings contradict themselves ({type(error).__name__}: {error})") from error
    if layout.role == "generator" and given.family not in (None, built.module.family):
        raise DoesNotFit(f"it was written for family {built.module.family!r}, not {given.family!r}")
    return built


def _misfit(layout: Layout, group: TensorGroup, given: Given) -> str:
    if lacking := layout.missing(group):
        return f"no tensor named like {lacking[0]}"
    try:
        _build(layout, group, given)
    except DoesNotFit as misfit:
        return str(misfit)
    return "it stands beside an averaged generator that does not fit"
