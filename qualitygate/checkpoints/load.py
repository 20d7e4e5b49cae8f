"""Checkpoint to generator: found, read as data, recognised, assembled, moved to the device."""

from __future__ import annotations

import hashlib
import json
from collections import ChainMap
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch

from qualitygate.checkpoints import save as native
from qualitygate.checkpoints.contents import Contents, TensorGroup, tensor_groups
from qualitygate.checkpoints.layout import ANY_FAMILY, Built, DoesNotFit, Layout, assemble
from qualitygate.checkpoints.layouts import all_layouts
from qualitygate.checkpoints.reader import read
from qualitygate.checkpoints.sources import resolve
from qualitygate.checkpoints.sources.web import Progress, silent
from qualitygate.errors import CheckpointError, InputError
from qualitygate.generators.base import Discriminator, Generator, Origin
from qualitygate.storage import file_sha256


@dataclass(frozen=True)
class Checkpoint:
    """The networks of a checkpoint; the generator's ``origin`` names the file and its SHA-256.

    Attributes:
        generator: in evaluation mode.
        discriminator: the one stored beside it, if any.
        layout: how the tensors are named.
        group: where in the file the generator stood.
        ignored: what in the file was not used.
        format: how the file is packed.
    """

    generator: Generator
    discriminator: Discriminator | None
    layout: str
    group: str
    ignored: tuple[str, ...]
    format: str


def load_checkpoint(
    source: str | Path,
    device: torch.device | str = "cpu",
    *,
    sha256: str | None = None,
    family: str | None = None,
    settings: Mapping[str, Any] | None = None,
    tracking_uri: str | None = None,
    progress: Progress = silent,
) -> Checkpoint:
    """Read a checkpoint. Nothing in the file is run.

    Args:
        source: a path, ``https://…#sha256=…``, ``models:/…``, ``runs:/…`` or ``hf://…``: see `sources.resolve`.
        device: where the networks go.
        sha256: of the file, in hexadecimal; it must have it.
        family: of the generator; layouts of other families are not tried. Default: recognised.
        settings: what the tensors do not show, by the names that the source gives it, e.g. ``{"conv_clamp": 128}``; goes
            before what is stored in the file, and into name and hash of the generator's ``origin``.
        tracking_uri: the MLflow that has the checkpoint.
        progress: called while the file comes from the web.

    Raises:
        CheckpointError: no such file, unreadable, cut off, of no known layout, with weights that are not finite, or written to
            while it was read: its hash would be that of other weights.
        UnsafeCheckpointError: reading it would need code from the file.
        InputError: a source, family or setting that there is not.
        StorageError, TrackingError: the source cannot be reached.
    """
    path = resolve(source, sha256, tracking_uri=tracking_uri, progress=progress)
    written = _written(path)
    checkpoint = assemble_contents(read(path), path.name, family, settings)
    for network in (checkpoint.generator, checkpoint.discriminator):
        if network is not None:
            network.to(device)
    checkpoint.generator.origin = _origin(path, settings or {})
    if _written(path) != written:
        raise CheckpointError(
            f"{path.name} was written to while it was read",
            "another size or date than before",
            "a file that stays",
            "wait until it is complete, or read a copy",
        )
    return checkpoint


def _written(path: Path) -> list[tuple[int, int, int]]:
    """What shows that a file, or one in a folder, was replaced or written to; nothing where none can be looked at."""
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        found = [one.stat() for one in files if one.is_file()]
    except OSError:
        return []  # its reader tells why
    return [(one.st_ino, one.st_size, one.st_mtime_ns) for one in found]


def _origin(path: Path, settings: Mapping[str, Any]) -> Origin:
    """Name and hash of the file; with settings that were given, also theirs, as the file alone is another generator."""
    sha256 = file_sha256(path)
    if not settings:
        return Origin(path.name, sha256)
    written = json.dumps(settings, sort_keys=True)
    return Origin(f"{path.name} with {written}", hashlib.sha256(f"{sha256} {written}".encode()).hexdigest())


