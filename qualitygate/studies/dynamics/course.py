"""Every snapshot of a training run scored once. What was scored is kept, so that an analysis goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from qualitygate import storage
from qualitygate.checkpoints.digest import file_sha256
from qualitygate.checkpoints.load import Checkpoint
from qualitygate.errors import InputError, QualityGateError
from qualitygate.generators.base import Generator
from qualitygate.generators.passes import Reporter
from qualitygate.records.gate import DynamicsRecord, SnapshotRecord, canonical_hash
from qualitygate.studies.dynamics.alarms import Alarm, raised
from qualitygate.studies.dynamics.measure import Scores, SetMetrics, Settings, score
from qualitygate.studies.dynamics.snapshots import Snapshot
from qualitygate.studies.dynamics.summary import rising_units, summary

FORMAT = 1
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
        StorageError: the scores cannot be kept.
    """
    reporter = reporter or Reporter()
    key = canonical_hash([FORMAT, settings.key, metrics is not None, metrics_key])
    course: list[Scored] = []
    for snapshot in snapshots:
        one = _scored(snapshot, settings, load, store and store / key[:24], metrics, reporter)
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
    snapshot: Snapshot, settings: Settings, load: Load, store: Path | None, metrics: SetMetrics | None, reporter: Reporter
) -> Scored:
    sha256 = None
    try:
        if Path(snapshot.source).is_file():
            sha256 = file_sha256(Path(snapshot.source))
            if (stored := _stored(snapshot, sha256, _place(store, sha256))) is not None:
                return stored
        checkpoint = load(snapshot)
        generator = checkpoint.generator
        sha256 = generator.identity().sha256
        with reporter.phase(snapshot.name, settings.samples) as progress:
            scores = score(generator, settings, discriminator=checkpoint.discriminator, metrics=metrics, progress=progress)
    except QualityGateError as error:
        return Scored(snapshot, sha256, error=str(error).replace("\n", ";"))
    one = Scored(snapshot, sha256, generator.family, _kind(generator), scores)
    if (place := _place(store, sha256)) is not None:
        _keep(one, place)
    return one


def _kind(generator: Generator) -> str:
    return f"{generator.latent_size} numbers and {generator.label_size} classes"


def _place(store: Path | None, sha256: str) -> Path | None:
    return store and store / f"{sha256}.npz"


def _keep(one: Scored, place: Path) -> None:
    assert one.scores is not None
    arrays = {
        f"{name}/{layer}": value for name, of_layers in vars(one.scores).items() if name != "metrics" for layer, value in of_layers.items()
    }
    about = {"family": one.family, "latents": one.latents, "metrics": dict(one.scores.metrics)}
    with storage.explained(place):
        place.parent.mkdir(parents=True, exist_ok=True)
    with storage.new_file(place) as partial, partial.open("wb") as file:
        np.savez_compressed(file, about=np.array(json.dumps(about)), **arrays)


def _stored(snapshot: Snapshot, sha256: str, place: Path | None) -> Scored | None:
    """The scores that are kept at a place; None if there are none, or not whole."""
    if place is None or not place.is_file():
        return None
    with suppress(OSError, ValueError, KeyError, BadZipFile), place.open("rb") as file, np.load(file) as archive:
        about = json.loads(str(archive["about"]))
        fields: dict[str, dict[int, np.ndarray]] = {name: {} for name in Scores.__dataclass_fields__ if name != "metrics"}
        for name in archive.files:
            if name != "about":
                of, layer = name.split("/")
                fields[of][int(layer)] = archive[name]
        scale = {layer: float(value) for layer, value in fields.pop("scale").items()}
        scores = Scores(**fields, scale=scale, metrics=about["metrics"])
        return Scored(snapshot, sha256, about["family"], about["latents"], scores, resumed=True)
    return None
