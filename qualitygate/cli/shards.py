"""``qualitygate gate --shards``: what the options ask for, as a job to the production stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qualitygate.cli import output
from qualitygate.cli.options import chosen_device, load, load_policy_or_none

if TYPE_CHECKING:
    from qualitygate.cli.source import Source
    from qualitygate.produce.executor import Executor
    from qualitygate.produce.request import Form
    from qualitygate.produce.worker import Job
    from qualitygate.records.gate import GateSummary


@dataclass(frozen=True)
class Wanted:
    """What is to be made, and by how many."""

    form: Form
    ids: range | None
    accepted: int | None
    shard_size: int
    workers: int | None
    cluster: str | None


def make_shards(
    source: Source,
    profile: Path,
    policy: Path | None,
    out: str,
    seed: int,
    wanted: Wanted,
    device: str,
    tracking_uri: str | None,
    experiment: str | None,
) -> tuple[GateSummary, str | None]:
    """Make a production set, or what is missing of it.

    Returns:
        Its summary, and the MLflow run it was logged in: None without ``experiment``, or where MLflow was not reached.
    """
    from qualitygate.gating.profile import load_profile
    from qualitygate.produce import worker
    from qualitygate.produce.run import plan, produce
    from qualitygate.produce.shard_report import ensure_report

    file = Path(source.checkpoint)
    what = worker.Source(
        generator=partial(load, source, tracking_uri=tracking_uri),
        file=file.absolute() if file.is_file() else None,
        profile=profile.absolute(),
        policy=load_policy_or_none(policy),
        seed=seed,
    )
    make = _executor(wanted, device)
    asked = plan(what.open("cpu"), ids=wanted.ids, accepted=wanted.accepted, shard_size=wanted.shard_size, form=wanted.form)
    job = worker.Job(what, asked, out)
    summary = produce(job, make(job), load_profile(profile), reporter=output.reporter())
    ensure_report(job, chosen_device(device if wanted.cluster is None else "auto"), output.reporter())
    return summary, None if experiment is None else _send(out, tracking_uri, experiment)


def _executor(wanted: Wanted, device: str) -> Callable[[Job], Executor]:
    """Workers on this machine, or on a cluster; what is not there is said before anything is loaded."""
    if wanted.cluster is not None:
        from qualitygate.produce.executor import RayExecutor, connect

        found = connect(device, wanted.workers)
        return lambda job: RayExecutor(job, *found)
    import torch

    from qualitygate.produce.run import executor

    device = chosen_device(device)
    workers = wanted.workers or (torch.cuda.device_count() if device == "cuda" else 1)
    return lambda job: executor(job, device, workers)


def _send(out: str, tracking_uri: str | None, experiment: str) -> str | None:
    from qualitygate.errors import public
    from qualitygate.produce.tracked import push_stored

    sent = push_stored(out, tracking_uri, experiment)
    if sent.error is not None:
        output.say(
            f"warning: MLflow was not reached, the verdicts stand: {sent.error}\n  what to do: `qualitygate sync {public(out)}` later"
        )
    return sent.run_id
