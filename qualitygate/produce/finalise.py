"""The end of a run: what is not part of the set goes, and what is left is told in tables and a summary, whatever its size."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from torch import Tensor

from qualitygate import names, storage
from qualitygate.errors import StorageError
from qualitygate.expectations import run_suite
from qualitygate.generators.passes import Reporter
from qualitygate.policy.model import policy_yaml
from qualitygate.policy.scores import cla_layer
from qualitygate.policy.suite import POLICY_ID, identified, make_suite, merge_suite
from qualitygate.produce.executor import Executor
from qualitygate.produce.manifest import COUNTS, GATE, IMAGES, TABLE, Manifest, Shard
from qualitygate.produce.records import PROFILE, PROVENANCE, SAMPLES, Records
from qualitygate.produce.report import show
from qualitygate.produce.store import Store
from qualitygate.produce.watch import QUANTILES, RunState, RunTotals
from qualitygate.records import Provenance
from qualitygate.records.gate import ExpectationResult, GateSummary, RuleLimit, SuiteResult, Verdict
from qualitygate.scores.local_activation import LocalActivation, local_activation
from qualitygate.storage import image_name
from qualitygate.tracking.gated_set import POLICY, SUMMARY, UNITS

SUITE = "suite.json"
_BATCH = 65_536  # samples that the suite judges at once
_WHOLE = 100_000  # samples of one folder up to which its page shows all of them
_COLUMNS = ("start", "stop", "file", "bytes", "sha256", "records", "records_sha256", *COUNTS)


def finalise(executor: Executor, store: Store, manifest: Manifest, state: RunState, reporter: Reporter) -> GateSummary:
    """Withdraw what is beyond the end, write the tables, and the summary last of all."""
    profile, policy, shards = state.profile, state.policy, state.shards
    _withdraw_the_rest(store, manifest, shards)
    totals, files = RunTotals(), set[str]()
    table: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    for row in manifest.rows(shards):
        totals.add(row)
        files.update(row.files)
        for name in _COLUMNS:
            table[name].append(getattr(row, name))
    manifest.tidy(files)

    def suite_of(samples: int) -> dict[str, Any]:
        return merge_suite(make_suite(policy, [rule.score for rule in policy.rules], samples), profile.suite)

    store.put(POLICY, policy_yaml(policy).encode())
    store.put(SUITE, json.dumps(suite_of(totals.samples), indent=2).encode())
    for path in sorted(Path(executor.job.source.profile).iterdir()):
        store.put(f"{PROFILE}/{path.name}", path.read_bytes())
    records, applied = Records(store, table), profile.limits(policy)
    limits = (*applied.rules, *applied.recheck_limits.values())
    seconds: dict[str, float] = dict(sorted(totals.seconds.items()))
    if manifest.plan.form is None:
        quantiles, took = _one_folder(executor, store, records, limits, row.provenance, reporter)
        metrics, seconds = totals.shares() | totals.waiting() | quantiles, {"gate": totals.seconds[GATE], "exhibit": took}
        batches = _read_samples(store, totals.samples)
    else:
        store.put(TABLE, storage.table_bytes(table))
        store.put(UNITS, storage.table_bytes(_units(profile.units, None)))
        metrics, batches = totals.metrics(state.scales), records.tables(_BATCH)
    metrics |= {names.SECONDS: totals.seconds[GATE], names.IMAGES_PER_SECOND: totals.samples / totals.seconds[GATE]}
    summary = GateSummary(
        **{name: getattr(totals, name) for name in COUNTS},
        metrics=metrics,
        reasons=dict(sorted(totals.reasons.items())),
        limits=limits,
        seconds=seconds,
        suite=_judged(suite_of, batches, metrics, state),
        provenance=row.provenance,
        image_encoding=manifest.plan.image_encoding if manifest.plan.images else None,
    )
    store.put(SUMMARY, summary.model_dump_json(indent=2).encode())
    store.sweep()
    return summary


def _withdraw_the_rest(store: Store, manifest: Manifest, shards: list[Shard]) -> None:
    """Every id from the first to the last stays in exactly one shard, and no row of another shard."""
    for shard in set(manifest.done()) - set(shards):
        manifest.withdraw(shard)
    ends = [manifest.plan.start, *(shard.stop for shard in shards)]
    if [shard.start for shard in shards] != ends[:-1] or manifest.done() != shards:
        raise StorageError(
            "The manifest does not hold every id exactly once",
            f"{len(manifest.done())} shards",
            f"{len(shards)} shards, each where the one before ends",
            "is another run writing there? start this one again",
        )


# ---- one folder


def _one_folder(
    executor: Executor, store: Store, records: Records, limits: Sequence[RuleLimit], provenance: Provenance, reporter: Reporter
) -> tuple[dict[str, float], float]:
    """Write the tables and the exhibit of a set that is one folder. Returns its quantiles and the seconds of the exhibit."""
    source, count = executor.source, executor.job.plan.curvature
    start = time.perf_counter()
    survey, chosen, ends = records.survey(limits, _WHOLE, count)
    if survey.is_part:
        survey.put(store)
    show(source, records, survey, chosen, store)
    took = time.perf_counter() - start
    exact = None
    if count:
        with reporter.phase("exact CLA", len(ends)) as progress:
            generator = source.stage.generator
            exact = local_activation(generator, source.latents(ends), generator.presets.curvature, progress=progress)
    store.put(UNITS, storage.table_bytes(_units(source.stage.profile.units, exact)))
    with store.workplace() as place, storage.explained(place):
        _write_samples(place / SAMPLES, records, ends, exact, provenance)
        if executor.job.plan.images:
            _check_images(store, place / SAMPLES, executor.job.plan.image_encoding.suffix)
        quantiles = _quantiles(place / SAMPLES, source.stage.policy.detection.rates)
        store.adopt(place / SAMPLES, SAMPLES)
    return quantiles, took


def _write_samples(path: Path, records: Records, ids: np.ndarray, exact: LocalActivation | None, provenance: Provenance) -> None:
    """All records in one table, with the exact CLA of these ids; where CLA was screened, records keep what their verdicts came from."""
    scores = {} if exact is None else {names.cla(layer): column.numpy() for layer, column in exact.score.items()}
    writer = None
    with ExitStack() as opened:
        for _, table in records.tables(_BATCH):
            of_table = table[names.ID].to_numpy()
            rows = np.flatnonzero(np.isin(of_table, ids))
            for name in scores.keys() - set(table.column_names):
                column = np.full(len(table), np.nan)
                column[rows] = scores[name][np.searchsorted(ids, of_table[rows])]
                table = table.append_column(name, pa.array(column))
            table = table.replace_schema_metadata({PROVENANCE: provenance.model_dump_json()})
            writer = writer or opened.enter_context(pq.ParquetWriter(path, table.schema, compression="zstd"))
            writer.write_table(table)


def _check_images(store: Store, samples: Path, suffix: str) -> None:
    """There is an image for each sample that was kept, or it is a `StorageError`, and for no other, whoever left it there."""
    table = pq.read_table(samples, columns=[names.ID, names.VERDICT])
    kept = table[names.ID].to_numpy()[pc.not_equal(table[names.VERDICT], Verdict.REJECT.value).to_numpy()]
    there = np.array([int(Path(name).stem) for name, _ in store.entries(IMAGES)], dtype=np.int64)
    for one in np.setdiff1d(there, kept):
        store.remove(f"{IMAGES}/{image_name(int(one), suffix)}")
    if len(lost := np.setdiff1d(kept, there)):
        raise StorageError(
            "Images of the set are gone",
            f"none of {len(lost)} samples, the first of them {lost[0]}",
            f"{len(kept)} images",
            "start the same command again: their shards are made anew",
        )


def _read_samples(store: Store, samples: int) -> Iterator[tuple[int, pa.Table]]:
    """The table in batches, each with the number of rows that it must have."""
    with store.local(SAMPLES) as path, pq.ParquetFile(path) as file:
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

    def column(scores: Mapping[int, Tensor]) -> list[float | None]:
        means = {layer: values.mean(dim=0).tolist() for layer, values in scores.items()}
        keys = zip(units[names.LAYER], units[names.UNIT], strict=True)
        return [means[layer][unit] if layer in means else None for layer, unit in keys]

    cla, plain = ({}, {}) if exact is None else (exact.unit_score, exact.unit_curvature)
    return {**units, names.UNIT_CLA: column(cla), names.UNIT_CLA_PLAIN: column(plain)}


def _judged(
    suite_of: Callable[[int], dict[str, Any]], batches: Iterable[tuple[int, pa.Table]], metrics: Mapping[str, float], state: RunState
) -> SuiteResult:
    """The suite's verdict on a set: on its samples, never more of them at once than a batch, and on its one-row summary; with what the live
    checks said last. What was written by hand of samples every shard was asked when it was made."""
    found: dict[str, ExpectationResult] = {}
    for number, (samples, table) in enumerate(batches):
        suite = suite_of(samples)
        if number:
            suite["summary"] = []
        if state.plan.form is not None:
            suite["samples"] = [one for one in suite["samples"] if POLICY_ID in one["meta"]]
        for one in run_suite(suite, table.to_pandas(), pd.DataFrame([dict(metrics)])).results:
            before = found.get(one.id)
            if before is None or not one.success:
                found[one.id] = one
            elif before.success:
                found[one.id] = before.model_copy(update={"observed": "in every batch"})
    results = []
    for _, name, expectation in identified(suite_of(1)):  # names and hand-written ones are the same for any number of samples
        asked = {key: expectation[key] for key in ("type", "severity", "kwargs")}
        met = ExpectationResult(id=name, success=True, observed="in every shard", **asked)
        results.append(found.get(name) or state.broken.get(name) or met)
    return SuiteResult.of([*results, *(() if state.watched is None else state.watched.results)])
