"""``qualitygate validate``: does the score mean anything on this checkpoint?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qualitygate.cli import output
from qualitygate.cli.looking import DIGITS, extractor_of, real_images
from qualitygate.cli.options import (
    Device,
    ExtractorName,
    ExtractorWeights,
    Json,
    LabelSeed,
    NumbersFolder,
    Real,
    SampleSeed,
    chosen_device,
    load_both,
)
from qualitygate.cli.source import Source, reads_generator

if TYPE_CHECKING:
    import numpy as np

    from qualitygate.records.metrics import Measurement
    from qualitygate.records.validation import Finding, ScoreGroups, ScoreYield, ValidationReport
    from qualitygate.studies.validate.request import Tools

NAME = "validate"
_SHOWN = 12


@reads_generator
def run(
    source: Source,
    profile: Annotated[
        Path, typer.Option("--profile", help="Profile made by `calibrate`; the evidence is written into it.", show_default=False)
    ],
    labels: Annotated[
        Path | None,
        typer.Option(help="What people said: CSV, Label Studio's JSON, or a folder with artifact/ and normal/.", show_default=False),
    ] = None,
    label_seed: LabelSeed = None,
    real: Real = None,
    real_classes: Annotated[
        Path | None,
        typer.Option(help="Class of each real image, in their order: .npy of whole numbers. `digits` bring theirs.", show_default=False),
    ] = None,
    extractor: ExtractorName = "random-vgg16-32",
    weights: ExtractorWeights = None,
    planted: Annotated[
        bool | None,
        typer.Option(
            "--planted/--no-planted",
            help="Plant a defect too; default: where there are neither labels nor real images.",
            show_default=False,
        ),
    ] = None,
    samples: Annotated[int, typer.Option(help="Images to make: half choose, half are reported on.", min=40)] = 2000,
    curvature: Annotated[int, typer.Option(help="Samples with exact CLA.", min=0)] = 200,
    class_samples: Annotated[int, typer.Option(help="Samples for activation rates by class.", min=10)] = 2000,
    seed: SampleSeed = 1,
    out: NumbersFolder = None,
    write: Annotated[bool, typer.Option(help="Write the evidence into the profile.")] = True,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Hold every score against whatever evidence there is, and say what to gate by: settings are chosen on one half of the samples and
    reported on the other.

        qualitygate validate model.pt --profile profile --real photos/ --out validation

    Labels are the strongest evidence, then real images; a planted defect and the discriminator are weak. Where no score is better than
    chance it says so, and gating by one warns from then on.
    """
    with output.only_result_on_stdout():
        from qualitygate import storage
        from qualitygate.gating.validated import write_evidence
        from qualitygate.studies.validate.request import Request
        from qualitygate.studies.validate.run import validate, write_validation

        if out is not None:
            storage.refuse_existing(out)
        tools = _tools(source, chosen_device(device), profile, (labels, label_seed), (real, real_classes), (extractor, weights))
        report = validate(tools, Request(samples, seed, curvature, class_samples, planted), output.reporter())
        if out is not None:
            write_validation(out, report)
        if write:
            write_evidence(profile, report.evidence)
        if json:
            output.emit_json({"out": None if out is None else str(out), **report.model_dump(mode="json")})
        else:
            show(report, out)


def show(report: ValidationReport, out: Path | None) -> None:
    """The answer first, then what it rests on."""
    from qualitygate.records.validation import Sight

    for remark in report.remarks:
        output.emit(remark)
    rows = [(str(one.kind), "weak" if one.kind.weak else "", one.what, one.samples, one.bad) for one in report.evidence.sources]
    output.table("Evidence, the strongest first", ("", "", "bad are", "samples", "bad"), rows)
    for source in report.evidence.sources:
        found = [one for one in report.evidence.findings if one.kind is source.kind]
        seeing = sum(one.sight is not Sight.BLIND for one in found)
        best = sorted(found, key=lambda one: one.auc.value, reverse=True)[:_SHOWN]
        chosen = (report.best, report.fitted, report.policy, report.by_class)
        extra = [one for one in chosen if one is not None and one.kind is source.kind and one not in best]
        header = ("score", "sees", "AUC", "rank correlation", "bad in the\nlowest tenth", "highest", "chosen by")
        title = f"By {source.kind}: {seeing} of {len(found)} scores are better than chance; the highest, and those that matter"
        output.table(title, header, [_finding(one, report) for one in (*best, *extra)])
    for one in report.groups:
        _show_groups(one)
    for yielded in report.yields:
        _show_yield(yielded, str(report.evidence.sources[0].kind))
    output.emit(report.evidence.recommended or "Nothing is recommended: do not gate by these scores.")
    if out is not None:
        output.emit(str(out))


