"""``qualitygate gate``: make images and keep the good ones."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qualitygate.cli import GATE_FAILED, output
from qualitygate.cli.options import (
    Device,
    Experiment,
    Json,
    PolicyFile,
    ProfileFolder,
    SampleSeed,
    Track,
    Tracking,
    load,
    load_policy_or_none,
)
from qualitygate.cli.source import Source, reads_generator
from qualitygate.produce.request import SHARD_SIZE, Form

if TYPE_CHECKING:
    from qualitygate.records.gate import GateSummary

NAME = "gate"


class Cluster(StrEnum):
    """Where workers may be."""

    RAY = "ray"


@reads_generator
def run(
    source: Source,
    profile: ProfileFolder,
    out: Annotated[
        str,
        typer.Option(
            help="Folder for the gated set; must not exist yet. With --shards also s3://bucket/path; a set begun there goes on.",
            show_default=False,
        ),
    ],
    ids: Annotated[str | None, typer.Option(help="Sample ids: START:STOP, or how many from 0.", show_default=False)] = None,
    seed: SampleSeed = 1,
    latents: Annotated[
        Path | None, typer.Option("--latents", help="Your own latents instead of ids: .npz with z or w, and labels.", show_default=False)
    ] = None,
    policy: PolicyFile = None,
    curvature: Annotated[int, typer.Option(help="Exact CLA for so many samples with the lowest and the highest score.")] = 0,
    images: Annotated[bool, typer.Option(help="Write the images of accepted and corrected samples.")] = True,
    shards: Annotated[
        Form | None, typer.Option(help="Write shards, at any scale: webdataset, parquet or folder.", show_default=False)
    ] = None,
    accepted: Annotated[
        int | None, typer.Option(min=1, help="With --shards: so many images, accepted or corrected, instead of --ids.", show_default=False)
    ] = None,
    shard_size: Annotated[int, typer.Option(min=1, help="With --shards: ids in a shard.")] = SHARD_SIZE,
    workers: Annotated[
        int | None, typer.Option(min=1, help="With --shards: processes; default: one for each GPU, else one.", show_default=False)
    ] = None,
    cluster: Annotated[Cluster | None, typer.Option(help="With --shards: where the workers are, if not here.", show_default=False)] = None,
    track: Track = True,
    tracking_uri: Tracking = None,
    experiment: Experiment = "qualitygate",
    exit_zero: Annotated[bool, typer.Option("--exit-zero", help="Exit with 0 even if the batch fails its suite.")] = False,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Accept, correct or reject every sample, write what is kept, and judge the batch.

    Every id gets exactly one record in samples.parquet. Rejected samples are never finished. Exit code 1 means that the batch
    failed its expectation suite.

    With `--shards` the set may be of any size: as many images as are wanted, made by several workers, in shards with a manifest. Started
    again, the same command makes what is missing. The run stops with exit code 1 as soon as it drifts from its profile.

        qualitygate gate model.pt --profile profile --shards webdataset --accepted 1000000 --workers 8 --out s3://bucket/set
    """
    with output.only_result_on_stdout():
        if shards is not None:
            from qualitygate.cli.shards import Wanted, make_shards

            _refuse({"--latents": latents, "--curvature": curvature, "--no-images": not images}, "without --shards only")
            wanted = Wanted(
                shards,
                None if accepted is not None and ids is None else _ids(ids, accepted, "--accepted"),
                accepted,
                shard_size,
                workers,
                cluster,
            )
            summary, where = make_shards(source, profile, policy, out, seed, wanted, device, tracking_uri, experiment if track else None)
            tell(summary, out, where, json)
            raise typer.Exit(verdict_code(summary, exit_zero))
        _refuse({"--accepted": accepted, "--workers": workers, "--cluster": cluster, "--out s3://…": "://" in out}, "with --shards only")
        from qualitygate import storage
        from qualitygate.checkpoints.digest import file_sha256
        from qualitygate.gating.profile import load_profile
        from qualitygate.gating.stage import GateStage
        from qualitygate.latents import load_latents
        from qualitygate.produce.gated_set import gate_to_folder

        folder = Path(out)
        storage.refuse_existing(folder)
        chosen = None if latents is not None and ids is None else _ids(ids, latents, "--latents")
        own = None if latents is None else load_latents(latents)
        learned = load_profile(profile)
        stage = GateStage(
            load(source, device, tracking_uri),
            learned,
            load_policy_or_none(policy) or learned.policy,
            seed=None if own is not None else seed,
            latents_sha256=None if latents is None else file_sha256(latents),
        )
        summary = gate_to_folder(
            stage, folder, chosen, latents=own, curvature=curvature, profile_folder=profile, write_images=images, reporter=output.reporter()
        )
        where = send(folder, tracking_uri, experiment) if track else None
        tell(summary, out, where, json)
        raise typer.Exit(verdict_code(summary, exit_zero))


