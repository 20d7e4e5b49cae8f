"""The end of a run: what is not part of the set goes, and what is left is told in a table of shards and a summary."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from qualitygate import names
from qualitygate.errors import StorageError
from qualitygate.gating.profile import Profile
from qualitygate.policy.model import Policy, policy_yaml
from qualitygate.policy.suite import identified, make_suite, merge_suite
from qualitygate.produce.follow import Follower
from qualitygate.produce.gated_set import POLICY, PROFILE, SUITE, SUMMARY, UNITS, judge
from qualitygate.produce.manifest import TABLE, Manifest, Shard
from qualitygate.produce.scales import Scales
from qualitygate.produce.store import Store
from qualitygate.produce.tally import Tally
from qualitygate.produce.worker import GATE, Source
from qualitygate.records import Provenance
from qualitygate.records.gate import ExpectationResult, GateSummary, SuiteResult

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


def finish(store: Store, manifest: Manifest, source: Source, profile: Profile, follow: Follower) -> GateSummary:
    """Withdraw what is beyond the end, write the tables, and the summary last of all.

    Raises:
        StorageError: the store does not take it; or, never to be seen, an id is missing or there twice.
    """
    policy = source.policy or profile.policy
    shards = list(follow.shards)
    for shard in set(manifest.done()) - set(shards):
        manifest.withdraw(shard)
    _check_once(shards, manifest)
    tally, table, files = Tally(), [], set[str]()
    for row in manifest.rows(shards):
        tally.add(row)
        files.update(row.files)
        table.append({name: getattr(row, name) for name in _COLUMNS})
    manifest.tidy(files)
    store.put(TABLE, _parquet(table))
    suite = merge_suite(make_suite(policy, [rule.score for rule in policy.rules], tally.samples), profile.suite)
    _put_about(store, source, profile, policy, suite)
    summary = _summary(tally, profile, policy, row.provenance)
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


def _summary(tally: Tally, profile: Profile, policy: Policy, provenance: Provenance) -> GateSummary:
    """The set in numbers. Seconds are those of all workers while they generate and write: images per second are of one worker."""
    limits = profile.limits(policy)
    metrics = tally.metrics(Scales.of(profile, policy))
    metrics |= {names.SECONDS: tally.seconds[GATE], names.IMAGES_PER_SECOND: tally.samples / tally.seconds[GATE]}
    return GateSummary(
        samples=tally.samples,
        accepted=tally.accepted,
        corrected=tally.corrected,
        rejected=tally.rejected,
        borderline=tally.borderline,
        metrics=metrics,
        reasons=dict(sorted(tally.reasons.items())),
        limits=(*limits.rules, *limits.judged.values()),
        seconds=dict(sorted(tally.seconds.items())),
        suite=None,
        provenance=provenance,
    )


def _outcome(suite: dict[str, Any], metrics: dict[str, float], follow: Follower) -> SuiteResult:
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