def _finding(one: Finding, report: ValidationReport) -> tuple[object, ...]:
    marks = [word for word, other in (("chosen", report.best), ("policy", report.policy)) if one == other]
    name = f"{one.setting}" + (f"  ← {', '.join(marks)}" if marks else "")
    return (
        name,
        str(one.sight),
        str(one.auc),
        str(one.correlation or "–"),
        f"{one.bad_lowest:.2f}",
        f"{one.bad_highest:.2f}",
        "fitted" if one.chosen_by is None else f"{one.chosen_by.value:.2f}",
    )


def _show_groups(one: ScoreGroups) -> None:
    from qualitygate.records.metrics import metric, shown

    columns = shown(row.measurements for row in one.rows)
    header = ("group", *(info.heading for info in columns))
    rows = [(f"{row.group} ({row.samples:,})", *(_value(row.measurements, info.name) for info in columns)) for row in one.rows]
    output.table(f"Groups by {one.setting}", header, rows)
    for order in one.order:
        output.emit(f"{metric(order.metric).title}: the papers' order {order.in_words}")


def _show_yield(one: ScoreYield, kind: str) -> None:
    from qualitygate.records.metrics import shown

    columns = shown(point.measurements for point in one.points)
    classes = sorted({k for point in one.points for k in point.classes})
    header = ["rejected", "left", f"bad by {kind}", *(metric.title for metric in columns), *(["rarest class"] if classes else [])]
    rows = []
    for point in one.points:
        row = [f"{point.rejected:.0%}", point.accepted, str(point.bad)]
        row += [_value(point.measurements, metric.name) + _chance(point.chance, metric.name) for metric in columns]
        if classes:
            rarest = min(classes, key=lambda k: point.classes.get(k, 0.0))
            row.append(f"{rarest}: {point.classes.get(rarest, 0.0):.3f}")
        rows.append(row)
    output.table(f"Rejecting by {one.setting} (in brackets: as many at random)", header, rows)


def _value(measurements: Mapping[str, Measurement], name: str) -> str:
    found = measurements.get(name)
    if found is None:
        return "–"
    return "too few" if found.value is None else f"{found.value:.3g}"


def _chance(chance: dict[str, float], name: str) -> str:
    return f" ({chance[name]:.3g})" if name in chance else ""


def _tools(
    source: Source,
    device: str,
    profile: Path,
    labels: tuple[Path | None, int | None],
    real: tuple[str | None, Path | None],
    extractor: tuple[str, str | None],
) -> Tools:
    from qualitygate.gating.profile import load_profile
    from qualitygate.studies.validate.request import Tools
    from qualitygate.units.labels import read_labels

    generator, judge = load_both(source, device)
    images = None if real[0] is None else real_images(real[0], generator.image_shape[1])
    return Tools(
        generator,
        load_profile(profile),
        judge,
        None if images is None else extractor_of(*extractor, judge, device),
        images,
        _classes(*real, 0 if images is None else len(images)),
        None if labels[0] is None else read_labels(labels[0]),
        labels[1],
    )


def _classes(real: str | None, path: Path | None, count: int) -> np.ndarray | None:
    """Class of each real image; None where nobody says."""
    import numpy as np

    from qualitygate.errors import InputError
    from qualitygate.features.images import digits_labels

    if path is None:
        return digits_labels() if real == DIGITS else None
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"Cannot read the classes of {path}", str(error), "an .npy file of whole numbers") from error
    if not isinstance(found, np.ndarray) or found.shape != (count,) or found.dtype.kind not in "iu" or (found < 0).any():
        raise InputError(
            f"The classes of {path} do not fit",
            str(getattr(found, "shape", "several arrays")),
            f"a whole number, at least 0, for each of the {count:,} real images",
        )
    return found.astype(np.int64)
