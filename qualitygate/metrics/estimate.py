"""A number of a sample, how it varies when the sample is drawn again, and the interval that follows: the only engine of intervals.

An `Estimate` keeps its draws. Draws of two estimates made with equal seeds and counts are of the same rows, so that the difference of
two checkpoints on the same latents is taken draw by draw, and what both have in common cancels. What is drawn again are the generated
samples; what they are compared with (the real set, its radii) is taken as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Literal, Self

import numpy as np
from scipy.stats import norm, rankdata, t

from qualitygate.errors import InputError
from qualitygate.latents import Purpose, uniforms
from qualitygate.records import Interval

TAIL = 0.025
"""Chance beyond each end of a 95 % interval."""
_BLOCKS, _ROWS = Purpose.SUBSET + 16 * 2, Purpose.SUBSET + 16 * 4
_NUMBERS = 2**22  # resampled rows held at once
_LEAST_DRAWS = 1000
_RANK_DRAWS = 200  # many scores are ranked
_nothing = partial(np.empty, 0)

Statistic = Callable[[np.ndarray], np.ndarray]
"""Rows of resamples, int64 (draws, N), to the statistic of each, float64 (draws,)."""


class NotKnownError(Exception):
    """A number that cannot be told, of this checkpoint or of so few samples; the message says why."""


@dataclass(frozen=True)
class Resampling:
    """How numbers are drawn again: two samples with equal seeds and counts are drawn together. ``draws`` are the resamples of a bootstrap;
    ``tail`` is the chance that is left beyond each end of an interval."""

    seed: int = 0
    draws: int = _LEAST_DRAWS
    tail: float = TAIL

    @classmethod
    def for_tail(cls, tail: float, seed: int) -> Self:
        """With so many draws that ten lie beyond each end of an interval with these tails."""
        return cls(seed, max(_LEAST_DRAWS, math.ceil(10 / tail)), tail)


@dataclass(frozen=True)
class Estimate:
    """A number of one checkpoint, and how it varies.

    Attributes:
        value: of the whole sample.
        samples: how many samples it is made of.
        draws: float64 (draws,); empty where there is no interval.
        kind: what they are: values of resamples, the value without each block of the sample, or the lowest and the highest it can be.
        step: by how much one sample can change it, where that is bounded; a sample in which all are alike leaves this much unknown.
        blocks: the value without each block of the sample, float64 (blocks,): what a record keeps of it.
        left_out: samples without a finite value, which had no part in it.
        note: what else there is to say.
    """

    value: float
    samples: int
    draws: np.ndarray = field(default_factory=_nothing, repr=False)
    kind: Literal["bootstrap", "jackknife", "bounds"] = "bootstrap"
    step: float = 0.0
    blocks: np.ndarray = field(default_factory=_nothing, repr=False)
    left_out: int = 0
    note: str | None = None

    @classmethod
    def between(cls, value: float, low: float, high: float, samples: int) -> Self:
        """A number of which only bounds are known; equal ones where nothing of it is left to chance."""
        return cls(value, samples, np.array([low, high]), "bounds")

    @classmethod
    def jackknife(cls, value: float, without: Sequence[float] | np.ndarray, samples: int, note: str | None = None) -> Self:
        """A number of a whole set, from its values (blocks,) without each of its blocks.

        Raises:
            InputError: fewer than two blocks.
        """
        if len(without) < 2:
            raise InputError("No interval from so few blocks", str(len(without)), "at least 2")
        left = np.asarray(without, dtype=np.float64)
        return cls(value, samples, left, "jackknife", blocks=left, note=note)

    @property
    def bias(self) -> float | None:
        """By how much a jackknife's value is too large, if that goes like 1/N: ``(B − 1)·(θ̄ − θ)``."""
        return float((len(self.draws) - 1) * (self.draws.mean() - self.value)) if self.kind == "jackknife" else None

    def scaled(self, factor: float, shift: float = 0.0) -> Self:
        """``factor · it + shift``."""
        draws = factor * self.draws + shift
        if self.kind == "bounds":
            draws = np.sort(draws)
        return replace(self, value=factor * self.value + shift, draws=draws, step=abs(factor) * self.step)

    def plus(self, other: Estimate) -> Self:
        """Sum of two, draw by draw; both of one kind."""
        samples = min(self.samples, other.samples)
        return replace(self, value=self.value + other.value, draws=self.draws + other.draws, step=self.step + other.step, samples=samples)

    def interval(self, tail: float = TAIL) -> Interval:
        """Where the true number most likely lies, each end being wrong with a chance of ``tail``.

        A bootstrap's are percentiles. A jackknife's standard error is ``√((B−1)/B · Σ(θᵢ − θ̄)²)`` and its interval that of Student's t
        with B − 1 degrees of freedom. Where all draws are alike, an event that n samples did not show may have a chance of up to
        −ln(tail) / n: that much, in steps, is left unknown.
        """
        if self.kind == "bounds":
            return Interval(self.value, float(self.draws[0]), float(self.draws[-1]))
        if self.kind == "jackknife":
            blocks = len(self.draws)
            reach = float(t.isf(tail, blocks - 1) * np.sqrt((blocks - 1) / blocks * np.square(self.draws - self.draws.mean()).sum()))
            reach = reach or -math.log(tail) * self.step
            return Interval(self.value, self.value - reach, self.value + reach)
        low = float(np.quantile(self.draws, tail, method="lower"))
        high = float(np.quantile(self.draws, 1.0 - tail, method="higher"))
        if low == high:
            reach = -math.log(tail) * self.step
            low, high = low - reach, high + reach
        return Interval(self.value, low, high)


