"""``qualitygate metrics``: how good the images are, as a whole and in groups, and whether a score ranks them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from qualitygate.cli import output
from qualitygate.cli.requests import Json, command
from qualitygate.studies.metrics import MetricsRequest

if TYPE_CHECKING:
    from qualitygate.records.metrics import GroupRow, MetricsReport

NAME = "metrics"


@command(MetricsRequest)
def run(request: MetricsRequest, json: Json = False) -> None:
    """Measure a checkpoint's images: the whole set, lowest and highest by a score, what the gate accepts, corrects and rejects, truncated
    ones, and 30 random groups for comparison.

        qualitygate metrics model.pt --profile profile --real photos/ --score low_rate_0.1 --out metrics

    Without --real, path lengths and the discriminator's values are what is left. Numbers of different extractors, sample sizes or real
    sets must not be compared.
    """
    with output.only_result_on_stdout():
        from qualitygate.studies.metrics.run import run

        report, where = run(request, output.reporter()).report, None
        if request.track and request.out is not None:
            from qualitygate.cli.gate import send

            where = send(request.out, request.tracking_uri, request.experiment)
        if json:
            out = None if request.out is None else str(request.out)
            output.emit_json({"out": out, "mlflow_run": where, **report.model_dump(mode="json")})
        else:
            show(report, request.out)


def show(report: MetricsReport, out: Path | None) -> None:
    """The papers' table, and in words whether their order holds."""
    if shown := report.shown:
        against = f" against {report.real.samples:,} of {report.real.name}" if report.real else ""
        header = ("group", *(f"{metric.title}\n{'↑' if metric.higher_is_better else '↓'}" for metric in shown))
        rows = [(_group(row), *(_cell(row, metric.name) for metric in shown)) for row in report.groups]
        output.table(f"{report.samples:,} samples of {report.checkpoint}{against}", header, rows)
    for line in _remarks(report):
        output.emit(line)
    if out is not None:
        output.emit(str(out))


def _remarks(report: MetricsReport) -> Iterator[str]:
    """What the table does not say: what was measured with, the papers' order, what there is no number for."""
    from qualitygate.records.metrics import metric

    yield "± is half of a 95 % interval; of the random groups, the standard deviation of one"
    for key, what in ((report.extractor, "features"), (report.distance, "path lengths")):
        if key is not None:
            yield f"{what}: {key}"
    for one in report.order:
        sign, values = ">" if metric(one.metric).higher_is_better else "<", (one.lowest, one.random, one.highest)
        shown = ", ".join(f"{value:.4g}" for value in values)
        yield f"{metric(one.metric).title}: lowest {sign} random {sign} highest {one.in_words} ({shown})"
    for info in report.shown:
        found = (row.measurements[info.name] for row in report.groups if info.name in row.measurements)
        if notes := [one.note for one in found if one.value is None and one.note]:
            yield f"{info.title}: {notes[0]}" + (f" (and {len(notes) - 1} other groups)" if len(notes) > 1 else "")
    yield from (f"not measured: {left_out}" for left_out in report.left_out)


def _group(row: GroupRow) -> str:
    first, *others = row.group.split("_")
    return "\n".join((" ".join((first, *others)), f"{row.samples:,}"))


def _cell(row: GroupRow, name: str) -> str:
    """Value over its uncertainty."""
    one = row.measurements.get(name)
    if one is None:
        return "–"
    if one.value is None:
        return "too few" if one.note and one.note.startswith("too few") else "–"
    if name in row.spread:
        return f"{one.value:.3g}\n± {row.spread[name]:.1g}"
    half = None if one.low is None or one.high is None else (one.high - one.low) / 2
    return f"{one.value:.3g}" if half is None else f"{one.value:.3g}\n± {half:.1g}"
