"""``qualitygate units``: which units draw what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qualitygate.cli import output
from qualitygate.cli.looking import extractor_of
from qualitygate.cli.options import (
    Device,
    Experiment,
    ExtractorName,
    ExtractorWeights,
    Json,
    LabelSeed,
    ProfileFolder,
    Tracking,
    chosen_device,
    load_both,
)
from qualitygate.cli.source import Source, reads_generator

if TYPE_CHECKING:
    from qualitygate.features.images import ImageSet
    from qualitygate.studies.units.run import UnitReport, UnitStudy
    from qualitygate.units.score import UnitScores

NAME = "units"


@reads_generator
def run(
    source: Source,
    profile: ProfileFolder,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Labels: CSV, Label Studio's JSON, or a folder with artifact/ and normal/; default: extremes of --score stand in.",
            show_default=False,
        ),
    ] = None,
    label_seed: LabelSeed = None,
    sources: Annotated[
        str | None,
        typer.Option(
            help="Unit scores, with commas: cla, low_rate, defective, frechet, contribution; default: all that can be made.",
            show_default=False,
        ),
    ] = None,
    score: Annotated[str | None, typer.Option(help="Score whose extremes stand in; default: the first rule's.", show_default=False)] = None,
    extractor: ExtractorName = "random-vgg16-64",
    weights: ExtractorWeights = None,
    real: Annotated[
        Path | None, typer.Option(help="Real images: a folder, .zip, .tar, .parquet, .npz; default: none.", show_default=False)
    ] = None,
    samples: Annotated[int, typer.Option(help="Samples for thresholds, FID and top images.", min=2)] = 2000,
    group: Annotated[int, typer.Option(help="Samples of each group that stands in for labels.", min=1)] = 200,
    images: Annotated[int, typer.Option(help="Images of a unit whose FID is measured.", min=2)] = 100,
    curvature: Annotated[int, typer.Option(help="Artifacts with exact CLA.", min=1)] = 16,
    top: Annotated[int, typer.Option(help="Units of each layer to show.", min=1)] = 10,
    out: Annotated[Path | None, typer.Option(help="Folder for scores and sheets; must not exist yet.", show_default=False)] = None,
    track: Annotated[bool, typer.Option(help="Log to MLflow; with --out only.")] = True,
    tracking_uri: Tracking = None,
    experiment: Experiment = "qualitygate",
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Score the units of a checkpoint in every way there is, side by side, and show what the most suspected ones draw.

        qualitygate units model.pt --profile profile --labels labels.csv --out units

    Without labels the samples with the highest and the lowest score stand in for artifact and normal images; the result says so. A
    classifier of artifacts that is no better than chance stops the command.
    """
    with output.only_result_on_stdout():
        from qualitygate import storage
        from qualitygate.gating.profile import load_profile
        from qualitygate.studies.units.run import Sizes, UnitStudy, describe, write_units
        from qualitygate.units.labels import read_labels

        if out is not None:
            storage.refuse_existing(out)
        where, asked = chosen_device(device), None if sources is None else sources.split(",")
        generator, judge = load_both(source, where, tracking_uri)
        by_features = asked is None or {"defective", "frechet"} & {*asked}
        study = UnitStudy(
            generator,
            load_profile(profile),
            None if labels is None else read_labels(labels),
            seed=label_seed,
            score=score,
            extractor=extractor_of(extractor, weights, judge, where) if by_features else None,
            discriminator=judge,
            real=_real(real, generator.image_shape[1]),
            sizes=Sizes(samples, group, images, curvature),
            reporter=output.reporter(),
        )
        report = study.report(asked, top)
        run_id = None
        if out is not None:
            write_units(out, study, report)
            run_id = _send(out, tracking_uri, experiment) if track else None
        if json:
            output.emit_json({"out": out and str(out), "mlflow_run": run_id, **describe(study, report)})
        else:
            _show(study, report, out)


def _real(path: Path | None, size: int) -> ImageSet | None:
    from qualitygate.features.images import open_images

    return None if path is None else open_images(path, size=size)


def _send(folder: Path, tracking_uri: str | None, experiment: str) -> str | None:
    """Log the study; an outage costs nothing but a warning."""
    from qualitygate.errors import TrackingError
    from qualitygate.tracking.sending import send
    from qualitygate.tracking.studies import units_parcel

    try:
        return send(units_parcel(folder), tracking_uri, experiment).run_id
    except TrackingError as error:
        output.say(f"warning: MLflow was not reached: {error}")
        return None


def _show(study: UnitStudy, report: UnitReport, out: Path | None) -> None:
    sources = [one.source for one in report.scores]
    for layer, units in report.top.items():
        rows = [(unit, *(_at(one, layer, unit) for one in report.scores)) for unit in units]
        output.table(f"Layer {layer}: the units to suspect first", ("unit", *sources), rows)
    agreement = [
        (one.layer, one.first, one.second, one.correlation, f"{one.overlap:.2f} of {one.top}", f"{one.by_chance:.2f}")
        for one in report.agreement
    ]
    if agreement:
        output.table("Agreement", ("layer", "score", "score", "rank correlation", "overlap of the top", "by chance"), agreement)
    if (found := report.classification) is not None:
        output.table(
            f"Classifier on {found.backbone}: training {found.training_accuracy:.2f}, validation {found.validation_accuracy:.2f} "
            f"(95 % interval {found.interval[0]:.2f} to {found.interval[1]:.2f}, chance 0.5)",
            ("is \\ said", *found.classes),
            [(name, *map(int, row)) for name, row in zip(found.classes, found.confusion, strict=True)],
        )
    counts = report.labels.counts
    output.emit(f"Labels: {report.labels.source} ({counts['artifact']:,} artifacts, {counts['normal']:,} normal)")
    if out is not None:
        output.emit(f"Scores, comparison and sheets written to {out}")


def _at(scores: UnitScores, layer: int, unit: int) -> float | None:
    """A unit's score; None where its layer was not scored."""
    return float(scores.of(layer)[unit]) if layer in scores.layers else None
