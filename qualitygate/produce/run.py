"""A production run: what is missing is made, every shard is looked at as it comes in, and in the end there is one true summary.

Nothing of the run is kept in memory but sums: rows are read from the manifest, whoever wrote them. So a run that was interrupted,
wherever and however, goes on when it is started again, and makes only what is missing.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qualitygate import names, storage
from qualitygate.errors import StorageError
from qualitygate.gating.profile import Profile
from qualitygate.gating.stage import GateStage
from qualitygate.generators.passes import Progress, Reporter
from qualitygate.policy.model import Policy, policy_yaml
from qualitygate.policy.suite import identified, make_suite, merge_suite
from qualitygate.produce.executor import Executor, InProcess, ProcessPool
from qualitygate.produce.gated_set import POLICY, PROFILE, SUITE, SUMMARY, UNITS, judge
from qualitygate.produce.manifest import GATE, RECORDS, SHARDS, TABLE, Manifest, Plan, Shard, ShardRow
from qualitygate.produce.request import SHARD_SIZE, Form
from qualitygate.produce.shards import read_shard, shard_writer
from qualitygate.produce.store import Store, open_store
from qualitygate.produce.watch import RunTotals, Scales, Watch
from qualitygate.produce.worker import File, Job, Source, counted, file_fields, image_file
from qualitygate.records import Provenance
from qualitygate.records.gate import ExpectationResult, GateSummary, SuiteResult, Verdict


def cut_shard(store: Store, manifest: Manifest, scales: Scales, row: ShardRow, images: int) -> ShardRow:
    """The row of the same shard up to the id of its ``images``-th kept image. The longer one is left for `finalise` to withdraw.

    Args:
        store: where the set is kept.
        manifest: of the set.
        scales: of its scores.
        row: the shard's.
        images: how many are wanted of it, from 1.
    """
    if images == row.kept:
        return row
    with store.workplace() as place, storage.explained(place):
        table = pq.read_table(store.fetch(row.records, place))
        kept = np.asarray(table[names.VERDICT]) != Verdict.REJECT
        count = int(np.flatnonzero(kept)[images - 1]) + 1
        shard = Shard(row.start, row.start + count)
        table = table.slice(0, count)
        pq.write_table(table, place / "cut.parquet", compression="zstd")
        records = File.of(place / "cut.parquet", RECORDS, shard, ".parquet")
        file = _cut_images(store, manifest, row, shard, place)
        shorter = row.model_copy(
            update={
                "stop": shard.stop,
                **file_fields(file),
                **counted(_columns(table), scales),
                "records": records.name,
                "records_sha256": records.sha256,
            }
        )
        for one in (file, records):
            store.adopt(one.path, one.name)
        return manifest.commit(shorter)


def _cut_images(store: Store, manifest: Manifest, row: ShardRow, shard: Shard, place: Path) -> File:
    assert row.file is not None, "a shard with images has a file of them"
    form = manifest.plan.form
    with shard_writer(form, place / SHARDS) as writer:
        for entry in read_shard(form, store.fetch(row.file, place)):
            if entry.id < shard.stop:
                writer.add(entry)
    return image_file(place / SHARDS, shard, form)


def _columns(table: pa.Table) -> dict[str, object]:
    return {name: table[name].to_pylist() for name in table.column_names}


@dataclass
class RunState:
    """Follows the rows of a plan, in the order of their ids.

    Attributes:
        shards: those that were followed.
        last: row of the last one.
        totals: sums over them.
        watched: what the live checks said of the last one.
        broken: expectations on single samples that some shard did not meet, by id.
    """

    watch: Watch
    plan: Plan
    shards: list[Shard] = field(default_factory=list)
    last: ShardRow | None = None
    totals: RunTotals = field(default_factory=RunTotals)
    watched: SuiteResult | None = None
    broken: dict[str, ExpectationResult] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether the run is to stop: a critical expectation was not met, or one could not be evaluated."""
        broken = any(one.severity == "critical" or one.note is not None for one in self.broken.values())
        return broken or (self.watched is not None and not self.watched.passed)

    @property
    def complete(self) -> bool:
        """Whether there are as many images as were asked for."""
        return self.plan.accepted is not None and self.totals.kept >= self.plan.accepted

    def next_shards(self) -> list[Shard]:
        """The next shards that are needed for certain, as far as can be known; none if nothing is missing.

        For a number of images: as many as would be enough if the share that is kept stayed what it is (at first: if all were kept).
        """
        followed, plan = len(self.shards), self.plan
        if plan.accepted is None:
            assert plan.stop is not None
            count = math.ceil((plan.stop - plan.start) / plan.shard_size)
        elif self.complete:
            count = followed
        else:
            share = self.totals.kept / self.totals.samples if followed else 1.0
            more = (plan.accepted - self.totals.kept) / (plan.shard_size * max(share, 1e-9))
            count = followed + math.ceil(min(more, 2 * followed + plan.accepted / plan.shard_size))
        return [plan.shard(index) for index in range(followed, count)]

    def update(self, rows: Iterable[ShardRow], progress: Progress) -> None:
        """Follow these rows, until there are enough images or a live check fails."""
        for row in rows:
            before = self.totals.copy()
            self.totals.add(row)
            self.watched = self.watch.look(row, before, self.totals)
            self.broken = {one.id: one for one in row.results} | self.broken
            self.shards.append(row.shard)
            self.last = row
            progress(row.samples if self.plan.accepted is None else row.kept)
            if self.failed or self.complete:
                return

    def wanted(self) -> int:
        """Images of the last shard that are wanted."""
        assert self.last is not None
        surplus = 0 if self.plan.accepted is None else max(0, self.totals.kept - self.plan.accepted)
        return self.last.kept - surplus


