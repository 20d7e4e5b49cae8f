"""Checkpoint file to generator: read as data, recognised, assembled, moved to the device."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from qualitygate.checkpoints.contents import Contents, TensorGroup, tensor_groups
from qualitygate.checkpoints.layout import DoesNotFit, Layout, assemble
from qualitygate.checkpoints.layouts import all_layouts
from qualitygate.checkpoints.packing import read
from qualitygate.errors import CheckpointError
from qualitygate.generators.base import Discriminator, Generator, Origin


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file, loaded.

    Attributes:
        generator: in evaluation mode, on the device; its ``origin`` names the file and its SHA-256.
        discriminator: the one stored beside it, if any.
        format: how the file is packed.
        layout: how the tensors are named.
        group: where in the file the generator stood.
        ignored: what in the file was not used.
    """

    generator: Generator
    discriminator: Discriminator | None
    format: str
    layout: str
    group: str
    ignored: tuple[str, ...]


def load_checkpoint(path: str | Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint. Nothing in the file is run.

    Raises:
        CheckpointError: no such file, unreadable, cut off, of no known layout, or with weights that are not finite.
        UnsafeCheckpointError: reading it would need code from the file.
    """
    path = Path(path)
    contents = read(path)
    loaded = assemble_contents(contents, path.name)
    generator, discriminator = loaded.generator, loaded.discriminator
    generator.to(device)
    if discriminator is not None:
        discriminator.to(device)
    generator.origin = Origin(path.name, file_sha256(path))
    return Checkpoint(generator, discriminator, contents.format, loaded.layout, loaded.group, loaded.ignored)


def load_generator(path: str | Path, device: torch.device | str = "cpu") -> Generator:
    """The generator of a checkpoint file; family and settings are recognised. See `load_checkpoint`."""
    return load_checkpoint(path, device).generator


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; of a folder, that of its files' names and hashes."""
    path = Path(path)
    if path.is_dir():
        files = sorted(one for one in path.iterdir() if one.is_file() and not one.name.startswith("."))
        return hashlib.sha256("".join(f"{one.name} {file_sha256(one)}\n" for one in files).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Loaded:
    """Networks found in a file's contents, on the CPU."""

    generator: Generator
    discriminator: Discriminator | None
    layout: str
    group: str
    ignored: tuple[str, ...]


def assemble_contents(contents: Contents, name: str) -> Loaded:
    """The generator (and discriminator) in what was read from a file called ``name``."""
    groups = tensor_groups(contents)
    if not groups:
        raise CheckpointError(f"{name} holds no tensors", _outline(contents.tree), "a generator's weights")
    found = _first_fit(groups, "generator")
    if found is None:
        raise _unknown(groups, name)
    group, layout, built = found
    generator = assemble(built, f"{name} ({layout.name})")
    others = [other for other in groups if other is not group]
    judge = _first_fit(others, "discriminator", generator.judged_by or generator.family)
    discriminator = None if judge is None else assemble(judge[2], f"{name} ({judge[1].name})")
    unused = [other.path or "top level" for other in others if judge is None or other is not judge[0]]
    ignored = (*built.ignored, *(judge[2].ignored if judge else ()), *unused)
    return Loaded(generator, discriminator, layout.name, group.path or "top level", ignored)


def _first_fit(
    groups: list[TensorGroup], role: str, family: str | None = None
) -> tuple[TensorGroup, Layout, Any] | None:
    for group in groups:
        if role == "generator" and group.rank > groups[0].rank:
            return None  # never fall back from a damaged averaged generator to the raw one beside it
        for layout in all_layouts():
            if layout.role == role and family in (None, layout.family) and not layout.missing(group):
                try:
                    return group, layout, layout.build(group)
                except DoesNotFit:
                    continue
    return None


def _unknown(groups: list[TensorGroup], name: str) -> CheckpointError:
    """Says which layout came closest, and the first thing that does not fit it."""
    candidates = [(len(layout.missing(group)) / max(len(layout.required), 1), group, layout)
                  for group in groups for layout in all_layouts() if layout.role == "generator" and layout.required]  # fmt: skip
    _, group, layout = min(candidates, key=lambda candidate: candidate[0])
    if lacking := layout.missing(group):
        reason = f"no tensor named like {lacking[0]}"
    else:
        try:
            layout.build(group)
            reason = "it fits"
        except DoesNotFit as misfit:
            reason = str(misfit)
    first, tensor = next(iter(group.tensors.items()))
    return CheckpointError(
        f"{name} is not a generator we know",
        f"{len(group.tensors)} tensors in {group.path or 'the top level'}, the first {first} {tuple(tensor.shape)}; "
        f"closest is {layout.name}, but {reason}",
        f"one of {', '.join(sorted({layout.name for layout in all_layouts() if layout.role == 'generator'}))}",
        "pass the network as a Python object, or add its layout as a plug-in",
    )


def _outline(tree: Any) -> str:
    if isinstance(tree, dict):
        return f"a dictionary with {', '.join(map(str, list(tree)[:8])) or 'nothing in it'}"
    return f"a {type(tree).__name__}"
