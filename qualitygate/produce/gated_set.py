"""A gated set on disk: records, images, exhibit, units, summary, and the suite's verdict on all of it. One folder, written in one step."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from qualitygate import names, storage
from qualitygate.errors import InputError
from qualitygate.gating import exhibit
from qualitygate.gating.stage import GatedBlock, GateStage
from qualitygate.generators.passes import Reporter
from qualitygate.latents import Latents
from qualitygate.policy.decide import Decisions
from qualitygate.policy.model import policy_yaml
from qualitygate.policy.scores import cla_layer
from qualitygate.produce.showing import write_exhibit, write_figures
from qualitygate.records import Provenance
from qualitygate.records.gate import GateSummary, SampleRecord, SuiteResult, Verdict
from qualitygate.scores.local_activation import LocalActivation, local_activation

SAMPLES, SUMMARY, UNITS, POLICY, SUITE, IMAGES, PROFILE = (
    "samples.parquet",
    "summary.json",
    "units.parquet",
    "policy.yaml",
    "suite.json",
    "images",
    "profile",
)
REPORT = "report.html"
PROVENANCE = "qualitygate.provenance"
_SUMMARY_QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)


def gate_to_folder(
    stage: GateStage,
    out: str | Path,
    ids: range | Sequence[int] | None = None,
    *,
    latents: Latents | None = None,
    curvature: int = 0,
    profile_folder: Path | None = None,
    write_images: bool = True,
    reporter: Reporter | None = None,
) -> GateSummary:
    """Gate samples into a folder.

    Args:
        stage: generator, profile and policy.
        out: a new or empty folder.
        ids: sample ids; or give ``latents``.
        latents: the user's own latents.
        curvature: exact CLA for so many samples with the lowest and so many with the highest deciding score; 0 for none.
        profile_folder: the profile's folder, copied along so that the set can be decided again on its own.
        write_images: whether images are written; records and verdicts always are.
        reporter: shows progress.

    Raises:
        OutputError: the folder holds something already.
        StorageError: writing failed; nothing is left behind.
        SuiteError: the suite could not be evaluated.
    """
    reporter = reporter or Reporter()
    total = len(ids) if ids is not None else len(latents or ())
    if not total:
        raise InputError("There is nothing to gate", "no ids", "at least one sample")
    with storage.new_folder(out) as folder:
        started = time.perf_counter()
        table = _gate_all(stage, folder, ids, latents, total, write_images, reporter)
        seconds = {"gate": time.perf_counter() - started}
        rows = table.rows()
        score = stage.policy.rules[0].score
        exact = _curvature_of_extremes(stage, table, rows[score], curvature, reporter)
        # where CLA was screened, the records keep what their verdicts came from
        rows.update({name: column for name, column in (exact.columns if exact else {}).items() if name not in rows})
        storage.write_table(folder / SAMPLES, rows, {PROVENANCE: stage.provenance.model_dump_json()})
        storage.write_table(folder / UNITS, _units(stage, exact))
        storage.write_bytes(folder / POLICY, policy_yaml(stage.policy).encode())
        if profile_folder is not None:
            shutil.copytree(profile_folder, folder / PROFILE)
        started = time.perf_counter()
        verdicts = np.asarray(rows[names.VERDICT])
        chosen = exhibit.choose(rows[score], verdicts, rows[names.BORDERLINE])
        shown = np.concatenate(list(chosen.values()))
        records = [table.record(int(row)) for row in shown]
        write_exhibit(stage, table.latents(shown), records, exhibit.roles(chosen), folder)
        write_figures(stage, rows, verdicts, folder)
        seconds["exhibit"] = time.perf_counter() - started
        summary = _summary(stage, rows, total, seconds)
        suite = stage.suite(total)
        storage.write_bytes(folder / SUITE, json.dumps(suite, indent=2).encode())
        summary = summary.model_copy(update={"suite": judge(suite, rows, summary.metrics)})
        storage.write_bytes(folder / SUMMARY, summary.model_dump_json(indent=2).encode())
        write_report(folder)
    return summary


def write_report(folder: Path) -> None:
    """The page that people open, from what lies in the folder."""
    from qualitygate.produce.reading import read_gated
    from qualitygate.reports.gate_report import report_page
    from qualitygate.reports.material import Material

    storage.write_bytes(folder / REPORT, report_page(Material(read_gated(folder))).encode())


def judge(suite: Mapping[str, Any], rows: Mapping[str, Any], metrics: Mapping[str, float]) -> SuiteResult:
    """The suite's verdict on a set: its table of samples, and its one-row summary."""
    import pandas

    from qualitygate.expectations import run_suite

    return run_suite(suite, pandas.DataFrame(dict(rows)), pandas.DataFrame([dict(metrics)]))


