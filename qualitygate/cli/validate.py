"""``qualitygate validate``: does the score mean anything on this checkpoint?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from qualitygate.cli import output
from qualitygate.cli.requests import command
from qualitygate.records.metrics import Measurement, metric, shown
from qualitygate.records.validation import Finding, ScoreGroups, ScoreYield, Sight, ValidationReport
from qualitygate.studies.validate import ValidateRequest

_SHOWN = 12


@command(ValidateRequest)
def run(request: ValidateRequest) -> None:
    """Hold every score against whatever evidence there is, and say what to gate by: settings are chosen on one half of the samples and
    reported on the other.

        qualitygate validate model.pt --profile profile --real photos/ --out validation

    Labels are the strongest evidence, then real images; a planted defect and the discriminator are weak. Where no score is better than
    chance it says so, and gating by one warns from then on.
    """
    from qualitygate.studies.validate import run as study

    report = study.run(request, output.reporter())
    output.result({"out": request.out, **report.model_dump(mode="json")}, _shown(report, request.out))


def _shown(report: ValidationReport, out: Path | None) -> Iterator[output.Part]:
    """The answer first, then what it rests on."""
    yield from report.remarks
    rows = [(str(one.kind), "weak" if one.kind.weak else "", one.what, one.samples, one.bad) for one in report.evidence.sources]
    yield "Evidence, the strongest first", ("", "", "bad are", "samples", "bad"), rows
    for source in report.evidence.sources:
        found = [one for one in report.evidence.findings if one.kind is source.kind]
        seeing = sum(one.sight is not Sight.BLIND for one in found)
        best = sorted(found, key=lambda one: one.auc.value, reverse=True)[:_SHOWN]
        chosen = (report.best, report.fitted, report.policy, report.by_class)
        extra = [one for one in chosen if one is not None and one.kind is source.kind and one not in best]
        header = ("score", "sees", "AUC", "rank correlation", "bad in the\nlowest tenth", "highest", "chosen by")
        title = f"By {source.kind}: {seeing} of {len(found)} scores are better than chance; the highest, and those that matter"
        yield title, header, [_finding(one, report) for one in (*best, *extra)]
    if report.evidence.rarity:
        title = "Rare, or wrong? Rank correlation of scores with rarity, among the samples in a real image's neighbourhood"
        yield title, ("score", "rejects the rare", "rank correlation", "samples"), list(_rarity(report))
    for one in report.groups:
        yield from _groups(one)
    for yielded in report.yields:
        yield from _yield(yielded, str(report.evidence.sources[0].kind))
    yield report.evidence.recommended or "Nothing is recommended: do not gate by these scores."
    if out is not None:
        yield str(out)


def _finding(one: Finding, report: ValidationReport) -> tuple[object, ...]:
    marks = [word for word, other in (("chosen", report.best), ("policy", report.policy)) if one == other]
    name = f"{one.setting}" + (f"  ← {', '.join(marks)}" if marks else "")
    bad, chosen_by = (f"{one.bad_lowest:.2f}", f"{one.bad_highest:.2f}"), one.chosen_by
    return name, one.sight, one.auc, one.correlation or "–", *bad, "fitted" if chosen_by is None else f"{chosen_by.value:.2f}"


def _rarity(report: ValidationReport) -> Iterator[tuple[object, ...]]:
    """The scores that matter, in order."""
    chosen = {str(one.setting): one.setting for one in (report.best, report.fitted, report.policy, report.by_class) if one is not None}
    for name, setting in chosen.items():
        if (found := report.evidence.rarity_of(setting)) is not None:
            yield name, "yes" if found.rejects_rare else "no", found.correlation or "–", found.samples


def _groups(one: ScoreGroups) -> Iterator[output.Part]:
    columns = shown(row.measurements for row in one.rows)
    header = ("group", *(info.heading for info in columns))
    rows = [(f"{row.group} ({row.samples:,})", *(_value(row.measurements, info.name) for info in columns)) for row in one.rows]
    yield f"Groups by {one.setting}", header, rows
    for order in one.order:
        yield f"{metric(order.metric).title}: the papers' order {order.in_words}"


def _yield(one: ScoreYield, kind: str) -> Iterator[output.Part]:
    columns = shown(point.measurements for point in one.points)
    classes = sorted({k for point in one.points for k in point.classes})
    header = ["rejected", "left", f"bad by {kind}", *(info.title for info in columns), *(["rarest class"] if classes else [])]
    rows = []
    for point in one.points:
        row = [f"{point.rejected:.0%}", point.accepted, str(point.bad)]
        for name in (info.name for info in columns):
            row.append(_value(point.measurements, name) + (f" ({point.chance[name]:.3g})" if name in point.chance else ""))
        if classes:
            rarest = min(classes, key=lambda k: point.classes.get(k, 0.0))
            row.append(f"{rarest}: {point.classes.get(rarest, 0.0):.3f}")
        rows.append(row)
    yield f"Rejecting by {one.setting} (in brackets: as many at random)", header, rows


def _value(measurements: Mapping[str, Measurement], name: str) -> str:
    found = measurements.get(name)
    if found is None:
        return "–"
    return "too few" if found.value is None else f"{found.value:.3g}"
