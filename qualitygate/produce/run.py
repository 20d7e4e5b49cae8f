"""A production run: what is missing is made, every shard is looked at as it comes in, and in the end there is one true summary.

Nothing of the run is kept in memory but sums: rows are read from the manifest, whoever wrote them. So a run that was interrupted,
wherever and however, goes on when it is started again, and makes only what is missing.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing, suppress

from qualitygate.errors import StorageError
from qualitygate.gating.profile import Profile
from qualitygate.gating.stage import GateStage
from qualitygate.generators.passes import Reporter
from qualitygate.produce.cutting import cut_shard
from qualitygate.produce.finish import finish, finished
from qualitygate.produce.follow import Follower
from qualitygate.produce.forms import SHARD_SIZE, Form
from qualitygate.produce.manifest import Manifest, Plan, Shard, ShardRow
from qualitygate.produce.scales import Scales
from qualitygate.produce.store import open_store
from qualitygate.produce.team import Alone, Processes, Team
from qualitygate.produce.watch import Watch
from qualitygate.produce.worker import Order
from qualitygate.records.gate import GateSummary


def plan(
    stage: GateStage, *, ids: range | None = None, accepted: int | None = None, shard_size: int = SHARD_SIZE, form: Form = Form.WEBDATASET
) -> Plan:
    """What a stage is to make: a range of ids, or as many images as are asked for, from id 0."""
    provenance = stage.provenance
    return Plan(
        checkpoint_sha256=provenance.checkpoint_sha256,
        profile_id=provenance.profile_id,
        policy_hash=provenance.policy_hash,
        suite_hash=provenance.suite_hash,
        seed=stage.seed or 0,
        start=0 if ids is None else ids.start,
        stop=None if ids is None else ids.stop,
        accepted=accepted,
        shard_size=shard_size,
        form=form,
    )


def team(order: Order, device: str, workers: int) -> Team:
    """So many workers on this machine."""
    return Alone(order, device) if workers == 1 else Processes(order, device, workers)


def produce(order: Order, workers: Team, profile: Profile, *, reporter: Reporter | None = None) -> GateSummary:
    """Make a set, or what is missing of it.

    Args:
        order: what to make, and where.
        workers: who makes it.
        profile: the source's profile.
        reporter: shows progress.

    Returns:
        The summary, as it is written. Its suite failed where the run was stopped by a live check.

    Raises:
        InputError: the place holds something else, or a set under another plan.
        StorageError, CheckpointError, WorkerError: the run stopped; started again, it goes on.
    """
    store = open_store(order.place)
    manifest = Manifest(store, order.plan)
    manifest.begin()
    if (known := finished(store)) is not None:
        return known
    policy = order.source.policy or profile.policy
    follow = Follower(Watch(profile, policy), order.plan)
    try:
        with (reporter or Reporter()).phase(*_goal(order.plan)) as progress, workers:
            while not follow.failed and (wave := follow.wave()):
                with closing(_rows(manifest, workers, wave)) as rows:
                    follow.take(rows, progress)
    except (SystemExit, KeyboardInterrupt):
        with suppress(StorageError):
            store.sweep()  # a signal may have come in the midst of cleaning up
        raise
    if not follow.failed and follow.last is not None:
        last = cut_shard(store, manifest, Scales.of(profile, policy), follow.last, follow.wanted())
        follow.shards[-1] = last.shard
    return finish(store, manifest, order.source, profile, follow)


def _goal(plan: Plan) -> tuple[str, int]:
    if plan.accepted is not None:
        return "images", plan.accepted
    assert plan.stop is not None
    return "ids", plan.stop - plan.start


def _rows(manifest: Manifest, workers: Team, wave: list[Shard]) -> Generator[ShardRow, None, None]:
    """The rows of a wave, in the order of their ids: those that are there, and those that are made now."""
    done = set(manifest.done())
    missing = [shard for shard in wave if shard not in done]
    made = workers.work(missing) if missing else iter(())
    early: dict[Shard, ShardRow] = {}
    for shard in wave:
        if shard in done:
            yield from manifest.rows([shard])
            continue
        while shard not in early:
            row = next(made)
            early[row.shard] = row
        yield early.pop(shard)