def set_metrics(rows: Mapping[str, Any], scores: Sequence[str]) -> dict[str, float]:
    """Shares of the verdicts and quantiles of the scores, under their promised names."""
    verdict = np.asarray(rows[names.VERDICT])
    share = {one: float((verdict == one).mean()) for one in Verdict}
    metrics = {
        names.ASKED: float(len(verdict)),
        names.ACCEPTED_SHARE: share[Verdict.ACCEPT],
        names.CORRECTED_SHARE: share[Verdict.CORRECT],
        names.REJECTED_SHARE: share[Verdict.REJECT],
        names.YIELD: share[Verdict.ACCEPT] + share[Verdict.CORRECT],
        names.BORDERLINE_SHARE: float(np.mean(rows[names.BORDERLINE])),
    }
    for name in scores:
        known = np.asarray(rows[name], dtype=np.float64)
        known = known[np.isfinite(known)]
        if len(known):
            metrics.update({names.quantile(name, q): float(np.quantile(known, q)) for q in _SUMMARY_QUANTILES})
    return metrics


def sample_rows(blocks: Sequence[GatedBlock], seed: int | None) -> dict[str, Any]:
    """The columns of ``samples.parquet``: one row for every sample of these blocks, in their order."""
    decisions = [block.decisions for block in blocks]
    labels = [block.latents.labels for block in blocks]
    count = sum(len(block.latents) for block in blocks)
    columns = sorted({name for block in blocks for name in block.columns} - {names.MOVED})
    return {
        names.ID: np.concatenate([block.latents.ids for block in blocks]),
        names.SEED: [seed] * count,
        names.LABEL: [
            None if part is None else label
            for part, block in zip(labels, blocks, strict=True)
            for label in (part.tolist() if part is not None else [None] * len(block.latents))
        ],
        names.VERDICT: [str(verdict) for part in decisions for verdict in part.verdict],
        names.STRENGTH: _null_for_nan(np.concatenate([part.strength for part in decisions])),
        names.MOVED: _null_for_nan(np.concatenate([block.columns[names.MOVED] for block in blocks])),
        names.BORDERLINE: np.concatenate([part.borderline for part in decisions]),
        names.REASONS: [list(reasons) for part in decisions for reasons in part.reasons],
        **{name: np.concatenate([_column(block, name) for block in blocks]) for name in columns},
    }


def recorded_block(stage: GateStage, table: pa.Table) -> GatedBlock:
    """The block that rows of records came from, without its images: what `sample_rows` wrote, read again.

    Args:
        stage: the gate they went through, with a seed.
        table: whole rows of records.
    """
    scores = [field.name for field in table.schema if pa.types.is_floating(field.type) and field.name != names.STRENGTH]
    columns = {name: _nan_for_null(table[name]) for name in dict.fromkeys((*scores, names.MOVED))}
    decisions = Decisions(
        verdict=np.array(table[names.VERDICT].to_pylist()),
        strength=_nan_for_null(table[names.STRENGTH]),
        reasons=[tuple(reasons) for reasons in table[names.REASONS].to_pylist()],
        borderline=np.array(table[names.BORDERLINE].to_pylist(), dtype=bool),
    )
    return GatedBlock(stage.latents(table[names.ID].to_numpy()), columns, decisions, {})


def read_samples(path: str | Path) -> tuple[dict[str, np.ndarray], Provenance]:
    """Columns and provenance of a gated set's ``samples.parquet``.

    Raises:
        InputError: not such a file.
    """
    table, metadata = storage.read_table(path)
    if PROVENANCE not in metadata:
        raise InputError(
            f"{path} is not a table of gated samples",
            f"a table of {', '.join(table.column_names[:5])} …",
            "samples.parquet as `qualitygate gate` writes it",
        )
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
    return columns, Provenance.model_validate_json(metadata[PROVENANCE])


def _gate_all(
    stage: GateStage,
    folder: Path,
    ids: range | Sequence[int] | None,
    latents: Latents | None,
    total: int,
    write_images: bool,
    reporter: Reporter,
) -> _Table:
    table = _Table(stage)
    with reporter.phase("gate", total) as progress, storage.ImageFolder(folder / IMAGES) as images:
        for block in stage.blocks(ids, latents):
            for row, image in sorted(block.images.items()) if write_images else ():
                images.add(int(block.latents.ids[row]), image)
            table.add(block)
            progress(len(block.latents))
    return table