def bootstrap(value: float, statistic: Statistic, count: int, how: Resampling, step: float = 0.0) -> Estimate:
    """A statistic of ``count`` samples with its bootstrap; see `Estimate` for the step."""
    at_once = max(1, _NUMBERS // count)
    starts = range(0, how.draws, at_once)
    draws = np.concatenate([statistic(_drawn(count, how.seed, at, min(at + at_once, how.draws))) for at in starts])
    return Estimate(value, count, draws, step=step)


def ratio(sums: np.ndarray, counts: np.ndarray, how: Resampling | None, step: float = 0.0) -> Estimate:
    """``Σ sums / Σ counts`` over N samples, (N,) each: the mean of several values a sample, samples being what is drawn again. A sample
    with a count of 0 has no value. ``step`` is the range of one value, if it is bounded; without ``how`` there is no interval.

    Raises:
        InputError: nothing was counted.
    """
    sums, counts = np.asarray(sums, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    if not counts.sum():
        raise InputError("There is nothing to take a mean of", f"{len(sums)} samples without a value", "at least one value")
    value = float(sums.sum() / counts.sum())
    if np.count_nonzero(counts) < 2:  # a bootstrap would make an interval of width 0
        return Estimate(value, len(sums), note="one sample: no interval")
    if how is None:
        return Estimate(value, len(sums))

    def means(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return np.where(counts > 0.0, sums / np.where(counts > 0.0, counts, 1.0), value)

    blocks = blocks_of(len(sums), seed=how.seed)
    without = [whole.sum() - np.array([whole[block].sum() for block in blocks]) for whole in (sums, counts)]
    drawn = bootstrap(value, lambda rows: means(sums[rows].sum(axis=1), counts[rows].sum(axis=1)), len(sums), how, step / len(sums))
    return replace(drawn, blocks=means(*without))


def mean(values: np.ndarray, how: Resampling | None, step: float = 0.0) -> Estimate:
    """Mean of values (N,), those that are not finite left out and counted.

    Raises:
        NotKnownError: none is finite.
    """
    known = np.isfinite(values)
    if not known.any():
        raise NotKnownError(f"none of {len(values)} values is finite")
    return replace(ratio(np.where(known, values, 0.0), known, how, step), left_out=int((~known).sum()))


def quantile(values: np.ndarray, q: float, how: Resampling) -> Estimate:
    """Quantile of values (N,)."""
    return bootstrap(float(np.quantile(values, q)), lambda rows: np.quantile(values[rows], q, axis=1), len(values), how)


def mean_of_worst(values: np.ndarray, worst: int, how: Resampling) -> Estimate:
    """Mean of the ``worst`` highest column means of values (N, columns)."""

    count = len(values)

    def statistic(rows: np.ndarray) -> np.ndarray:
        places = rows + count * np.arange(len(rows))[:, None]
        how_often = np.bincount(places.ravel(), minlength=len(rows) * count).reshape(len(rows), count)  # each resample holds each sample
        return np.partition(how_often @ values / count, -worst, axis=1)[:, -worst:].mean(axis=1)

    value = float(np.sort(values.mean(axis=0))[-worst:].mean())
    return bootstrap(value, statistic, count, how)


def auc(scores: np.ndarray, bad: np.ndarray, *, seed: int = 0) -> Interval:
    """Probability that a bad sample, bool (N,), has the higher score, float64 (N,), than a good one, ties counting half; 0.5 is chance.
    Infinities are fine.

    >>> auc(np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, False, True, True])).value
    0.875

    Raises:
        InputError: NaN among the scores, or samples of one kind alone.
    """
    bad, ranks = np.asarray(bad, dtype=bool), _ranks(scores)
    if bad.all() or not bad.any():
        raise InputError("An AUC needs samples of both kinds", f"{int(bad.sum())} bad of {len(bad)}", "some of each")

    def statistic(rows: np.ndarray) -> np.ndarray:
        worse = bad[rows]
        hits, count = worse.sum(axis=1).astype(np.float64), rows.shape[1]
        pairs = hits * (count - hits)
        below = (rankdata(ranks[rows], axis=1) * worse).sum(axis=1) - hits * (hits + 1.0) / 2.0
        return np.where(pairs > 0.0, below / np.where(pairs > 0.0, pairs, 1.0), np.nan)

    return _of_ranks(statistic, len(bad), seed)


def rank_correlation(first: np.ndarray, second: np.ndarray, *, seed: int = 0) -> Interval | None:
    """Spearman's correlation of values (N,): that of the ranks, equal values sharing the middle one. None where one side is constant.

    >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 8.0, 27.0])).value
    1.0

    Raises:
        InputError: NaN.
    """
    sides = [_ranks(values) for values in (first, second)]
    if any(np.ptp(one) == 0.0 for one in sides):
        return None

    def statistic(rows: np.ndarray) -> np.ndarray:
        x, y = (rankdata(one[rows], axis=1) for one in sides)
        x, y = (one - one.mean(axis=1, keepdims=True) for one in (x, y))
        lengths = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
        return (x * y).sum(axis=1) / np.where(lengths > 0.0, lengths, np.nan)

    return _of_ranks(statistic, len(sides[0]), seed)


def wilson(hits: np.ndarray | int, count: int, tail: float = TAIL) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's interval of shares, each end being wrong with a chance of ``tail``.

    >>> tuple(round(float(bound), 3) for bound in wilson(8, 10))
    (0.49, 0.943)
    """
    z, share = float(norm.isf(tail)), np.asarray(hits) / count
    middle, reach = share + z**2 / (2 * count), z * np.sqrt(share * (1.0 - share) / count + z**2 / (4 * count**2))
    return (middle - reach) / (1.0 + z**2 / count), (middle + reach) / (1.0 + z**2 / count)


def blocks_of(count: int, blocks: int = 10, *, seed: int = 0) -> list[np.ndarray]:
    """Rows 0 … count − 1, int64 (n,) each, dealt at random to blocks of nearly equal size, at most one block a row."""
    order = np.argsort(uniforms(seed, _BLOCKS, np.arange(count), 1)[:, 0], kind="stable")
    return [np.sort(part) for part in np.array_split(order, min(blocks, count))]


def _of_ranks(statistic: Statistic, count: int, seed: int) -> Interval:
    """The interval of what can be said of most resamples, and not of those that hold one kind or one value alone."""
    value = float(statistic(np.arange(count)[None])[0])
    found = bootstrap(round(value, 12), statistic, count, Resampling(seed, _RANK_DRAWS))
    known = found.draws[np.isfinite(found.draws)]
    return replace(found, draws=known if len(known) else np.array([value])).interval()


def _ranks(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if np.isnan(values).any():
        raise InputError("Samples without a score cannot be ranked", f"{int(np.isnan(values).sum())} NaN", "a score for each")
    return rankdata(values)


@lru_cache(maxsize=4)
def _drawn(count: int, seed: int, start: int, stop: int) -> np.ndarray:
    """Rows of some resamples, each with a random stream of its own; kept, as many numbers are drawn again in the same way."""
    return (uniforms(seed, _ROWS, np.arange(start, stop), count) * count).astype(np.int64)