_COLUMNS = (
    "start",
    "stop",
    "file",
    "bytes",
    "sha256",
    "records",
    "records_sha256",
    "samples",
    "accepted",
    "corrected",
    "rejected",
    "borderline",
)


def finished(store: Store) -> GateSummary | None:
    """The summary of a run that has ended."""
    data = store.read(SUMMARY)
    return None if data is None else GateSummary.model_validate_json(data)


def finalise(store: Store, manifest: Manifest, source: Source, profile: Profile, follow: RunState) -> GateSummary:
    """Withdraw what is beyond the end, write the tables, and the summary last of all.

    Raises:
        StorageError: the store does not take it; or, never to be seen, an id is missing or there twice.
    """
    policy = source.policy or profile.policy
    shards = list(follow.shards)
    for shard in set(manifest.done()) - set(shards):
        manifest.withdraw(shard)
    _check_once(shards, manifest)
    totals, table, files = RunTotals(), [], set[str]()
    for row in manifest.rows(shards):
        totals.add(row)
        files.update(row.files)
        table.append({name: getattr(row, name) for name in _COLUMNS})
    manifest.tidy(files)
    store.put(TABLE, _parquet(table))
    suite = merge_suite(make_suite(policy, [rule.score for rule in policy.rules], totals.samples), profile.suite)
    _put_about(store, source, profile, policy, suite)
    summary = _summary(totals, profile, policy, row.provenance)
    summary = summary.model_copy(update={"suite": _outcome(suite, summary.metrics, follow)})
    store.put(SUMMARY, summary.model_dump_json(indent=2).encode())
    store.sweep()
    return summary


def _check_once(shards: list[Shard], manifest: Manifest) -> None:
    """Every id from the first to the last in exactly one shard, and no row of another shard."""
    ends = [manifest.plan.start, *(shard.stop for shard in shards)]
    if [shard.start for shard in shards] != ends[:-1] or manifest.done() != shards:
        raise StorageError(
            "The manifest does not hold every id exactly once",
            f"{len(manifest.done())} shards",
            f"{len(shards)} shards, each where the one before ends",
            "is another run writing there? start this one again",
        )


def _put_about(store: Store, source: Source, profile: Profile, policy: Policy, suite: dict[str, Any]) -> None:
    """By what the set was judged, as in a gated set: policy, suite, units and the profile."""
    store.put(POLICY, policy_yaml(policy).encode())
    store.put(SUITE, json.dumps(suite, indent=2).encode())
    nothing = [None] * len(profile.units[names.UNIT])
    store.put(UNITS, _parquet({**profile.units, names.UNIT_CLA: nothing, names.UNIT_CLA_PLAIN: nothing}))
    for path in sorted(Path(source.profile).iterdir()):
        store.put(f"{PROFILE}/{path.name}", path.read_bytes())


