"""``qualitygate metrics``: how good the images are, as a whole and in groups, and whether a score ranks them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qualitygate.cli import output
from qualitygate.cli.looking import extractor_of, real_images
from qualitygate.cli.options import (
    Device,
    Experiment,
    ExtractorName,
    ExtractorWeights,
    Json,
    NumbersFolder,
    PolicyFile,
    Real,
    SampleSeed,
    Tracking,
    chosen_device,
    load_both,
    load_policy_or_none,
)
from qualitygate.cli.source import Source, reads_generator

if TYPE_CHECKING:
    from qualitygate.gating.stage import GateStage
    from qualitygate.generators.base import Generator
    from qualitygate.records.metrics import GroupRow, MetricsReport
    from qualitygate.studies.metrics.run import Tools

NAME = "metrics"
_INCEPTION = "inception"


@reads_generator
def run(
    source: Source,
    profile: Annotated[
        Path | None,
        typer.Option("--profile", help="Profile made by `calibrate`: adds the gate's groups and its scores.", show_default=False),
    ] = None,
    policy: PolicyFile = None,
    gated: Annotated[
        Path | None,
        typer.Option(
            help="A gated set: its samples, judged as it was, in place of --profile, --policy, --seed and --samples.", show_default=False
        ),
    ] = None,
    real: Real = None,
    extractor: ExtractorName = "random-vgg16-32",
    weights: ExtractorWeights = None,
    distance: Annotated[
        str, typer.Option(help="Distance of path lengths: random-vgg16-SIZE, lpips (needs --distance-weights), none.")
    ] = "random-vgg16-32",
    distance_weights: Annotated[
        str | None, typer.Option(help="Weights of the distance: a file, or https://…#sha256=….", show_default=False)
    ] = None,
    samples: Annotated[int, typer.Option(help="Images to make.", min=2)] = 5000,
    seed: SampleSeed = 1,
    score: Annotated[
        str | None,
        typer.Option(help="Score that ranks the samples, e.g. low_rate_0.1 or cla/layer_1; default: the first rule's.", show_default=False),
    ] = None,
    group_share: Annotated[float, typer.Option(help="Share of the samples in the lowest and in the highest group.")] = 0.1,
    path_samples: Annotated[int, typer.Option(help="Samples of each group whose path lengths are measured.", min=0)] = 100,
    path: Annotated[
        list[str] | None,
        typer.Option(
            help="Another path length of the whole set, repeatable: ppl_z_end, ppl_z_full, ppl_w_end, ppl_w_full.", show_default=False
        ),
    ] = None,
    fid_infinity: Annotated[bool, typer.Option("--fid-infinity", help="FID extrapolated to infinitely many samples, too.")] = False,
    out: NumbersFolder = None,
    track: Annotated[bool, typer.Option(help="Log to MLflow; needs --out.")] = False,
    tracking_uri: Tracking = None,
    experiment: Experiment = "qualitygate",
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Measure a checkpoint's images: the whole set, lowest and highest by a score, what the gate accepts, corrects and rejects, truncated
    ones, and 30 random groups for comparison.

        qualitygate metrics model.pt --profile profile --real photos/ --score low_rate_0.1 --out metrics

    Without --real, path lengths and the discriminator's values are what is left. Numbers of different extractors, sample sizes or real
    sets must not be compared.
    """
    with output.only_result_on_stdout():
        from qualitygate import storage
        from qualitygate.errors import InputError
        from qualitygate.studies.metrics.run import PATH_KINDS, Request, measure, write_metrics

        if out is not None:
            storage.refuse_existing(out)
        elif track:
            raise InputError("What is logged has to lie on disk first", "--track without --out", "both", "give --out FOLDER")
        if gated is not None:
            profile, policy, seed, samples = _as_gated(gated, profile or policy)
        if unknown := sorted(set(path or ()) - PATH_KINDS.keys()):
            raise InputError("There are no such paths", ", ".join(unknown), f"some of {', '.join(PATH_KINDS)}")
        tools = _tools(
            source, chosen_device(device), tracking_uri, profile, policy, seed, real, (extractor, weights), (distance, distance_weights)
        )
        ranks = score or (tools.stage.policy.rules[0].score if tools.stage is not None else None)
        request = Request(samples, seed, ranks, group_share, path_samples, path_kinds=tuple(path or ()), extrapolate=fid_infinity)
        measured = measure(tools, request, output.reporter())
        where = None
        if out is not None:
            write_metrics(out, measured)
            if track:
                from qualitygate.cli.gate import send

                where = send(out, tracking_uri, experiment)
        if json:
            document = measured.report.model_dump(mode="json")
            output.emit_json({"out": None if out is None else str(out), "mlflow_run": where, **document})
        else:
            show(measured.report, out)