def tell(summary: GateSummary, out: str, where: str | None, json: bool) -> None:
    """The result, for machines or for people."""
    if json:
        output.emit_json({"out": out, "mlflow_run": where, **summary.model_dump(mode="json")})
    else:
        show(summary, out)


def send(folder: Path, tracking_uri: str | None, experiment: str) -> str | None:
    """Log a gated set to MLflow; says so where that has to wait. Returns the run's id."""
    from qualitygate.tracking.spool import push

    sent = push(folder, tracking_uri, experiment)
    if sent.error is not None:
        output.say(f"warning: MLflow was not reached, the verdicts stand: {sent.error}\n  what to do: `qualitygate sync {folder}` later")
    return sent.run_id


def show(summary: GateSummary, out: Path | str) -> None:
    """The summary of a gated set as tables."""
    metrics = summary.metrics
    output.table(
        f"{summary.samples:,} samples of {summary.provenance.checkpoint}",
        ("", "samples", "share"),
        [
            ("accepted", summary.accepted, f"{summary.accepted / summary.samples:.1%}"),
            ("corrected", summary.corrected, f"{summary.corrected / summary.samples:.1%}"),
            ("rejected", summary.rejected, f"{summary.rejected / summary.samples:.1%}"),
        ],
    )
    output.table(
        "Limits", ("rule", "score", "limit", "from"), [(rule.rule, rule.score, rule.limit, rule.source) for rule in summary.limits]
    )
    assert summary.suite is not None
    for failure in summary.suite.failures:
        output.emit(f"{failure.severity}: {failure.id} ({failure.type}) observed {failure.observed} {failure.note or ''}".rstrip())
    verdict = "passed" if summary.suite.passed else "FAILED"
    output.emit(f"Batch {verdict}: {summary.suite.evaluated} expectations, {metrics['images_per_second']:.0f} samples a second. {out}")


def verdict_code(summary: GateSummary, exit_zero: bool) -> int:
    """0 if the batch passed its suite, else 1."""
    passed = summary.suite is not None and summary.suite.passed
    return 0 if passed or exit_zero else GATE_FAILED


def _refuse(given: Mapping[str, object], when: str) -> None:
    """Options that do not go with the others."""
    from qualitygate.errors import InputError

    if used := [name for name, value in given.items() if value]:
        raise InputError(f"{', '.join(used)} cannot be used here", "an option that would have no effect", when)


def _ids(text: str | None, instead: object, option: str) -> range:
    """The ids that are asked for; ``option``, if it was given, stands in their place."""
    from qualitygate.errors import InputError

    needed = "START:STOP or COUNT, for example --ids 0:1000"
    if text is None or instead is not None:
        raise InputError("Say which samples to gate", f"neither --ids nor {option}" if text is None else f"both --ids and {option}", needed)
    start, _, stop = text.rpartition(":")
    if not (start or "0").isdigit() or not stop.isdigit() or int(start or 0) >= int(stop):
        raise InputError("These are no sample ids", repr(text), needed)
    return range(int(start or 0), int(stop))