def load_generator(
    source: str | Path,
    device: torch.device | str = "cpu",
    *,
    sha256: str | None = None,
    family: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Generator:
    """The generator of a checkpoint; family and settings are recognised, or given. See `load_checkpoint`."""
    return load_checkpoint(source, device, sha256=sha256, family=family, settings=settings).generator


class _Fit(NamedTuple):
    group: TensorGroup
    layout: Layout
    built: Built[Any]


def _first_fit(groups: Sequence[TensorGroup], role: str, family: str | None, settings: Mapping[str, Any]) -> _Fit | None:
    """The first group that is of a layout, and the first layout that it is of, with the network built from it."""
    layouts = _layouts(role, family)
    for group in groups:
        for layout in layouts:
            if not layout.missing(group):
                with suppress(DoesNotFit):
                    return _Fit(group, layout, _build(layout, group, family, settings))
    return None


def _unknown(groups: Sequence[TensorGroup], name: str, family: str | None, settings: Mapping[str, Any]) -> CheckpointError:
    """Says which layout came closest, what does not fit it, and whether there is a discriminator instead."""
    layouts = [layout for layout in _layouts("generator", family) if layout.required]
    if ours := [group for group in groups if native.METADATA_KEY in group.settings]:
        group, layout = ours[0], native.GENERATOR
    else:  # the one that lacks the fewest names
        group, layout = min(product(groups, layouts), key=lambda pair: len(pair[1].missing(pair[0])) / len(pair[1].required))
    lacking = layout.missing(group)
    misfit = f"no tensor named like {lacking[0]}" if lacking else "it stands beside an averaged generator that does not fit"
    if not lacking:
        try:
            _build(layout, group, family, settings)
        except DoesNotFit as error:
            misfit = str(error)
    first, tensor = next(iter(group.tensors.items()))
    judge = _first_fit(groups, "discriminator", None, {})
    instead = "" if judge is None else f"; {judge.group.path or 'the top level'} is a discriminator ({judge.layout.name})"
    return CheckpointError(
        f"{name} is not a generator we know",
        f"{len(group.tensors)} tensors in {group.path or 'the top level'}, the first {first} {tuple(tensor.shape)}; "
        f"closest is {layout.name}, but {misfit}{instead}",
        f"one of {', '.join(sorted({layout.name for layout in layouts}))}",
        "pass the network as a Python object, or add its layout as a plug-in",
    )


def _layouts(role: str, family: str | None) -> list[Layout]:
    layouts = [layout for layout in all_layouts() if layout.role == role]
    known = {layout.family for layout in layouts} - {ANY_FAMILY}
    if role == "generator" and family not in (None, *known):
        raise InputError("There is no such family", repr(family), f"one of {', '.join(sorted(known))}")
    return [layout for layout in layouts if family is None or layout.family in (family, ANY_FAMILY)]


def _build(layout: Layout, group: TensorGroup, family: str | None, settings: Mapping[str, Any]) -> Built[Any]:
    """The network, if the group is of this layout and of the given family; `DoesNotFit` otherwise."""
    asked = {name: value for name, value in settings.items() if name in layout.asks}
    try:
        # laid over the stored ones, not copied: they may be many, and so may groups and layouts
        built = layout.build(replace(group, settings=ChainMap(asked, group.settings), given=asked))  # type: ignore[arg-type]
    except DoesNotFit:
        raise
    except Exception as error:  # shapes and settings of a file may break any assumption on the way
        raise DoesNotFit(f"its shapes and settings contradict themselves ({type(error).__name__}: {error})") from error
    if layout.role == "generator" and family not in (None, built.module.family):
        raise DoesNotFit(f"it was written for family {built.module.family!r}, not {family!r}")
    return built


def assemble_contents(contents: Contents, name: str, family: str | None = None, settings: Mapping[str, Any] | None = None) -> Checkpoint:
    """The generator (and discriminator) in what was read from a file called ``name``."""
    groups, tree = tensor_groups(contents), contents.tree
    settings = settings or {}
    if not groups:
        keys = f"a dictionary with {', '.join(map(str, list(tree)[:8])) or 'nothing in it'}" if isinstance(tree, dict) else ""
        raise CheckpointError(f"{name} holds no tensors", keys or f"a {type(tree).__name__}", "a generator's weights")
    # never fall back from a damaged averaged generator to the raw one beside it
    best = [group for group in groups if group.rank == groups[0].rank]
    found = _first_fit(best, "generator", family, settings)
    if found is None:
        raise _unknown(groups, name, family, settings)
    generator = assemble(found.built, f"{name} ({found.layout.name})")
    others = [other for other in groups if other is not found.group]
    judge = _first_fit(others, "discriminator", generator.judged_by or generator.family, settings)
    asked = sorted({*found.layout.asks, *(judge.layout.asks if judge else ())})
    if unread := sorted(settings.keys() - set(asked)):
        raise InputError(
            f"{found.layout.name} has no such setting",
            ", ".join(unread),
            f"one of {', '.join(asked)}" if asked else "none: all of its settings are seen in the file",
        )
    discriminator = None if judge is None else assemble(judge.built, f"{name} ({judge.layout.name})")
    unused = [other.path or "top level" for other in others if judge is None or other is not judge.group]
    ignored = (*found.built.ignored, *(judge.built.ignored if judge else ()), *unused)
    return Checkpoint(generator, discriminator, found.layout.name, found.group.path or "top level", ignored, contents.format)
