"""Candidate against baseline: an interval for every difference, and what a rule says of it.

A rule is turned into one number, its *excess*: how far the candidate is beyond what the rule allows (0 is the limit itself). The rule fails
when the interval of the excess lies above 0, passes when it lies at or below 0, and is inconclusive when 0 is inside.

Estimates come with draws, and draws are combined row by row. Where both checkpoints were looked at on the same latents they are drawn
again together, so what both have in common cancels; where not, each has draws of its own.

Errors: every rule is looked at up to L times. Each end of every interval is left with a chance of ``error / (rules · L)`` (Bonferroni), so
that all wrong decisions together, passes and failures, have a chance of at most ``error``, as far as bootstrap intervals keep theirs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from qualitygate.latents import Purpose, uniforms
from qualitygate.metrics.estimate import jackknife
from qualitygate.policy.model import CheckRule
from qualitygate.records import Interval
from qualitygate.records.check import RuleState

_DRAWS = Purpose.SUBSET + 16 * 4
_NUMBERS = 2**22  # resampled rows held at once
_BEYOND = 10  # draws that lie beyond each end of an interval
_LEAST_DRAWS = 1000

Statistic = Callable[[np.ndarray], np.ndarray]
"""Rows of resamples, int64 (draws, N), to the statistic of each, float64 (draws,)."""


class Kind(StrEnum):
    """Where the draws of an estimate come from."""

    BOOTSTRAP = "bootstrap"
    JACKKNIFE = "jackknife"
    """The value without each block of the sample."""
    BOUNDS = "bounds"
    """Two draws: the lowest and the highest that it can be."""


@dataclass(frozen=True)
class Estimate:
    """A number of one checkpoint, and how it varies.

    Attributes:
        value: of the whole sample.
        draws: float64 (draws,).
        kind: how they were drawn.
        samples: how many samples it is made of.
        step: by how much one sample can change it, where it is bounded; a sample in which all are alike still leaves this much unknown.
    """

    value: float
    draws: np.ndarray
    kind: Kind
    samples: int
    step: float = 0.0

    def exact(self) -> Estimate:
        """The same number, nothing of it left to chance."""
        return Estimate(self.value, np.full(2, self.value), Kind.BOUNDS, self.samples)

    def scaled(self, factor: float, shift: float = 0.0) -> Estimate:
        """``factor · it + shift``."""
        draws = factor * self.draws + shift
        if self.kind is Kind.BOUNDS:
            draws = np.sort(draws)
        return replace(self, value=factor * self.value + shift, draws=draws, step=abs(factor) * self.step)

    def plus(self, other: Estimate) -> Estimate:
        """Sum of two, draw by draw; both of one kind."""
        return replace(
            self,
            value=self.value + other.value,
            draws=self.draws + other.draws,
            step=self.step + other.step,
            samples=min(self.samples, other.samples),
        )

    def interval(self, tail: float) -> Interval:
        """Where the true number most likely lies, each end being wrong with a chance of ``tail``."""
        if self.kind is Kind.BOUNDS:
            return Interval(self.value, float(self.draws[0]), float(self.draws[-1]))
        if self.kind is Kind.JACKKNIFE:
            return jackknife(self.value, list(self.draws), level=1.0 - 2.0 * tail)
        low = float(np.quantile(self.draws, tail, method="lower"))
        high = float(np.quantile(self.draws, 1.0 - tail, method="higher"))
        if low == high:  # an event that n samples did not show may have a chance of up to −ln(tail) / n
            reach = -math.log(tail) * self.step
            low, high = low - reach, high + reach
        return Interval(self.value, low, high)


@dataclass(frozen=True)
class Comparison:
    """What a rule says of a candidate.

    Attributes:
        state: passed, failed or inconclusive.
        difference: candidate less baseline, with its interval; None for an absolute rule.
        excess: how far the candidate is beyond what the rule allows, with its interval.
    """

    state: RuleState
    difference: Interval | None
    excess: Interval


def draws_for(tail: float) -> int:
    """Resamples that an interval with these tails needs."""
    return max(_LEAST_DRAWS, math.ceil(_BEYOND / tail))


def tail_of(error: float, rules: int, looks: int) -> float:
    """Chance that each end of each interval is left with, so that all of them together keep ``error``."""
    return error / (rules * looks)


def resampled(value: float, statistic: Statistic, count: int, *, draws: int, seed: int, step: float = 0.0) -> Estimate:
    """Bootstrap of a statistic of ``count`` samples. Equal seeds and counts draw equal rows: that is what pairs two checkpoints.

    Args:
        value: of the whole sample.
        statistic: of given rows.
        count: samples.
        draws: resamples.
        seed: of the resamples.
        step: see `Estimate`.
    """
    parts = [statistic(rows) for rows in _rows(count, draws, seed)]
    return Estimate(value, np.concatenate(parts), Kind.BOOTSTRAP, count, step)


def mean_of(values: np.ndarray) -> Statistic:
    """Mean of values (N,), those that are not finite left out."""
    known = np.isfinite(values)
    sums, counts = np.where(known, values, 0.0), known.astype(np.float64)
    return lambda rows: sums[rows].sum(axis=1) / np.maximum(counts[rows].sum(axis=1), 1.0)


def quantile_of(values: np.ndarray, q: float) -> Statistic:
    """Quantile of values (N,)."""
    return lambda rows: np.quantile(values[rows], q, axis=1)


def worst_of(values: np.ndarray, worst: int) -> Statistic:
    """Mean of the ``worst`` highest column means of values (N, columns)."""

    def statistic(rows: np.ndarray) -> np.ndarray:
        counts = np.stack([np.bincount(one, minlength=len(values)) for one in rows])
        means = counts @ values / len(values)
        return np.partition(means, -worst, axis=1)[:, -worst:].mean(axis=1)

    return statistic


def compare(rule: CheckRule, candidate: Estimate, baseline: Estimate | None, tail: float, *, same: bool = False) -> Comparison:
    """Hold a candidate against a rule.

    Args:
        rule: the rule.
        candidate: the candidate's number.
        baseline: the baseline's; needed where the rule has a margin.
        tail: chance of each end of the intervals.
        same: both are one checkpoint, looked at on the same latents: what is unknown of one is unknown of the other.
    """
    if rule.worse_by is None:
        over = candidate.scaled(1.0, -rule.max) if rule.max is not None else candidate.scaled(-1.0, rule.min or 0.0)
        return Comparison(_state(interval := over.interval(tail)), None, interval)
    assert baseline is not None
    if same:
        candidate, baseline = candidate.exact(), baseline.exact()
    sign = -1.0 if rule.higher_is_better else 1.0
    difference = candidate.plus(baseline.scaled(-1.0))
    allowed = baseline.scaled(rule.worse_by.relative * math.copysign(1.0, baseline.value), rule.worse_by.absolute)
    excess = candidate.scaled(sign).plus(baseline.scaled(-sign)).plus(allowed.scaled(-1.0)).interval(tail)
    return Comparison(_state(excess), difference.interval(tail), excess)


def _state(excess: Interval) -> RuleState:
    if not (math.isfinite(excess.low) and math.isfinite(excess.high)):
        return RuleState.INCONCLUSIVE
    if excess.low > 0:
        return RuleState.FAILED
    return RuleState.PASSED if excess.high <= 0 else RuleState.INCONCLUSIVE


def _rows(count: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """Rows of all resamples, some resamples at a time, each with a random stream of its own."""
    step = max(1, _NUMBERS // count)
    for start in range(0, draws, step):
        ids = np.arange(start, min(start + step, draws))
        yield (uniforms(seed, _DRAWS, ids, count) * count).astype(np.int64)