def _summary(totals: RunTotals, profile: Profile, policy: Policy, provenance: Provenance) -> GateSummary:
    """The set in numbers. Seconds are those of all workers while they generate and write: images per second are of one worker."""
    limits = profile.limits(policy)
    metrics = totals.metrics(Scales.of(profile, policy))
    metrics |= {names.SECONDS: totals.seconds[GATE], names.IMAGES_PER_SECOND: totals.samples / totals.seconds[GATE]}
    return GateSummary(
        samples=totals.samples,
        accepted=totals.accepted,
        corrected=totals.corrected,
        rejected=totals.rejected,
        borderline=totals.borderline,
        metrics=metrics,
        reasons=dict(sorted(totals.reasons.items())),
        limits=(*limits.rules, *limits.recheck_limits.values()),
        seconds=dict(sorted(totals.seconds.items())),
        suite=None,
        provenance=provenance,
    )


def _outcome(suite: dict[str, Any], metrics: dict[str, float], follow: RunState) -> SuiteResult:
    """What every shard met, what the whole set meets, and what the live checks said last."""
    of_samples = [follow.broken.get(name) or _met(name, one) for table, name, one in identified(suite) if table == "samples"]
    of_set = judge({**suite, "samples": []}, {}, metrics)
    parts = [of_set] if follow.watched is None else [of_set, follow.watched]
    results = (*of_samples, *(result for part in parts for result in part.results))
    evaluated = sum(result.note is None for result in results)
    failed = any(result.severity == "critical" and not result.success for result in results)
    return SuiteResult(passed=not failed and evaluated == len(results), evaluated=evaluated, results=results)


def _met(name: str, expectation: dict[str, Any]) -> ExpectationResult:
    return ExpectationResult(
        id=name,
        type=expectation["type"],
        severity=expectation["severity"],
        success=True,
        observed="in every shard",
        kwargs=expectation["kwargs"],
    )


def _parquet(columns: Mapping[str, Any] | list[dict[str, Any]]) -> bytes:
    table = pa.Table.from_pylist(columns) if isinstance(columns, list) else pa.table(dict(columns))
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


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


def executor(job: Job, device: str, workers: int) -> Executor:
    """So many workers on this machine."""
    return InProcess(job, device) if workers == 1 else ProcessPool(job, device, workers)


def produce(job: Job, workers: Executor, profile: Profile, *, reporter: Reporter | None = None) -> GateSummary:
    """Make a set, or what is missing of it.

    Args:
        job: what to make, and where.
        workers: who makes it.
        profile: the source's profile.
        reporter: shows progress.

    Returns:
        The summary, as it is written. Its suite failed where the run was stopped by a live check.

    Raises:
        InputError: the place holds something else, or a set under another plan.
        StorageError, CheckpointError, WorkerError: the run stopped; started again, it goes on.
    """
    store = open_store(job.place)
    manifest = Manifest(store, job.plan)
    manifest.begin()
    if (known := finished(store)) is not None:
        return known
    policy = job.source.policy or profile.policy
    follow = RunState(Watch(profile, policy), job.plan)
    try:
        with (reporter or Reporter()).phase(*_goal(job.plan)) as progress, workers:
            while not follow.failed and (wave := follow.next_shards()):
                with closing(_rows(manifest, workers, wave)) as rows:
                    follow.update(rows, progress)
    except (SystemExit, KeyboardInterrupt):
        with suppress(StorageError):
            store.sweep()  # a signal may have come in the midst of cleaning up
        raise
    if not follow.failed and follow.last is not None:
        last = cut_shard(store, manifest, Scales.of(profile, policy), follow.last, follow.wanted())
        follow.shards[-1] = last.shard
    return finalise(store, manifest, job.source, profile, follow)


def _goal(plan: Plan) -> tuple[str, int]:
    if plan.accepted is not None:
        return "images", plan.accepted
    assert plan.stop is not None
    return "ids", plan.stop - plan.start


def _rows(manifest: Manifest, workers: Executor, wave: list[Shard]) -> Generator[ShardRow, None, None]:
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
