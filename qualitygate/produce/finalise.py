"""The end of a run: what is not part of the set goes, and what is left is told in tables and a summary, whatever its size."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qualitygate import names, storage
from qualitygate.errors import StorageError
from qualitygate.expectations import run_suite
from qualitygate.generators.passes import Reporter
from qualitygate.policy.model import policy_yaml
from qualitygate.policy.scores import cla_layer
from qualitygate.policy.suite import POLICY_ID, identified, make_suite, merge_suite
from qualitygate.produce.executor import Executor
from qualitygate.produce.manifest import GATE, IMAGES, TABLE, Manifest, Shard
from qualitygate.produce.records import PROFILE, PROVENANCE, SAMPLES, Records
from qualitygate.produce.report import show
from qualitygate.produce.store import Store
from qualitygate.produce.watch import QUANTILES, RunState, RunTotals
from qualitygate.records import Provenance
from qualitygate.records.gate import ExpectationResult, GateSummary, SuiteResult
from qualitygate.scores.local_activation import LocalActivation, local_activation
from qualitygate.tracking.gated_set import POLICY, SUMMARY, UNITS

SUITE = "suite.json"
_BATCH = 65_536  # samples that the suite judges at once
_WHOLE = 100_000  # samples of one folder up to which its page shows all of them
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


def finalise(executor: Executor, store: Store, manifest: Manifest, state: RunState, reporter: Reporter) -> GateSummary:
    """Withdraw what is beyond the end, write the tables, and the summary last of all.

    Raises:
        StorageError: the store does not take it; or, never to be seen, an id is missing or there twice.
        SuiteError: the suite could not be evaluated.
    """
    plan, profile, policy, shards = manifest.plan, state.profile, state.policy, state.shards
    _withdraw_the_rest(store, manifest, shards)
    totals, table, files = RunTotals(), [], set[str]()
    for row in manifest.rows(shards):
        totals.add(row)
        files.update(row.files)
        table.append({name: getattr(row, name) for name in _COLUMNS})
    manifest.tidy(files)

    def suite_of(samples: int) -> dict[str, Any]:
        return merge_suite(make_suite(policy, [rule.score for rule in policy.rules], samples), profile.suite)

    store.put(POLICY, policy_yaml(policy).encode())
    store.put(SUITE, json.dumps(suite_of(totals.samples), indent=2).encode())
    for path in sorted(Path(executor.job.source.profile).iterdir()):
        store.put(f"{PROFILE}/{path.name}", path.read_bytes())
    records = Records.of(store, manifest.rows(shards))
    limits = profile.limits(policy)
    summary = GateSummary(
        samples=totals.samples,
        accepted=totals.accepted,
        corrected=totals.corrected,
        rejected=totals.rejected,
        borderline=totals.borderline,
        metrics={names.SECONDS: totals.seconds[GATE], names.IMAGES_PER_SECOND: totals.samples / totals.seconds[GATE]},
        reasons=dict(sorted(totals.reasons.items())),
        limits=(*limits.rules, *limits.recheck_limits.values()),
        seconds=dict(sorted(totals.seconds.items())),
        suite=None,
        provenance=row.provenance,
    )
    if plan.form is None:
        summary, judged = _one_folder(executor, store, records, totals, summary, suite_of, reporter)
    else:
        store.put(TABLE, _parquet(pa.Table.from_pylist(table)))
        store.put(UNITS, _parquet(pa.table(_units(profile.units, None))))
        metrics = totals.metrics(state.scales) | summary.metrics
        judged = _judged(_without_written(suite_of), records.tables(_BATCH), metrics)
        summary = summary.model_copy(update={"metrics": metrics})
    summary = summary.model_copy(update={"suite": _with_shards(judged, suite_of(totals.samples), state)})
    store.put(SUMMARY, summary.model_dump_json(indent=2).encode())
    store.sweep()
    return summary


def _withdraw_the_rest(store: Store, manifest: Manifest, shards: list[Shard]) -> None:
    """Every id from the first to the last stays in exactly one shard, with no row of another shard, nor image."""
    rest = set(manifest.done()) - set(shards)
    for shard in rest:
        manifest.withdraw(shard)
    ends = [manifest.plan.start, *(shard.stop for shard in shards)]
    if rest and manifest.plan.form is None:
        for name in [name for name, _ in store.sizes(IMAGES) if int(Path(name).stem) >= ends[-1]]:
            store.remove(f"{IMAGES}/{name}")
    if [shard.start for shard in shards] != ends[:-1] or manifest.done() != shards:
        raise StorageError(
            "The manifest does not hold every id exactly once",
            f"{len(manifest.done())} shards",
            f"{len(shards)} shards, each where the one before ends",
            "is another run writing there? start this one again",
        )


# ---- one folder


def _one_folder(
    executor: Executor,
    store: Store,
    records: Records,
    totals: RunTotals,
    summary: GateSummary,
    suite_of: Callable[[int], dict[str, Any]],
    reporter: Reporter,
) -> tuple[GateSummary, SuiteResult]:
    """The tables and the exhibit of a set that is one folder, read from its shards; its summary, and the suite's verdict on it."""
    source, plan = executor.source, executor.job.plan
    start = time.perf_counter()
    survey, chosen, ends = records.survey(summary.limits, _WHOLE, plan.curvature)
    seconds = {"gate": totals.seconds[GATE], "exhibit": time.perf_counter() - start}
    exact = None
    if plan.curvature:
        with reporter.phase("exact CLA", len(ends)) as progress:
            layers = source.stage.generator.presets.curvature
            exact = local_activation(source.stage.generator, source.latents(ends), layers, progress=progress)
    with store.workplace() as place, storage.explained(place):
        _write_samples(place / SAMPLES, records, ends, exact, summary.provenance)
        metrics = totals.shares() | _quantiles(place / SAMPLES, source.stage.policy.detection.rates) | summary.metrics
        judged = _judged(suite_of, _read_samples(place / SAMPLES, totals.samples), metrics)
        start = time.perf_counter()
        if survey.is_part:
            survey.put(store)
        show(source, records, survey, chosen, store)
        seconds["exhibit"] += time.perf_counter() - start
        store.adopt(place / SAMPLES, SAMPLES)
    store.put(UNITS, _parquet(pa.table(_units(source.stage.profile.units, exact))))
    return summary.model_copy(update={"metrics": metrics, "seconds": seconds}), judged


