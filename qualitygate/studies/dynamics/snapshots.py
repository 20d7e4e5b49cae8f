"""Which snapshots there are, and how far the training was at each."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from qualitygate.errors import InputError

Unit = Literal["kimg", "step"]

_SUFFIXES = (".safetensors", ".pt", ".pth", ".pkl", ".ckpt", ".bin", ".tar")
_HEADER_BYTES = 100_000_000  # the most that the safetensors library accepts
_NAMED = re.compile(r"(?:kimg[-_=]?(?P<after>\d+(?:\.\d+)?))|(?:(?P<before>\d+(?:\.\d+)?)[-_]?kimg)", re.IGNORECASE)
_NVIDIA = re.compile(r"network-snapshot-(?:\d+x\d+-)?(\d+)", re.IGNORECASE)
_STEP = re.compile(r"(?:step|iter(?:ation)?)s?[-_=]?(\d+)", re.IGNORECASE)
_REMOTE = re.compile(r"[a-z]+:/", re.IGNORECASE)


@dataclass(frozen=True)
class Snapshot:
    """A snapshot, not read yet.

    Attributes:
        source: what `load_checkpoint` reads.
        at: how far the training was.
        unit: what ``at`` counts: thousands of real images seen, or steps.
        model_id: MLflow's logged model that it is, where it comes from there.
    """

    source: str
    at: float
    unit: Unit
    model_id: str | None = None

    @property
    def name(self) -> str:
        """File name, or the last part of an address."""
        return self.source.rstrip("/").split("/")[-1].split("#")[0]


def find_snapshots(sources: Sequence[str]) -> list[Snapshot]:
    """The snapshots behind files, folders, patterns and addresses, in the order of training, whatever order they are given in.

    ``kimg`` or ``step`` in a safetensors file's metadata goes before the name; in a name, ``kimg200``, ``200kimg``, NVIDIA's
    ``network-snapshot-000200`` (kimg), ``step=400``, or else the last number (a step).

    Raises:
        InputError: nothing there, a snapshot without any number, two of the same step, or some by kimg and others by step.
    """
    found = [snapshot for source in sources for snapshot in map(described, _expanded(source))]
    return in_order(found)


def in_order(snapshots: Sequence[Snapshot]) -> list[Snapshot]:
    """The snapshots of one run by training progress; each file once.

    Raises:
        InputError: two of the same step, or some by kimg and others by step.
    """
    unique = sorted({snapshot.source: snapshot for snapshot in snapshots}.values(), key=lambda one: (one.unit, one.at))
    for one, other in pairwise(unique):
        if one.unit != other.unit:
            raise InputError(
                "The snapshots cannot be put in order",
                f"{one.name} at {one.at:g} {one.unit}, {other.name} at {other.at:g} {other.unit}",
                "all by kimg or all by step",
                "take the ones of one run",
            )
        if one.at == other.at:
            raise InputError(
                "Two snapshots are of the same step",
                f"{one.source} and {other.source}, both at {one.at:g} {one.unit}",
                "one for each step",
                "take the snapshots of one run, each once",
            )
    return unique


def described(source: str) -> Snapshot:
    """The snapshot with its progress read from metadata or name.

    Raises:
        InputError: there is no number to be found.
    """
    metadata = _metadata(Path(source)) if not _REMOTE.match(source) else {}
    for unit in ("kimg", "step"):
        try:
            return Snapshot(source, float(metadata[unit]), unit)
        except (KeyError, ValueError):
            continue
    name = source.rstrip("/").split("/")[-1].split("#")[0]
    if progress := progress_in(name):
        return Snapshot(source, *progress)
    raise InputError(
        f"{source} does not say how far the training was",
        f"the name {name!r}, no kimg in the metadata",
        "a number in the name, or `kimg` in a safetensors file's metadata",
        "rename it, as in snapshot-kimg200.pt",
    )


def progress_in(name: str) -> tuple[float, Unit] | None:
    """How far the training was, by a file's name."""
    if found := _NAMED.search(name):
        return float(found["after"] or found["before"]), "kimg"
    if found := _NVIDIA.search(name):
        return float(found[1]), "kimg"
    if found := _STEP.search(name):
        return float(found[1]), "step"
    numbers = re.findall(r"\d+", name.split(".")[0])
    return (float(numbers[-1]), "step") if numbers else None


def _expanded(source: str) -> list[str]:
    """The files that a folder or pattern stands for; an address stands for itself."""
    if _REMOTE.match(source):
        return [source]
    path = Path(source)
    if path.is_dir():
        files = sorted(str(file) for file in path.iterdir() if file.suffix in _SUFFIXES and file.stem != "resume")
    else:
        files = sorted(glob.glob(source)) if glob.has_magic(source) and not path.exists() else [source]
    if not files:
        raise InputError(
            f"There are no snapshots at {source}",
            "no file that could be one",
            f"files ending in {', '.join(_SUFFIXES)}",
            "name the folder or give a pattern in quotes",
        )
    return files


def _metadata(path: Path) -> dict[str, str]:
    """Text metadata of a safetensors file, its header alone; nothing where it is something else or cannot be read."""
    if path.suffix != ".safetensors":
        return {}
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length <= _HEADER_BYTES else {}
    except (OSError, ValueError):
        return {}  # unreadable: found again, and said, when it is its turn to be scored
    metadata = header.get("__metadata__", {}) if isinstance(header, dict) else {}
    return metadata if isinstance(metadata, dict) else {}
