"""``qualitygate gate``: make images and keep the good ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qualitygate.cli import GATE_FAILED, output
from qualitygate.cli.options import (
    Device,
    Experiment,
    Json,
    PolicyFile,
    Tracking,
    load,
    load_policy_or_none,
)
from qualitygate.cli.source import Source, reads_generator

if TYPE_CHECKING:
    from qualitygate.records import GateSummary

NAME = "gate"


@reads_generator
def run(
    source: Source,
    profile: Annotated[Path, typer.Option("--profile", help="Profile made by `calibrate`.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the gated set; must not exist yet.", show_default=False)],
    ids: Annotated[
        str | None, typer.Option(help="Sample ids: START:STOP, or how many from 0.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the samples; any but the calibration's.")] = 1,
    latents: Annotated[
        Path | None,
        typer.Option(
            "--latents", help="Your own latents instead of ids: .npz with z or w, and labels.", show_default=False
        ),
    ] = None,
    policy: PolicyFile = None,
    curvature: Annotated[
        int, typer.Option(help="Exact CLA for so many samples with the lowest and the highest score.")
    ] = 0,
    images: Annotated[bool, typer.Option(help="Write the images of accepted and corrected samples.")] = True,
    track: Annotated[bool, typer.Option(help="Log to MLflow. Never changes a verdict.")] = True,
    tracking_uri: Tracking = None,
    experiment: Experiment = "qualitygate",
    exit_zero: Annotated[
        bool, typer.Option("--exit-zero", help="Exit with 0 even if the batch fails its suite.")
    ] = False,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Accept, correct or reject every sample, write what is kept, and judge the batch.

    Every id gets exactly one record in samples.parquet. Rejected samples are never finished. Exit code 1 means that the batch
    failed its expectation suite.
    """
    with output.only_result_on_stdout():
        from qualitygate import storage
        from qualitygate.checkpoints.digest import file_sha256
        from qualitygate.gating.profile import load_profile
        from qualitygate.gating.stage import GateStage
        from qualitygate.latents import load_latents
        from qualitygate.production.gated_set import gate_to_folder

        storage.refuse_existing(out)
        chosen = None if latents is not None and ids is None else _ids(ids, latents)
        own = None if latents is None else load_latents(latents)
        learned = load_profile(profile)
        stage = GateStage(
            load(source, device, tracking_uri),
            learned,
            load_policy_or_none(policy) or learned.policy,
            seed=None if own is not None else seed,
            latents_sha256=None if latents is None else file_sha256(latents),
        )
        summary = gate_to_folder(stage, out, chosen, latents=own, curvature=curvature, profile_folder=profile,
                                 write_images=images, reporter=output.reporter())  # fmt: skip
        where = send(out, tracking_uri, experiment) if track else None
        if json:
            output.emit_json({"out": str(out), "mlflow_run": where, **summary.model_dump(mode="json")})
        else:
            show(summary, out)
        raise typer.Exit(verdict_code(summary, exit_zero))


def send(folder: Path, tracking_uri: str | None, experiment: str) -> str | None:
    """Log a gated set to MLflow; says so where that has to wait. Returns the run's id."""
    from qualitygate.tracking.spool import push

    sent = push(folder, tracking_uri, experiment)
    if sent.error is not None:
        output.say(
            f"warning: MLflow was not reached, the verdicts stand: {sent.error}\n  what to do: `qualitygate sync {folder}` later"
        )
    return sent.run_id


def show(summary: GateSummary, out: Path) -> None:
    """The summary of a gated set as tables."""
    metrics = summary.metrics
    output.table(f"{summary.samples:,} samples of {summary.provenance.checkpoint}", ("", "samples", "share"), [
        ("accepted", summary.accepted, f"{summary.accepted / summary.samples:.1%}"),
        ("corrected", summary.corrected, f"{summary.corrected / summary.samples:.1%}"),
        ("rejected", summary.rejected, f"{summary.rejected / summary.samples:.1%}"),
    ])  # fmt: skip
    output.table("Limits", ("rule", "score", "limit", "from"),
                 [(rule.rule, rule.score, rule.limit, rule.source) for rule in summary.limits])  # fmt: skip
    assert summary.suite is not None
    for failure in summary.suite.failures:
        output.emit(
            f"{failure.severity}: {failure.id} ({failure.type}) observed {failure.observed} {failure.note or ''}".rstrip()
        )
    verdict = "passed" if summary.suite.passed else "FAILED"
    output.emit(
        f"Batch {verdict}: {summary.suite.evaluated} expectations, {metrics['images_per_second']:.0f} samples a second. {out}"
    )


def verdict_code(summary: GateSummary, exit_zero: bool) -> int:
    """0 if the batch passed its suite, else 1."""
    passed = summary.suite is not None and summary.suite.passed
    return 0 if passed or exit_zero else GATE_FAILED


def _ids(text: str | None, latents: Path | None) -> range:
    from qualitygate.errors import InputError

    needed = "START:STOP or COUNT, for example --ids 0:1000"
    if text is None or latents is not None:
        raise InputError(
            "Say which samples to gate",
            "neither --ids nor --latents" if text is None else "both --ids and --latents",
            needed,
        )
    start, _, stop = text.rpartition(":")
    if not (start or "0").isdigit() or not stop.isdigit() or int(start or 0) >= int(stop):
        raise InputError("These are no sample ids", repr(text), needed)
    return range(int(start or 0), int(stop))