class _Table:
    """Everything that was found out about the samples, by row."""

    def __init__(self, stage: GateStage) -> None:
        self._stage = stage
        self._blocks: list[GatedBlock] = []

    def add(self, block: GatedBlock) -> None:
        block.images.clear()  # written already
        self._blocks.append(block)

    def latents(self, rows: np.ndarray) -> Latents:
        """Latents of the given rows."""
        return Latents.concatenated([block.latents for block in self._blocks])[rows]

    def record(self, row: int) -> SampleRecord:
        block, place = divmod(row, self._stage.block_size)  # every block but the last is full
        return self._stage.record(self._blocks[block], place)

    def rows(self) -> dict[str, Any]:
        return sample_rows(self._blocks, self._stage.seed)


def _column(block: GatedBlock, name: str) -> np.ndarray:
    """A block's column; a strength that no sample of the block needed was not tried there."""
    empty = 0.0 if names.is_tried(name) else np.nan
    return block.columns.get(name, np.full(len(block.latents), empty))


def _nan_for_null(column: pa.ChunkedArray) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in column.to_pylist()], dtype=np.float64)


def _null_for_nan(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


@dataclass(frozen=True)
class _Exact:
    """Exact CLA of some rows, as columns and as unit scores."""

    columns: dict[str, np.ndarray]
    local: LocalActivation


def _curvature_of_extremes(stage: GateStage, table: _Table, score: np.ndarray, count: int, reporter: Reporter) -> _Exact | None:
    if not count:
        return None
    order = np.argsort(np.where(np.isfinite(score), score, np.inf), kind="stable")
    rows = np.unique(np.concatenate((order[:count], order[-count:])))
    layers = stage.generator.presets.curvature
    with reporter.phase("exact CLA", len(rows)) as progress:
        local = local_activation(stage.generator, table.latents(rows), layers, progress=progress)
    columns = {}
    for layer in layers:
        column = np.full(len(score), np.nan)
        column[rows] = local.score[layer].numpy()
        columns[names.cla(layer)] = column
    return _Exact(columns, local)


def _units(stage: GateStage, exact: _Exact | None) -> dict[str, Any]:
    """The profile's table of units, with the unit scores of exact CLA where it was computed (null elsewhere): the profile's own unless
    the set has some."""
    table = dict(stage.profile.units)
    if exact is None and names.UNIT_CLA in table:
        return table
    cla: list[float | None] = [None] * len(table[names.UNIT])
    plain = list(cla)
    if exact is not None:
        unit_score = {layer: values.mean(dim=0).tolist() for layer, values in exact.local.unit_score.items()}
        curvature = {layer: values.mean(dim=0).tolist() for layer, values in exact.local.unit_curvature.items()}
        for row, (layer, unit) in enumerate(zip(table[names.LAYER], table[names.UNIT], strict=True)):
            if layer in unit_score:
                cla[row], plain[row] = unit_score[layer][unit], curvature[layer][unit]
    return {**table, names.UNIT_CLA: cla, names.UNIT_CLA_PLAIN: plain}


def _summary(stage: GateStage, rows: Mapping[str, Any], total: int, seconds: dict[str, float]) -> GateSummary:
    verdicts = Counter(rows[names.VERDICT])
    reasons = Counter(reason for of_sample in rows[names.REASONS] for reason in of_sample)
    totals = [*map(names.low_rate, stage.policy.detection.rates), names.NEVER_SEEN]
    metrics = set_metrics(rows, [*totals, *(name for name in rows if cla_layer(name) is not None)])
    metrics[names.SECONDS] = seconds["gate"]
    metrics[names.IMAGES_PER_SECOND] = total / seconds["gate"]
    return GateSummary(
        samples=total,
        accepted=verdicts[Verdict.ACCEPT],
        corrected=verdicts[Verdict.CORRECT],
        rejected=verdicts[Verdict.REJECT],
        borderline=int(np.sum(rows[names.BORDERLINE])),
        metrics=metrics,
        reasons=dict(sorted(reasons.items())),
        limits=(*stage.limits.rules, *stage.limits.recheck_limits.values()),
        seconds=seconds,
        suite=None,
        provenance=stage.provenance,
    )
