"""The snapshots of a training run, each scored once on the same latents. What was scored is kept, so that an analysis goes on where it
stopped."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from qualitygate import storage
from qualitygate.checkpoints.load import Checkpoint, load_checkpoint
from qualitygate.checkpoints.sources import SUFFIXES
from qualitygate.errors import InputError, QualityGateError, TrackingError
from qualitygate.features.extractor import Extractor, extract
from qualitygate.features.images import ImageSet
from qualitygate.generators.passes import Reporter
from qualitygate.metrics.measured_set import MeasuredSet, RealSet
from qualitygate.metrics.metric import Evaluator
from qualitygate.records import canonical_hash
from qualitygate.records.dynamics import DynamicsRecord, SnapshotRecord
from qualitygate.reports.dynamics_figures import dynamics_figure, training_figure
from qualitygate.scores.local_activation import BOUND
from qualitygate.storage import Arrays, array_cache, file_sha256
from qualitygate.studies.dynamics import Alarm, DynamicsRequest, ScoringSettings, raised_alarms
from qualitygate.studies.dynamics.measure import SetMetrics, SnapshotScores, rising_units, score, summary
from qualitygate.studies.dynamics.pattern import find_neuron, pattern_column
from qualitygate.tracking.fetched import fetch_models, run_of
from qualitygate.tracking.sending import send
from qualitygate.tracking.studies import dynamics_parcel

Unit = Literal["kimg", "step"]

_PROGRESS: tuple[tuple[str, Unit], ...] = (
    (r"kimg[-_=]?(\d+(?:\.\d+)?)", "kimg"),
    (r"(\d+(?:\.\d+)?)[-_]?kimg", "kimg"),
    (r"network-snapshot-(?:\d+x\d+-)?(\d+)", "kimg"),
    (r"(?:step|iter(?:ation)?)s?[-_=]?(\d+)", "step"),
)
"""How names tell how far the training was; NVIDIA's count in kimg."""


