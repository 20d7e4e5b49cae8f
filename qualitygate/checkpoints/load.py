"""Checkpoint to generator: found, read as data, recognised, assembled, moved to the device."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from qualitygate.checkpoints.contents import Contents, tensor_groups
from qualitygate.checkpoints.layout import assemble
from qualitygate.checkpoints.reader import read
from qualitygate.checkpoints.recognise import NOTHING, Fit, Given, first_fit, unknown
from qualitygate.checkpoints.sources import resolve
from qualitygate.checkpoints.sources.progress import Progress, silent
from qualitygate.errors import CheckpointError, InputError
from qualitygate.generators.base import Discriminator, Generator, Origin
from qualitygate.storage import file_sha256


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, loaded.

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
    contents = read(path)
    loaded = assemble_contents(contents, path.name, Given(family, settings or {}))
    generator, discriminator = loaded.generator, loaded.discriminator
    generator.to(device)
    if discriminator is not None:
        discriminator.to(device)
    generator.origin = _origin(path, settings or {})
    if _written(path) != written:
        raise CheckpointError(
            f"{path.name} was written to while it was read",
            "another size or date than before",
            "a file that stays",
            "wait until it is complete, or read a copy",
        )
    return Checkpoint(generator, discriminator, contents.format, loaded.layout, loaded.group, loaded.ignored)


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


@dataclass(frozen=True)
class Loaded:
    """Networks found in a file's contents, on the CPU."""

    generator: Generator
    discriminator: Discriminator | None
    layout: str
    group: str
    ignored: tuple[str, ...]


def assemble_contents(contents: Contents, name: str, given: Given = NOTHING) -> Loaded:
    """The generator (and discriminator) in what was read from a file called ``name``."""
    groups = tensor_groups(contents)
    if not groups:
        raise CheckpointError(f"{name} holds no tensors", _outline(contents.tree), "a generator's weights")
    # never fall back from a damaged averaged generator to the raw one beside it
    best = [group for group in groups if group.rank == groups[0].rank]
    found = first_fit(best, "generator", given)
    if found is None:
        raise unknown(groups, name, given)
    generator = assemble(found.built, f"{name} ({found.layout.name})")
    others = [other for other in groups if other is not found.group]
    judge = first_fit(others, "discriminator", Given(generator.judged_by or generator.family, given.settings))
    _check_settings(given, [fit for fit in (found, judge) if fit is not None])
    discriminator = None if judge is None else assemble(judge.built, f"{name} ({judge.layout.name})")
    unused = [other.path or "top level" for other in others if judge is None or other is not judge.group]
    ignored = (*found.built.ignored, *(judge.built.ignored if judge else ()), *unused)
    return Loaded(generator, discriminator, found.layout.name, found.group.path or "top level", ignored)


def _check_settings(given: Given, fits: list[Fit]) -> None:
    """Refuse settings that nothing read."""
    asked = sorted({name for fit in fits for name in fit.layout.asks})
    if unread := sorted(given.settings.keys() - set(asked)):
        raise InputError(
            f"{fits[0].layout.name} has no such setting",
            ", ".join(unread),
            f"one of {', '.join(asked)}" if asked else "none: all of its settings are seen in the file",
        )


def _outline(tree: Any) -> str:
    if isinstance(tree, dict):
        return f"a dictionary with {', '.join(map(str, list(tree)[:8])) or 'nothing in it'}"
    return f"a {type(tree).__name__}"
