"""Candidate against baseline by the interval of their difference: what a rule of a check says, and what two records say.

A rule is turned into one number, its *excess*: how far the candidate is beyond what the rule allows (0 is the limit itself). The rule fails
when the interval of the excess lies above 0, passes when it lies at or below 0, and is inconclusive when 0 is inside.

Estimates come with draws, and draws are combined row by row. Where both checkpoints were looked at on the same latents they are drawn
again together, so what both have in common cancels; where not, each has draws of its own.

Errors: every rule is looked at up to L times. Each end of every interval is left with a chance of ``error / (rules · L)`` (Bonferroni), so
that all wrong decisions together, passes and failures, have a chance of at most ``error``, as far as bootstrap intervals keep theirs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from qualitygate.errors import InputError
from qualitygate.metrics.estimate import TAIL, Estimate
from qualitygate.policy.model import CheckRule
from qualitygate.records import Interval
from qualitygate.records.check import RuleState
from qualitygate.records.metrics import Measurement


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


class Outcome(StrEnum):
    """How a measurement stands to another."""

    BETTER = "better"
    WORSE = "worse"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Difference:
    """How one recorded number stands to another.

    Attributes:
        outcome: better, worse, or neither beyond chance.
        interval: of candidate less baseline; None where a record keeps no draws, so that the bounds of each decided.
    """

    outcome: Outcome
    interval: Interval | None

    def __str__(self) -> str:
        return self.outcome.value if self.interval is not None else f"{self.outcome.value} (by the bounds of each)"


def tail_of(error: float, rules: int, looks: int) -> float:
    """Chance that each end of each interval is left with, so that all of them together keep ``error``."""
    return error / (rules * looks)


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
        candidate, baseline = (Estimate.between(one.value, one.value, one.value, one.samples) for one in (candidate, baseline))
    sign = -1.0 if rule.higher_is_better else 1.0
    difference = candidate.plus(baseline.scaled(-1.0))
    allowed = baseline.scaled(rule.worse_by.relative * math.copysign(1.0, baseline.value), rule.worse_by.absolute)
    excess = candidate.scaled(sign).plus(baseline.scaled(-sign)).plus(allowed.scaled(-1.0)).interval(tail)
    return Comparison(_state(excess), difference.interval(tail), excess)


def compare_records(candidate: Measurement, baseline: Measurement, tail: float = TAIL) -> Difference:
    """Whether a measurement is better or worse than another: by the interval of their difference where both records keep draws, else by
    whether their own intervals, which stand in the records, overlap.

    Draws are values without blocks of the sample: blocks of the same latents vary together, and their difference less than either.

    Args:
        candidate, baseline: of two sets.
        tail: chance of each end of the interval of the difference.

    Raises:
        InputError: the numbers cannot be compared: another metric, extractor (weights, resizing and precision are part of its key),
            real set, or settings; another number of samples; no value or interval.
    """
    if problems := [*_differences(candidate, baseline), *_missing(candidate, "first"), *_missing(baseline, "second")]:
        raise InputError(
            "These numbers cannot be compared",
            "; ".join(problems),
            "the same metric, extractor, resizing, precision, real set and sample size",
            "measure both in the same way",
        )
    if candidate.blocks and baseline.blocks and len(candidate.blocks) == len(baseline.blocks):
        ours, theirs = (Estimate.jackknife(one.value or 0.0, one.blocks or (), one.samples) for one in (candidate, baseline))
        found = ours.plus(theirs.scaled(-1.0)).interval(tail)
        return Difference(_outcome(found.low, found.high, candidate.higher_is_better), found)
    assert candidate.low is not None
    assert candidate.high is not None
    assert baseline.low is not None
    assert baseline.high is not None
    return Difference(_outcome(candidate.low - baseline.high, candidate.high - baseline.low, candidate.higher_is_better), None)


def _outcome(low: float, high: float, higher_is_better: bool) -> Outcome:
    if low <= 0.0 <= high:
        return Outcome.INCONCLUSIVE
    return Outcome.BETTER if (low > 0.0) == higher_is_better else Outcome.WORSE


def _state(excess: Interval) -> RuleState:
    if not (math.isfinite(excess.low) and math.isfinite(excess.high)):
        return RuleState.INCONCLUSIVE
    if excess.low > 0:
        return RuleState.FAILED
    return RuleState.PASSED if excess.high <= 0 else RuleState.INCONCLUSIVE


def _differences(first: Measurement, second: Measurement) -> list[str]:
    """What keeps two numbers apart, in words."""
    pairs = [
        (name.replace("_", " "), getattr(first, name), getattr(second, name))
        for name in ("metric", "extractor", "samples", "real", "real_samples")
    ]
    pairs += [(name, first.settings.get(name), second.settings.get(name)) for name in sorted(first.settings | second.settings)]
    return [f"{name}: {ours} against {theirs}" for name, ours, theirs in pairs if ours != theirs]


def _missing(one: Measurement, which: str) -> list[str]:
    if one.value is None or one.low is None or one.high is None:
        return [f"the {which} has no {'value' if one.value is None else 'interval'}{f' ({one.note})' if one.note else ''}"]
    return []