@dataclass(frozen=True)
class Snapshot:
    """A snapshot, not read yet: what `load_checkpoint` reads; how far the training was, in thousands of real images seen or in steps; and
    MLflow's logged model that it is, where it comes from there."""

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
    ``network-snapshot-000200`` (kimg), ``step=400``, or else the last number (a step). Raises `InputError` if there is nothing there, or a
    snapshot without any number; and as `in_order`."""
    found = []
    for file in (file for source in sources for file in _expanded(source)):
        name = Snapshot(file, 0, "step").name
        progress = _progress_in_metadata(Path(file)) or progress_in(name)
        if progress is None:
            what, remedy = f"the name {name!r}, no kimg in the metadata", "rename it, as in snapshot-kimg200.pt"
            needed = "a number in the name, or `kimg` in a safetensors file's metadata"
            raise InputError(f"{file} does not say how far the training was", what, needed, remedy)
        found.append(Snapshot(file, *progress))
    return in_order(found)


def in_order(snapshots: Sequence[Snapshot]) -> list[Snapshot]:
    """The snapshots of one run by training progress; each file once. Raises `InputError` for two of the same step, or some by kimg and
    others by step."""
    unique = sorted({snapshot.source: snapshot for snapshot in snapshots}.values(), key=lambda one: (one.unit, one.at))
    for one, other in pairwise(unique):
        both = f"{one.source} at {one.at:g} {one.unit}, {other.source} at {other.at:g} {other.unit}"
        if one.unit != other.unit:
            raise InputError("The snapshots cannot be put in order", both, "all by kimg or all by step", "take the ones of one run")
        if one.at == other.at:
            raise InputError("Two snapshots are of the same step", both, "one for each step", "take the snapshots of one run, each once")
    return unique


def progress_in(name: str) -> tuple[float, Unit] | None:
    for pattern, unit in _PROGRESS:
        if found := re.search(pattern, name, re.IGNORECASE):
            return float(found[1]), unit
    numbers = re.findall(r"\d+", name.split(".")[0])
    return (float(numbers[-1]), "step") if numbers else None


def _progress_in_metadata(path: Path) -> tuple[float, Unit] | None:
    """How far the training was, by the metadata of a safetensors file; None where it is something else, or cannot be read: that is found
    again, and said, when it is its turn to be scored."""
    if path.suffix == ".safetensors" and path.is_file():
        with suppress(OSError, SafetensorError, ValueError), safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            return next(((float(metadata[unit]), unit) for unit in get_args(Unit) if unit in metadata), None)
    return None


def _expanded(source: str) -> list[str]:
    """The files that a folder or pattern stands for; an address stands for itself."""
    if re.match(r"[a-z]+:/", source, re.IGNORECASE):
        return [source]
    path = Path(source)
    if path.is_dir():
        files = sorted(str(file) for file in path.iterdir() if file.suffix in SUFFIXES and file.stem != "resume")
    else:
        files = sorted(glob.glob(source)) if glob.has_magic(source) and not path.exists() else [source]
    if not files:
        needed, remedy = f"files ending in {', '.join(SUFFIXES)}", "name the folder or give a pattern in quotes"
        raise InputError(f"There are no snapshots at {source}", "no file that could be one", needed, remedy)
    return files


class AgainstReal:
    """Realism, rarity, precision, recall, density, coverage, KID, FID of images, by name, without those that so few have no number of. Only
    numbers of the same ``key``, of real images and extractor, can be compared. Distances are worked out on ``device``."""

    def __init__(
        self, images: ImageSet, extractor: Extractor, *, device: torch.device | str = "cpu", reporter: Reporter | None = None
    ) -> None:
        self._extractor, self._real = extractor, RealSet.of(images, extractor, device, reporter or Reporter())
        self.key = f"{self._real.digest}; {self._real.key}"

    def __call__(self, images: Tensor) -> dict[str, float]:
        features = torch.from_numpy(extract(self._extractor, images)).to(self._real.features.device)
        measured = Evaluator(self._real.key, intervals=False).measure(MeasuredSet(len(images), features, real=self._real))
        return {name: one.value for name, one in measured.items() if one.value is not None}


FORMAT = 3  # of the stored scores; another one is not read

Load = Callable[[Snapshot], Checkpoint]


@dataclass(frozen=True)
class ScoredSnapshot:
    """A snapshot and what was measured of it, or why nothing was. ``latents`` says in words what kind it takes: the same for all, or they
    could not go through all."""

    snapshot: Snapshot
    sha256: str | None = None
    family: str | None = None
    latents: str | None = None
    scores: SnapshotScores | None = None
    error: str | None = None


@dataclass(frozen=True)
class TrainingCurve:
    snapshots: tuple[ScoredSnapshot, ...]
    settings: ScoringSettings

    @property
    def scored(self) -> list[tuple[Snapshot, SnapshotScores]]:
        return [(one.snapshot, one.scores) for one in self.snapshots if one.scores is not None]

    def record(self, alarms: Sequence[Alarm] = (), top: int = 10) -> DynamicsRecord:
        """What is written down: metrics of each snapshot, the units that rise most, the alarms that went off."""
        snapshots: list[SnapshotRecord] = []
        before: SnapshotScores | None = None
        for one in self.snapshots:
            snapshots.append(
                SnapshotRecord(
                    checkpoint=one.snapshot.name,
                    checkpoint_sha256=one.sha256,
                    family=one.family,
                    model_id=one.snapshot.model_id,
                    at=one.snapshot.at,
                    metrics={} if one.scores is None else summary(one.scores, before),
                    error=one.error,
                )
            )
            before = one.scores or before
        scores = [scores for _, scores in self.scored]
        return DynamicsRecord(
            unit=self.snapshots[0].snapshot.unit,
            settings=self.settings.model_dump(mode="json"),
            snapshots=tuple(snapshots),
            rising={layer: tuple(rising_units(scores, layer, top)) for layer in sorted(scores[-1].unit_cla)},
            alarms=tuple(str(one) for one in raised_alarms([(one.at, one.metrics) for one in snapshots], alarms)),
        )


def score_snapshots(
    snapshots: Sequence[Snapshot],
    settings: ScoringSettings,
    load: Load,
    *,
    store: Path | None = None,
    metrics: SetMetrics | None = None,
    metrics_key: str = "",
    reporter: Reporter | None = None,
) -> TrainingCurve:
    """Score snapshots, in the order of training, on the same latents; one that cannot be read or scored is noted, and the others go on.
    The scores of each are kept in ``store``, and found again by checkpoint hash and settings; those kept under another ``metrics_key``,
    which says what makes the set metrics comparable (real images, extractor), are made again. A `UserWarning` says where scores cannot be
    kept, or cannot be read and are made anew. Raises `InputError` if none of the snapshots could be scored."""
    key = canonical_hash([FORMAT, canonical_hash(settings.model_dump(mode="json")), metrics is not None, metrics_key])
    cache = None if store is None else array_cache(key[:24], root=store)

    def scored_alone(snapshot: Snapshot) -> ScoredSnapshot:
        sha256 = None
        try:
            if Path(snapshot.source).is_file():
                sha256 = file_sha256(Path(snapshot.source))
                if cache is not None and (arrays := cache.find({"checkpoint": sha256})) is not None:
                    return _from_arrays(snapshot, sha256, arrays)
            checkpoint = load(snapshot)
            generator = checkpoint.generator
            sha256 = generator.identity().sha256
            with (reporter or Reporter()).phase(snapshot.name, settings.samples) as progress:
                scores = score(generator, settings, discriminator=checkpoint.discriminator, metrics=metrics, progress=progress)
        except QualityGateError as error:
            return ScoredSnapshot(snapshot, sha256, error=str(error).replace("\n", ";"))
        latents = f"{generator.latent_size} numbers and {generator.label_size} classes"
        one = ScoredSnapshot(snapshot, sha256, generator.family, latents, scores)
        if cache is not None:
            cache.keep({"checkpoint": sha256}, _to_arrays(one))
        return one

    scored: list[ScoredSnapshot] = []
    for snapshot in snapshots:
        one = scored_alone(snapshot)
        kinds = {other.latents for other in scored if other.latents}
        if one.latents and kinds - {one.latents}:
            error = f"The same latents do not fit: it takes {one.latents}, the earlier ones {kinds.pop()}"
            one = ScoredSnapshot(snapshot, one.sha256, one.family, error=error)
        scored.append(one)
    if all(one.scores is None for one in scored):
        found = "; ".join(f"{one.snapshot.name}: {one.error}" for one in scored[:3]) or "none"
        raise InputError("No snapshot could be scored", found, "at least one generator that can be read and has the layers")
    return TrainingCurve(tuple(scored), settings)


def _to_arrays(one: ScoredSnapshot) -> Arrays:
    assert one.scores is not None
    about = {"family": one.family, "latents": one.latents, "metrics": dict(one.scores.metrics)}
    arrays = {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)}
    for name, of_layers in vars(one.scores).items():
        if name != "metrics":
            arrays |= {f"{name}/{layer}": np.asarray(value) for layer, value in of_layers.items()}
    return arrays


def _from_arrays(snapshot: Snapshot, sha256: str, arrays: Arrays) -> ScoredSnapshot:
    about = json.loads(arrays["about"].tobytes())
    fields: dict[str, dict[int, Any]] = {name: {} for name in SnapshotScores.__dataclass_fields__ if name != "metrics"}
    for name, value in arrays.items():
        if name != "about":
            of, layer = name.split("/")
            fields[of][int(layer)] = value.item() if of == "scale" else value
    scores = SnapshotScores(**fields, metrics=about["metrics"])
    return ScoredSnapshot(snapshot, sha256, about["family"], about["latents"], scores)


@dataclass(frozen=True)
class DynamicsResult:
    record: DynamicsRecord
    mlflow_run: str | None
    warnings: tuple[str, ...]


def run(request: DynamicsRequest, reporter: Reporter | None = None) -> DynamicsResult:
    """Score the same latents through every snapshot of a training run; write numbers and figures, and send them to MLflow. Raises
    `InputError` if there are no snapshots, or none that can be scored, or for options that say nothing."""
    reporter = reporter or Reporter()
    alarms, settings, device = request.alarms, request.settings, request.chosen_device
    layer, unit = request.followed

    def load(snapshot: Snapshot) -> Checkpoint:
        with reporter.download() as progress:
            return load_checkpoint(snapshot.source, device, tracking_uri=request.tracking_uri, progress=progress)

    snapshots = find_snapshots([source for source in request.snapshots if run_of(source) is None])
    for run_id in filter(None, map(run_of, request.snapshots)):
        models = fetch_models(run_id, request.out / "models", request.tracking_uri)
        snapshots += [Snapshot(one.source, one.step, "step", one.model_id) for one in models]
    snapshots = in_order(snapshots)
    against = None if request.real is None else _against_real(request, snapshots, load, reporter)
    key = "" if against is None else against.key
    curve = score_snapshots(snapshots, settings, load, store=request.out / "scores", metrics=against, metrics_key=key, reporter=reporter)
    warnings = [f"{one.snapshot.name} is left out: {one.error}" for one in curve.snapshots if one.error is not None]
    record = curve.record(alarms)
    storage.write_bytes(request.out / "dynamics.json", (record.model_dump_json(indent=2) + "\n").encode())
    last = load(curve.scored[-1][0]).generator
    tracked = find_neuron(last, [scores for _, scores in curve.scored], settings, layer, unit)
    columns = []
    for snapshot, _ in curve.scored:
        try:
            columns.append(pattern_column(load(snapshot).generator, tracked, settings, f"{snapshot.at:.3g} {snapshot.unit}"))
        except QualityGateError as error:
            warnings.append(f"no column for {snapshot.name}: {str(error).splitlines()[0]}")
    figures, title = request.out / "figures", f"{tracked.neuron}; sample {tracked.sample}"
    figures.mkdir(parents=True, exist_ok=True)
    storage.write_bytes(figures / "course.png", training_figure(record))
    storage.write_bytes(figures / "unit.png", dynamics_figure(columns, tracked.neuron, tracked.axes, BOUND, title))
    mlflow_run = None
    if request.track:
        try:
            mlflow_run = send(dynamics_parcel(record, figures), request.tracking_uri, request.experiment).run_id
        except TrackingError as error:
            remedy = "run the same command again later; nothing is scored twice"
            warnings.append(f"MLflow was not reached, the numbers stand in {request.out}: {error}\n  what to do: {remedy}")
    return DynamicsResult(record, mlflow_run, tuple(warnings))


def _against_real(request: DynamicsRequest, snapshots: Sequence[Snapshot], load: Load, reporter: Reporter) -> AgainstReal:
    """Set metrics against the real images, at the size of the images of the last snapshot that can be read; the others are reported when
    it is their turn."""
    for snapshot in reversed(snapshots):
        with suppress(QualityGateError):
            checkpoint = load(snapshot)
            break
    else:
        found = ", ".join(one.name for one in snapshots[:5]) or "none"
        raise InputError("No snapshot could be read", found, "at least one generator")
    images = request.load_real(checkpoint.generator.image_shape[1])
    assert images is not None
    device = checkpoint.generator.device
    return AgainstReal(images, request.load_extractor(None, device), device=device, reporter=reporter)
