"""Which snapshots there are, and how far the training was at each."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from qualitygate.checkpoints.digest import file_sha256
from qualitygate.checkpoints.load import Checkpoint
from qualitygate.errors import InputError, QualityGateError
from qualitygate.features.extractor import Extractor, extract
from qualitygate.features.images import ImageSet
from qualitygate.generators.base import Generator
from qualitygate.generators.passes import Progress, Reporter, silent
from qualitygate.metrics.measured_set import MeasuredSet, RealSet, comparable
from qualitygate.metrics.metric import Evaluator
from qualitygate.records import canonical_hash
from qualitygate.records.dynamics import DynamicsRecord, SnapshotRecord
from qualitygate.storage import Arrays, ContentCache, array_cache
from qualitygate.studies.dynamics.alarms import Alarm, raised
from qualitygate.studies.dynamics.measure import Scores, SetMetrics, Settings, rising_units, score, summary

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


@dataclass(frozen=True)
class AgainstReal:
    """Realism, precision, recall, density, coverage, KID and FID of images, by name; those without a number for so few images are left out.

    Attributes:
        extractor: makes the features.
        real: what they are held against.
        evaluator: measures them.
        key: real images and extractor: only numbers of the same key can be compared.
    """

    extractor: Extractor
    real: RealSet
    evaluator: Evaluator
    key: str

    @classmethod
    def of(cls, images: ImageSet, extractor: Extractor, progress: Progress = silent) -> Self:
        """Held against these real images, whose features are made now."""
        features = torch.from_numpy(extract(extractor, images, progress))
        real = RealSet(images.name, images.sha256, features)
        how = comparable(extractor, images)
        return cls(extractor, real, Evaluator(how, intervals=False), f"{real.digest}; {how}")

    def __call__(self, images: Tensor) -> dict[str, float]:
        features = torch.from_numpy(extract(self.extractor, images))
        measured = self.evaluator.measure(MeasuredSet(len(images), features, real=self.real))
        return {name: one.value for name, one in measured.items() if one.value is not None}


FORMAT = 2
"""Of the stored scores; another one is not read."""

Load = Callable[[Snapshot], Checkpoint]


@dataclass(frozen=True)
class Scored:
    """A snapshot and what was measured of it, or why nothing was.

    Attributes:
        snapshot: where it is and how far the training was.
        sha256: of the checkpoint, once it was read.
        family: of the generator.
        latents: what kind of latents it takes, in words; the same for all, or they could not go through all.
        scores: None where there is an error.
        error: why there are no scores.
        resumed: whether the scores were there from before.
    """

    snapshot: Snapshot
    sha256: str | None = None
    family: str | None = None
    latents: str | None = None
    scores: Scores | None = None
    error: str | None = None
    resumed: bool = False


def score_snapshots(
    snapshots: Sequence[Snapshot],
    settings: Settings,
    load: Load,
    *,
    store: Path | None = None,
    metrics: SetMetrics | None = None,
    metrics_key: str = "",
    reporter: Reporter | None = None,
) -> list[Scored]:
    """Score every snapshot on the same latents; one that cannot be read or scored is noted, and the others go on.

    Args:
        snapshots: in the order of training.
        settings: what is scored.
        load: reads a snapshot.
        store: folder where the scores of each are kept, and found again by checkpoint hash and settings.
        metrics: set metrics to measure of every snapshot.
        metrics_key: what makes their numbers comparable (real images, extractor); scores kept under another are made again.
        reporter: shows progress.

    Raises:
        InputError: none of them could be scored.

    Warns:
        UserWarning: the scores of a snapshot cannot be kept, or cannot be read and are made anew.
    """
    reporter = reporter or Reporter()
    key = canonical_hash([FORMAT, settings.key, metrics is not None, metrics_key])
    cache = None if store is None else array_cache(key[:24], root=store)
    course: list[Scored] = []
    for snapshot in snapshots:
        one = _scored(snapshot, settings, load, cache, metrics, reporter)
        kinds = {other.latents for other in course if other.latents}
        if one.latents and kinds - {one.latents}:
            error = f"The same latents do not fit: it takes {one.latents}, the earlier ones {kinds.pop()}"
            one = Scored(snapshot, one.sha256, one.family, error=error)
        course.append(one)
    if all(one.scores is None for one in course):
        raise InputError(
            "No snapshot could be scored",
            "; ".join(f"{one.snapshot.name}: {one.error}" for one in course[:3]) or "none",
            "at least one generator that can be read and has the layers",
        )
    return course


def record(course: Sequence[Scored], settings: Settings, alarms: Sequence[Alarm] = (), top: int = 10) -> DynamicsRecord:
    """What is written down of a course: metrics of each snapshot, the units that rise most, the alarms that went off."""
    snapshots: list[SnapshotRecord] = []
    before: Scores | None = None
    for one in course:
        found = {} if one.scores is None else summary(one.scores, before)
        before = one.scores or before
        snapshots.append(
            SnapshotRecord(
                checkpoint=one.snapshot.name,
                checkpoint_sha256=one.sha256,
                family=one.family,
                model_id=one.snapshot.model_id,
                at=one.snapshot.at,
                metrics=found,
                error=one.error,
            )
        )
    known = [one.scores for one in course if one.scores is not None]
    gone_off = raised([(one.at, one.metrics) for one in snapshots], alarms)
    return DynamicsRecord(
        unit=course[0].snapshot.unit,
        settings=settings.model_dump(mode="json"),
        snapshots=tuple(snapshots),
        rising={layer: tuple(rising_units(known, layer, top)) for layer in sorted(known[-1].unit_cla)},
        alarms=tuple(str(one) for one in gone_off),
    )


def _scored(
    snapshot: Snapshot, settings: Settings, load: Load, cache: ContentCache[Arrays] | None, metrics: SetMetrics | None, reporter: Reporter
) -> Scored:
    sha256 = None
    try:
        if Path(snapshot.source).is_file():
            sha256 = file_sha256(Path(snapshot.source))
            if cache is not None and (arrays := cache.find({"checkpoint": sha256})) is not None:
                return _from_arrays(snapshot, sha256, arrays)
        checkpoint = load(snapshot)
        generator = checkpoint.generator
        sha256 = generator.identity().sha256
        with reporter.phase(snapshot.name, settings.samples) as progress:
            scores = score(generator, settings, discriminator=checkpoint.discriminator, metrics=metrics, progress=progress)
    except QualityGateError as error:
        return Scored(snapshot, sha256, error=str(error).replace("\n", ";"))
    one = Scored(snapshot, sha256, generator.family, _kind(generator), scores)
    if cache is not None:
        cache.keep({"checkpoint": sha256}, _to_arrays(one))
    return one


def _kind(generator: Generator) -> str:
    return f"{generator.latent_size} numbers and {generator.label_size} classes"


def _to_arrays(one: Scored) -> Arrays:
    assert one.scores is not None
    arrays = {
        f"{name}/{layer}": np.asarray(value)
        for name, of_layers in vars(one.scores).items()
        if name != "metrics"
        for layer, value in of_layers.items()
    }
    about = {"family": one.family, "latents": one.latents, "metrics": dict(one.scores.metrics)}
    return {"about": np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays}


def _from_arrays(snapshot: Snapshot, sha256: str, arrays: Arrays) -> Scored:
    fields: dict[str, dict[int, Any]] = {name: {} for name in Scores.__dataclass_fields__ if name != "metrics"}
    about = json.loads(arrays["about"].tobytes())
    for name, value in arrays.items():
        if name != "about":
            of, layer = name.split("/")
            fields[of][int(layer)] = value.item() if of == "scale" else value
    return Scored(snapshot, sha256, about["family"], about["latents"], Scores(**fields, metrics=about["metrics"]), resumed=True)
