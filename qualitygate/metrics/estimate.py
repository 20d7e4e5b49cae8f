"""Intervals of metrics: seeded, so that the same samples give the same interval, and without a loop over resamples.

What is drawn again are the samples of the group in question; what they are compared with (the real set, its radii) is taken as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from qualitygate.errors import InputError
from qualitygate.latents import Purpose, uniforms
from qualitygate.records import Interval

LEVEL = 0.95
RESAMPLES = 1000
BLOCKS = 10

_BOOTSTRAP, _BLOCKS, GROUPS = (Purpose.SUBSET + 16 * use for use in (1, 2, 3))
_NUMBERS = 2**22  # resampled values held at once


@dataclass(frozen=True)
class JackknifeInterval(Interval):
    """An interval with an estimate of how much too large the value is because the sample is small."""

    bias: float


def bootstrap_mean(values: np.ndarray, *, seed: int = 0, level: float = LEVEL, resamples: int = RESAMPLES) -> Interval:
    """Mean of values (N,) with the percentile interval of its bootstrap.

    Raises:
        InputError: no values.
    """
    return bootstrap_ratio(values, np.ones(len(values)), seed=seed, level=level, resamples=resamples)


def bootstrap_ratio(sums: np.ndarray, counts: np.ndarray, *, seed: int = 0, level: float = LEVEL, resamples: int = RESAMPLES) -> Interval:
    """``Σ sums / Σ counts`` over samples, both (N,): the mean of several values a sample, samples being what is drawn again.

    Raises:
        InputError: nothing was counted.
    """
    sums, counts = np.asarray(sums, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    if not counts.sum():
        raise InputError("There is nothing to take a mean of", f"{len(sums)} samples without a value", "at least one value")
    step = max(1, _NUMBERS // len(sums))
    means = [_resampled(sums, counts, seed, np.arange(start, min(start + step, resamples))) for start in range(0, resamples, step)]
    tail = (1.0 - level) / 2.0
    low, high = np.nanquantile(np.concatenate(means), (tail, 1.0 - tail))
    return Interval(float(sums.sum() / counts.sum()), float(low), float(high))


def jackknife(value: float, left_out: Sequence[float], *, level: float = LEVEL) -> JackknifeInterval:
    """Interval of a value of a whole set, from its values without each of B equal blocks of the set (delete-block jackknife).

    The standard error is ``√((B−1)/B · Σ(θᵢ − θ̄)²)``, the interval that of Student's t with B − 1 degrees of freedom around the value, and
    ``(B − 1)·(θ̄ − θ)`` the estimate of a bias that goes like 1/N.

    Raises:
        InputError: fewer than two blocks.
    """
    blocks = len(left_out)
    if blocks < 2:
        raise InputError("No interval from so few blocks", str(blocks), "at least 2")
    without = np.asarray(left_out, dtype=np.float64)
    error = float(np.sqrt((blocks - 1) / blocks * np.square(without - without.mean()).sum()))
    reach = student_t(level, blocks - 1) * error
    return JackknifeInterval(value, value - reach, value + reach, float((blocks - 1) * (without.mean() - value)))


def blocks_of(count: int, blocks: int = BLOCKS, *, seed: int = 0) -> list[np.ndarray]:
    """Rows 0 … count − 1, int64 (n,) each, dealt at random to blocks of nearly equal size, at most one block a row."""
    order = np.argsort(uniforms(seed, _BLOCKS, np.arange(count), 1)[:, 0], kind="stable")
    return [np.sort(part) for part in np.array_split(order, min(blocks, count))]


def student_t(level: float, freedom: int) -> float:
    """Two-sided quantile of Student's t, from that of the normal distribution by the Cornish-Fisher series (Abramowitz and Stegun 26.7.5).

    >>> round(student_t(0.95, 9), 2)
    2.26
    """
    z, v = NormalDist().inv_cdf((1.0 + level) / 2.0), float(freedom)
    g1 = (z**3 + z) / 4.0
    g2 = (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0
    g3 = (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / 384.0
    return z + g1 / v + g2 / v**2 + g3 / v**3


def _resampled(sums: np.ndarray, counts: np.ndarray, seed: int, ids: np.ndarray) -> np.ndarray:
    """Ratios of some resamples, each with a random stream of its own."""
    rows = (uniforms(seed, _BOOTSTRAP, ids, len(sums)) * len(sums)).astype(np.int64)
    with np.errstate(invalid="ignore", divide="ignore"):  # a resample of samples without a value
        return sums[rows].sum(axis=1) / counts[rows].sum(axis=1)


RANK_RESAMPLES = 200
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


def auc(scores: np.ndarray, bad: np.ndarray, *, seed: int = 0, resamples: int = RANK_RESAMPLES) -> Interval:
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


def rank_correlation(first: np.ndarray, second: np.ndarray, *, seed: int = 0, resamples: int = RANK_RESAMPLES) -> Interval | None:
    """Spearman's correlation of two columns (N,): that of the ranks, equal values sharing the middle one.

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