def show(report: MetricsReport, out: Path | None) -> None:
    """The papers' table, and in words whether their order holds."""
    from qualitygate.records.metrics import METRICS

    shown = [metric for name, metric in METRICS.items() if any(name in row.measurements for row in report.groups)]
    if shown:
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
    from qualitygate.records.metrics import METRICS

    yield "± is half of a 95 % interval; of the random groups, the standard deviation of one"
    for key, what in ((report.extractor, "features"), (report.distance, "path lengths")):
        if key is not None:
            yield f"{what}: {key}"
    for one in report.order:
        sign, values = ">" if METRICS[one.metric].higher_is_better else "<", (one.lowest, one.random, one.highest)
        shown = ", ".join(f"{value:.4g}" for value in values)
        yield f"{METRICS[one.metric].title}: lowest {sign} random {sign} highest {one.in_words} ({shown})"
    for name, metric in METRICS.items():
        found = (row.measurements[name] for row in report.groups if name in row.measurements)
        if notes := [one.note for one in found if one.value is None and one.note]:
            yield f"{metric.title}: {notes[0]}" + (f" (and {len(notes) - 1} other groups)" if len(notes) > 1 else "")
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


def _tools(
    source: Source,
    device: str,
    tracking_uri: str | None,
    profile: Path | None,
    policy: Path | None,
    seed: int,
    real: str | None,
    extractor: tuple[str, str | None],
    distance: tuple[str, str | None],
) -> Tools:
    """What was asked for, loaded. Features are made only where there are real images."""
    from qualitygate.features.registry import make_distance
    from qualitygate.studies.metrics.run import Tools

    generator, discriminator = load_both(source, device, tracking_uri)
    return Tools(
        generator,
        discriminator,
        extractor_of(*extractor, discriminator, device) if real is not None or extractor[0] == _INCEPTION else None,
        make_distance(distance[0], weights=distance[1], device=device) if distance[0] != "none" else None,
        real_images(real, generator.image_shape[1]) if real is not None else None,
        _stage(generator, profile, policy, seed) if profile is not None else None,
    )


def _as_gated(gated: Path, other: Path | None) -> tuple[Path, Path, int, int]:
    """Profile, policy, seed and number of samples of a gated set, so that the same samples are made and judged again."""
    import numpy as np

    from qualitygate import names
    from qualitygate.errors import InputError
    from qualitygate.produce.records import POLICY, PROFILE, SAMPLES, read_samples

    if other is not None:
        raise InputError("A gated set has a profile and a policy of its own", f"{other} as well", "--gated alone")
    columns, provenance = read_samples(gated / SAMPLES)
    count = len(columns[names.ID])
    if provenance.seed is None or not np.array_equal(columns[names.ID], np.arange(count)):
        raise InputError(
            f"The samples of {gated} cannot be made again from a number",
            "other ids, or latents of your own",
            "ids 0 … N − 1 and a seed",
            "give --profile, --seed and --samples instead",
        )
    return gated / PROFILE, gated / POLICY, provenance.seed, count


def _stage(generator: Generator, profile: Path, policy: Path | None, seed: int) -> GateStage:
    from qualitygate.gating.profile import load_profile
    from qualitygate.gating.stage import GateStage

    learned = load_profile(profile)
    return GateStage(generator, learned, load_policy_or_none(policy) or learned.policy, seed=seed)
