"""How well a score goes with the truth: the area under the ROC curve, and Spearman's rank correlation, with seeded intervals.

Intervals are percentiles of a bootstrap over the samples. A resample is a weight for each sample, so that everything is sorted once
and there is no loop over resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from qualitygate.errors import InputError
from qualitygate.latents import Purpose, uniforms
from qualitygate.metrics.intervals import LEVEL
from qualitygate.records import Interval

RESAMPLES = 200
"""Fewer than of a mean: many scores are looked at."""

_PURPOSE = Purpose.SUBSET + 16 * 4


@dataclass(frozen=True)
class _Ranked:
    """Values in order, equal ones together.

    Attributes:
        order: rows from the lowest value to the highest.
        starts: where in that order a group of equal values begins.
        group: group of each row.
    """

    order: np.ndarray
    starts: np.ndarray
    group: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> _Ranked:
        order = np.argsort(values, kind="stable")
        begins = np.concatenate(([True], values[order][1:] != values[order][:-1]))
        group = np.empty(len(values), dtype=np.int64)
        group[order] = np.cumsum(begins) - 1
        return cls(order, np.flatnonzero(begins), group)

    def sums(self, weights: np.ndarray) -> np.ndarray:
        """Sum of weights (B, N) over each group: (B, groups)."""
        return np.add.reduceat(weights[:, self.order], self.starts, axis=1)

    def middles(self, weights: np.ndarray) -> np.ndarray:
        """Weight below each row plus half of that of its equals, (B, N): the rank among so many copies of each row, but for an offset."""
        sums = self.sums(weights)
        return (np.cumsum(sums, axis=1) - sums / 2.0)[:, self.group]


def auc(scores: np.ndarray, bad: np.ndarray, *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Probability that a bad sample has the higher score than a good one, ties counting half; 0.5 is chance.

    Args:
        scores: float64 (N,), higher = worse; infinities are fine.
        bad: bool (N,).
        seed: of the interval.
        resamples: of the bootstrap; a resample of one kind alone does not count.

    >>> auc(np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, False, True, True])).value
    0.875

    Raises:
        InputError: NaN among the scores, or samples of one kind alone.
    """
    bad = np.asarray(bad, dtype=bool)
    if bad.all() or not bad.any():
        raise InputError("An AUC needs samples of both kinds", f"{int(bad.sum())} bad of {len(bad)}", "some of each")
    ranked = _Ranked.of(_checked(scores))

    def value(weights: np.ndarray) -> np.ndarray:
        worse, better = ranked.sums(weights * bad), ranked.sums(weights * ~bad)
        below = np.cumsum(better, axis=1) - better / 2.0
        with np.errstate(invalid="ignore", divide="ignore"):
            return (worse * below).sum(axis=1) / (worse.sum(axis=1) * better.sum(axis=1))

    return _interval(value, len(bad), seed, resamples)


def rank_correlation(first: np.ndarray, second: np.ndarray, *, seed: int = 0, resamples: int = RESAMPLES) -> Interval | None:
    """Spearman's correlation: that of the ranks, equal values sharing the middle one.

    >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 8.0, 27.0])).value
    1.0

    Returns:
        None where one side is constant, so that there is no correlation.

    Raises:
        InputError: NaN.
    """
    sides = [_Ranked.of(_checked(values)) for values in (first, second)]
    if any(len(one.starts) < 2 for one in sides):
        return None

    def value(weights: np.ndarray) -> np.ndarray:
        x, y = (_standardised(one.middles(weights), weights) for one in sides)
        return (weights * x * y).sum(axis=1)

    return _interval(value, len(np.asarray(first)), seed, resamples)


def _standardised(ranks: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Ranks (B, N) about their weighted mean, scaled so that the weighted sum of squares is 1; NaN where they are constant."""
    centred = ranks - (weights * ranks).sum(axis=1, keepdims=True) / weights.sum(axis=1, keepdims=True)
    length = np.sqrt((weights * centred**2).sum(axis=1, keepdims=True))
    return centred / np.where(length > 1e-9 * weights.sum(axis=1, keepdims=True), length, np.nan)


def _interval(value: Callable[[np.ndarray], np.ndarray], count: int, seed: int, resamples: int) -> Interval:
    whole = float(value(np.ones((1, count)))[0])
    found = value(_weights(count, seed, resamples))
    known = found[np.isfinite(found)]
    if not len(known):
        return Interval(whole, whole, whole)
    low, high = np.quantile(known, ((1.0 - LEVEL) / 2.0, (1.0 + LEVEL) / 2.0))
    return Interval(round(whole, 12), float(low), float(high))


@lru_cache(maxsize=4)
def _weights(count: int, seed: int, resamples: int) -> np.ndarray:
    """How often each resample holds each sample: float64 (resamples, count)."""
    drawn = (uniforms(seed, _PURPOSE, np.arange(resamples), count) * count).astype(np.int64)
    places = drawn + count * np.arange(resamples)[:, None]
    return np.bincount(places.ravel(), minlength=resamples * count).reshape(resamples, count).astype(np.float64)


def _checked(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if np.isnan(values).any():
        raise InputError("Samples without a score cannot be ranked", f"{int(np.isnan(values).sum())} NaN", "a score for each")
    return values
