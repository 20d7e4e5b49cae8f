"""The papers' Table 1, Table 2 and figure 6 for one checkpoint: every metric of every group, chance beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qualitygate import names
from qualitygate.generators.execution import Progress, silent
from qualitygate.metrics.groups import random_groups
from qualitygate.metrics.intervals import LEVEL, student_t
from qualitygate.metrics.measures import Ruler, Subject
from qualitygate.records.metrics import GroupOrder, GroupRow, Histogram, Measurement, metric

ORDERED = (names.PRECISION, names.REALISM, names.PPL)
"""Metrics that the papers report to be better in the lowest group than at random, and worse in the highest."""


@dataclass(frozen=True)
class Group:
    """Rows of a subject that are to be measured.

    Attributes:
        name: as in `qualitygate.names`.
        what: which samples they are, in words.
        subject: the population.
        rows: (n,).
    """

    name: str
    what: str
    subject: Subject
    rows: np.ndarray


def group_row(ruler: Ruler, group: Group) -> GroupRow:
    """The measured group."""
    return GroupRow(group=group.name, samples=len(group.rows), what=group.what, measurements=ruler.measure(group.subject, group.rows))


def random_row(
    ruler: Ruler, subject: Subject, size: int, *, path_rows: np.ndarray, path_size: int, seed: int = 0, progress: Progress = silent
) -> GroupRow:
    """Chance: the mean over random groups, and as ``low`` … ``high`` where 95 % of such groups fall.

    Args:
        ruler: what to measure with.
        subject: the population.
        size: of each group.
        path_rows: rows whose path lengths were measured whatever their score.
        path_size: how many measured samples a group to be compared has.
        seed: of the groups.
        progress: called with 1 for each group.
    """
    bare = replace(ruler, intervals=False)
    without_paths = replace(subject, population=replace(subject.population, lengths=None))
    values: list[dict[str, Measurement]] = []
    for rows in random_groups(subject.population.count, size, seed=seed):
        values.append(bare.measure(without_paths, rows))
        progress(1)
    if subject.population.lengths is not None and 0 < path_size < len(path_rows):
        lengths = subject.population.lengths[path_rows]
        drawn = random_groups(len(path_rows), path_size, len(values), seed=seed + 1)
        values = [one | {names.PPL: bare.path_length(lengths[rows])} for one, rows in zip(values, drawn, strict=True)]
    return _summed_up(values, size)


def orders(rows: Sequence[GroupRow]) -> tuple[GroupOrder, ...]:
    """The papers' order, for each metric that all three groups have."""
    by_name = {row.group: row for row in rows}
    if not {names.LOWEST, names.RANDOM, names.HIGHEST} <= by_name.keys():
        return ()
    found = (
        _order(name, *(by_name[group].measurements.get(name) for group in (names.LOWEST, names.RANDOM, names.HIGHEST))) for name in ORDERED
    )
    return tuple(one for one in found if one is not None)


def histogram(values: Mapping[str, np.ndarray], bins: int = 40) -> Histogram | None:
    """Counts of the values of each group on common bins; None without finite values."""
    finite = {group: column[np.isfinite(column)] for group, column in values.items()}
    everything = np.concatenate(list(finite.values())) if finite else np.empty(0)
    if not len(everything):
        return None
    edges = np.histogram_bin_edges(everything, bins)
    counts = {group: tuple(np.histogram(column, edges)[0].tolist()) for group, column in finite.items()}
    return Histogram(edges=tuple(edges.tolist()), counts=counts)


def _summed_up(values: Sequence[Mapping[str, Measurement]], size: int) -> GroupRow:
    measurements, spread = {}, {}
    for name, first in values[0].items():
        known = np.array([one[name].value for one in values if one[name].value is not None], dtype=np.float64)
        if len(known) < 2:
            measurements[name] = first
            continue
        mean, deviation = float(known.mean()), float(known.std(ddof=1))
        reach = student_t(LEVEL, len(known) - 1) * deviation
        note = f"mean of {len(known)} random groups; 95 % of such groups lie between the bounds"
        measurements[name] = first.model_copy(update={"value": mean, "low": mean - reach, "high": mean + reach, "note": note})
        spread[name] = deviation
    return GroupRow(
        group=names.RANDOM, samples=size, what=f"{len(values)} random groups: mean, and spread", measurements=measurements, spread=spread
    )


def _order(name: str, lowest: Measurement | None, chance: Measurement | None, highest: Measurement | None) -> GroupOrder | None:
    if lowest is None or chance is None or highest is None:
        return None
    low, middle, high = lowest.value, chance.value, highest.value
    if low is None or middle is None or high is None or chance.low is None or chance.high is None:
        return None
    better = metric(name).higher_is_better
    holds = low > middle > high if better else low < middle < high
    outside = (low > chance.high and high < chance.low) if better else (low < chance.low and high > chance.high)
    return GroupOrder(metric=name, lowest=low, random=middle, highest=high, holds=holds, clear=holds and outside)
