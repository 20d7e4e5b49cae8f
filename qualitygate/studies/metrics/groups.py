"""Groups of samples, and the papers' Table 1, Table 2 and figure 6 for one checkpoint: every metric of every group, chance beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.stats import t

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.generators.passes import Progress, silent
from qualitygate.latents import Purpose, uniforms
from qualitygate.metrics.estimate import TAIL
from qualitygate.metrics.measured_set import MeasuredSet
from qualitygate.metrics.metric import Evaluator
from qualitygate.records.metrics import GroupOrder, GroupRow, Histogram, Measurement, MetricsReport, metric

RANDOM_GROUPS = 30
"""Random groups that stand for chance, as in the papers."""
_GROUPS = Purpose.SUBSET + 16 * 3
SHARE = 0.1
"""Share of the samples in a group, as in the papers: 1,000 of 10,000."""


def group_size(count: int, share: float = SHARE) -> int:
    size = round(count * share)
    if not 0.0 < share <= 0.5 or not size:
        raise InputError(
            "A group must be a part of the samples",
            f"a share of {share:g} of {count} samples",
            "a share in (0, 0.5] that comes to at least one sample",
        )
    return size


def extremes(scores: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows with the lowest and with the highest scores (N,), ``size`` of each, at most half of N, in rising order; of equal scores the
    earlier row is the lower, and infinite is highest."""
    if np.isnan(scores).any():
        missing = int(np.isnan(scores).sum())
        raise InputError(
            "Samples without a score cannot be ranked",
            f"{missing} of {len(scores)} have none",
            "a score for each",
            "choose a score that every sample has",
        )
    order = np.argsort(scores, kind="stable")
    return np.sort(order[:size]), np.sort(order[len(order) - size :])


def random_groups(count: int, size: int, groups: int = RANDOM_GROUPS, *, seed: int = 0) -> list[np.ndarray]:
    """Rows of random groups, each drawn without replacement from all ``count`` samples."""
    draws = uniforms(seed, _GROUPS, np.arange(groups), count)
    return [np.sort(np.argpartition(draw, size - 1)[:size]) for draw in draws]


ORDERED = (names.PRECISION, names.REALISM, names.PPL)
"""Metrics that the papers report to be better in the lowest group than at random, and worse in the highest."""


def group_row(evaluator: Evaluator, name: str, what: str, measured: MeasuredSet, rows: np.ndarray | None = None) -> GroupRow:
    """A measured group: its name, which samples it is in words, the set it belongs to and its rows (n,), by default all."""
    count = measured.count if rows is None else len(rows)
    return GroupRow(group=name, samples=count, what=what, measurements=evaluator.measure(measured, rows))


def random_row(
    evaluator: Evaluator,
    measured: MeasuredSet,
    size: int,
    groups: int = RANDOM_GROUPS,
    *,
    among: np.ndarray | None = None,
    path_rows: Sequence[int] | np.ndarray = (),
    path_size: int = 0,
    seed: int = 0,
    progress: Progress = silent,
) -> GroupRow:
    """Chance: the mean over random groups of a size, drawn among some rows, and as ``low`` … ``high`` where 95 % of such groups fall.

    Path lengths are those of ``path_size`` samples, as many as a group to be compared has of them, out of ``path_rows``: rows of which
    they were measured whatever their score. Progress is called with 1 for each group.
    """
    bare, among = replace(evaluator, intervals=False), np.arange(measured.count) if among is None else among
    values: list[dict[str, Measurement]] = []
    for places in random_groups(len(among), size, groups, seed=seed):
        values.append(bare.measure(measured, np.sort(among[places]), leave_out=(names.PPL,)))
        progress(1)
    if measured.lengths is not None and 0 < path_size < len(path_rows):
        for one, places in zip(values, random_groups(len(path_rows), path_size, groups, seed=seed + 1), strict=True):
            one[names.PPL] = bare.measurement(names.PPL, measured.group(np.asarray(path_rows)[places]))
    measurements, spread = dict(values[0]), {}
    for name, first in values[0].items():
        known = np.array([one[name].value for one in values if one[name].value is not None], dtype=np.float64)
        if len(known) >= 2:
            mean, spread[name] = float(known.mean()), float(known.std(ddof=1))
            reach = float(t.isf(TAIL, len(known) - 1)) * spread[name]
            note = f"mean of {len(known)} random groups; 95 % of such groups lie between the bounds"
            measurements[name] = first.model_copy(update={"value": mean, "low": mean - reach, "high": mean + reach, "note": note})
    what = f"{len(values)} random groups: mean, and spread"
    return GroupRow(group=names.RANDOM, samples=size, what=what, measurements=measurements, spread=spread)


def orders(rows: Sequence[GroupRow]) -> tuple[GroupOrder, ...]:
    """The papers' order, for each metric that all three groups have."""
    by_name = {row.group: row.measurements for row in rows}
    found = []
    for name in ORDERED if {names.LOWEST, names.RANDOM, names.HIGHEST} <= by_name.keys() else ():
        lowest, chance, highest = (by_name[group].get(name) for group in (names.LOWEST, names.RANDOM, names.HIGHEST))
        if lowest is None or chance is None or highest is None:
            continue
        low, middle, high = lowest.value, chance.value, highest.value
        if low is None or middle is None or high is None or chance.low is None or chance.high is None:
            continue
        if metric(name).higher_is_better:
            holds, outside = low > middle > high, low > chance.high and high < chance.low
        else:
            holds, outside = low < middle < high, low < chance.low and high > chance.high
        found.append(GroupOrder(metric=name, lowest=low, random=middle, highest=high, holds=holds, clear=holds and outside))
    return tuple(found)


def histogram(values: Mapping[str, np.ndarray], bins: int = 40) -> Histogram | None:
    """Counts of the values of each group on common bins; None without finite values."""
    finite = {group: column[np.isfinite(column)] for group, column in values.items()}
    everything = np.concatenate(list(finite.values())) if finite else np.empty(0)
    if not len(everything):
        return None
    edges = np.histogram_bin_edges(everything, bins)
    counts = {group: tuple(np.histogram(column, edges)[0].tolist()) for group, column in finite.items()}
    return Histogram(edges=tuple(edges.tolist()), counts=counts)


def group_table(report: MetricsReport) -> dict[str, list[Any]]:
    """One row a group and metric: everything that is known of the number."""
    rows = [
        {
            "group": row.group,
            "metric": name,
            "value": one.value,
            "low": one.low,
            "high": one.high,
            "spread": row.spread.get(name),
            "higher_is_better": metric(name).higher_is_better,
            "samples": one.samples,
            "real_samples": one.real_samples,
            "extractor": one.extractor,
            "note": one.note,
        }
        for row in report.groups
        for name, one in row.measurements.items()
    ]
    columns = list(rows[0]) if rows else ["group", "metric", "value"]
    return {column: [row[column] for row in rows] for column in columns}