def _write_samples(path: Path, records: Records, ids: np.ndarray, exact: LocalActivation | None, provenance: Provenance) -> None:
    """All records in one table, with the exact CLA of these ids; where CLA was screened, records keep what their verdicts came from."""
    scores = {} if exact is None else {names.cla(layer): column.numpy() for layer, column in exact.score.items()}
    writer = None
    try:
        for _, table in records.tables(_BATCH):
            of_table = table[names.ID].to_numpy()
            rows = np.flatnonzero(np.isin(of_table, ids))
            for name in scores.keys() - set(table.column_names):
                column = np.full(len(table), np.nan)
                column[rows] = scores[name][np.searchsorted(ids, of_table[rows])]
                table = table.append_column(name, pa.array(column))
            table = table.replace_schema_metadata({PROVENANCE: provenance.model_dump_json()})
            writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _read_samples(path: Path, samples: int) -> Iterator[tuple[int, pa.Table]]:
    """The table in batches, each with the number of rows that it must have."""
    with pq.ParquetFile(path) as file:
        for number, batch in enumerate(file.iter_batches(_BATCH)):
            yield min(_BATCH, samples - number * _BATCH), pa.table(batch)


def _quantiles(path: Path, rates: Iterable[float]) -> dict[str, float]:
    """Of the counts over layers and of CLA, one column in memory at a time."""
    scores = [*map(names.low_rate, rates), names.NEVER_SEEN]
    metrics = {}
    for name in (*scores, *(one for one in pq.read_schema(path).names if cla_layer(one) is not None)):
        known = pq.read_table(path, columns=[name])[name].to_numpy()
        known = known[np.isfinite(known)]
        if len(known):
            metrics.update({names.quantile(name, q): float(np.quantile(known, q)) for q in QUANTILES})
    return metrics


# ---- what both have


def _units(units: Mapping[str, Any], exact: LocalActivation | None) -> dict[str, Any]:
    """The profile's table of units, with the unit scores of exact CLA where it was computed (null elsewhere): the profile's own unless
    the set has some."""
    if exact is None and names.UNIT_CLA in units:
        return dict(units)
    cla: list[float | None] = [None] * len(units[names.UNIT])
    plain = list(cla)
    if exact is not None:
        unit_score = {layer: values.mean(dim=0).tolist() for layer, values in exact.unit_score.items()}
        curvature = {layer: values.mean(dim=0).tolist() for layer, values in exact.unit_curvature.items()}
        for row, (layer, unit) in enumerate(zip(units[names.LAYER], units[names.UNIT], strict=True)):
            if layer in unit_score:
                cla[row], plain[row] = unit_score[layer][unit], curvature[layer][unit]
    return {**units, names.UNIT_CLA: cla, names.UNIT_CLA_PLAIN: plain}


def _judged(
    suite_of: Callable[[int], dict[str, Any]], batches: Iterable[tuple[int, pa.Table]], metrics: Mapping[str, float]
) -> SuiteResult:
    """The suite's verdict on a set: on its samples, never more of them at once than a batch, and on its one-row summary."""
    import pandas

    results: dict[str, ExpectationResult] = {}
    for number, (samples, table) in enumerate(batches):
        suite = suite_of(samples)
        if number:
            suite["summary"] = []
        for one in run_suite(suite, table.to_pandas(), pandas.DataFrame([dict(metrics)])).results:
            if number and one.success:
                one = results[one.id].model_copy(update={"observed": "in every batch"} if results[one.id].success else {})
            results[one.id] = one
    return _suite_result(results.values())


def _without_written(suite_of: Callable[[int], dict[str, Any]]) -> Callable[[int], dict[str, Any]]:
    """Without what was written by hand of samples: every shard was asked that when it was made."""

    def generated(samples: int) -> dict[str, Any]:
        suite = suite_of(samples)
        return {**suite, "samples": [one for one in suite["samples"] if POLICY_ID in one["meta"]]}

    return generated


def _with_shards(judged: SuiteResult, suite: dict[str, Any], state: RunState) -> SuiteResult:
    """The verdict with what every shard met, and with what the live checks said last."""
    found = {one.id: one for one in judged.results}
    written = [
        state.broken.get(name) or ExpectationResult(id=name, success=True, observed="in every shard", **_about(one))
        for table, name, one in identified(suite)
        if table == "samples" and name not in found
    ]
    return _suite_result([*written, *judged.results, *(() if state.watched is None else state.watched.results)])


def _about(expectation: Mapping[str, Any]) -> dict[str, Any]:
    return {key: expectation[key] for key in ("type", "severity", "kwargs")}


def _suite_result(results: Iterable[ExpectationResult]) -> SuiteResult:
    every = tuple(results)
    evaluated = sum(one.note is None for one in every)
    failed = any(one.severity == "critical" and not one.success for one in every)
    return SuiteResult(passed=not failed and evaluated == len(every), evaluated=evaluated, results=every)


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
