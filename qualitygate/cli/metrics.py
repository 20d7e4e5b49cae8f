"""``qualitygate metrics``: how good the images are, as a whole and in groups, and whether a score ranks them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qualitygate import names
from qualitygate.cli import output
from qualitygate.cli.gate import send
from qualitygate.cli.requests import command
from qualitygate.records.metrics import GroupRow, MetricsReport, metric
from qualitygate.studies.metrics import MetricsRequest


@command(MetricsRequest)
def run(request: MetricsRequest) -> None:
    """Measure a checkpoint's images: the whole set, lowest and highest by a score, what the gate accepts, corrects and rejects, truncated
    ones, and 30 random groups for comparison.

        qualitygate metrics model.pt --profile profile --real photos/ --score low_rate_0.1 --out metrics

    Without --real, path lengths and the discriminator's values are what is left. Numbers of different extractors, sample sizes or real
    sets must not be compared.
    """
    from qualitygate.studies.metrics.run import run

    report, out = run(request, output.reporter()).report, request.out
    where = send(out, request.tracking_uri, request.experiment) if request.track and out is not None else None
    output.result({"out": out, "mlflow_run": where, **report.model_dump(mode="json")}, _shown(report, out))


def _shown(report: MetricsReport, out: Path | None) -> Iterator[output.Part]:
    """The papers' table, what was measured with, the papers' order, and what there is no number for."""
    if shown := report.shown:
        against = f" against {report.real.samples:,} of {report.real.name}" if report.real else ""
        header = ("group", *(f"{one.title}\n{one.arrow}" for one in shown))
        groups = [(f"{row.group.replace('_', ' ')}\n{row.samples:,}", row) for row in report.groups]
        rows = [(group, *(_cell(row, one.name) for one in shown)) for group, row in groups]
        yield f"{report.samples:,} samples of {report.checkpoint}{against}", header, rows
    yield "± is half of a 95 % interval; of the random groups, the standard deviation of one"
    for key, what in ((report.extractor, "features"), (report.distance, "path lengths")):
        if key is not None:
            yield f"{what}: {key}"
    for one in report.order:
        sign, values = ">" if metric(one.metric).higher_is_better else "<", (one.lowest, one.random, one.highest)
        numbers = ", ".join(f"{value:.4g}" for value in values)
        yield f"{metric(one.metric).title}: lowest {sign} random {sign} highest {one.in_words} ({numbers})"
    yield from report.rare_or_wrong
    yield from report.alike
    of_fid = [row.measurements[names.FID] for row in report.groups if row.group != names.RANDOM and names.FID in row.measurements]
    for samples, note in {fid.samples: fid.note for fid in reversed(of_fid) if fid.value is not None and fid.note}.items():
        yield f"FID of {samples:,}: {note}"
    for info in shown:
        found = (row.measurements[info.name] for row in report.groups if info.name in row.measurements)
        if notes := [one.note for one in found if one.value is None and one.note]:
            yield f"{info.title}: {notes[0]}" + (f" (and {len(notes) - 1} other groups)" if len(notes) > 1 else "")
    yield from report.remarks
    yield from (f"not measured: {left_out}" for left_out in report.left_out)
    if out is not None:
        yield str(out)


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
