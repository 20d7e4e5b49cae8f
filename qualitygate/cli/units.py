"""``qualitygate units``: which units draw what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from qualitygate.cli import output
from qualitygate.cli.requests import command
from qualitygate.studies.units import UnitsRequest

if TYPE_CHECKING:
    from qualitygate.studies.units.run import UnitsResult


@command(UnitsRequest)
def run(request: UnitsRequest) -> None:
    """Score the units of a checkpoint in every way there is, side by side, and show what the most suspected ones draw.

        qualitygate units model.pt --profile profile --labels labels.csv --out units

    Without labels the samples with the highest and the lowest score stand in for artifact and normal images; the result says so. A
    classifier of artifacts that is no better than chance stops the command.
    """
    from qualitygate.studies.units import run as study
    from qualitygate.tracking.studies import units_parcel

    result = study.run(request, output.reporter())
    run_id = output.send(units_parcel(request.out), request, "the scores stand") if request.out is not None and request.track else None
    output.result({"out": request.out, "mlflow_run": run_id, **result.document()}, _shown(result, request.out))


def _shown(result: UnitsResult, out: Path | None) -> Iterator[output.Part]:
    sources = [one.source for one in result.scores]
    for layer, units in result.top.items():
        columns = [one.of(layer) if layer in one.layers else None for one in result.scores]
        rows = [(unit, *(None if column is None else float(column[unit]) for column in columns)) for unit in units]
        yield f"Layer {layer}: the units to suspect first", ("unit", *sources), rows
    agreement = [
        (one.layer, one.first, one.second, one.correlation, f"{one.overlap:.2f} of {one.top}", f"{one.by_chance:.2f}")
        for one in result.agreement
    ]
    if agreement:
        yield "Agreement", ("layer", "score", "score", "rank correlation", "overlap of the top", "by chance"), agreement
    if (found := result.classification) is not None:
        yield (
            f"Classifier on {found.backbone}: training {found.training_accuracy:.2f}, validation {found.validation_accuracy:.2f} "
            f"(95 % interval {found.interval[0]:.2f} to {found.interval[1]:.2f}, chance 0.5)",
            ("is \\ said", *found.classes),
            [(name, *map(int, row)) for name, row in zip(found.classes, found.confusion, strict=True)],
        )
    counts = result.labels.counts
    yield f"Labels: {result.labels.source} ({counts['artifact']:,} artifacts, {counts['normal']:,} normal)"
    if out is not None:
        yield f"Scores, comparison and sheets written to {out}"
