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
from typing import NamedTuple

from qualitygate.errors import InputError
from qualitygate.metrics.estimate import TAIL, Estimate
from qualitygate.policy.model import CheckRule
from qualitygate.records import Interval
from qualitygate.records.check import RuleState
from qualitygate.records.metrics import Measurement


class Comparison(NamedTuple):
    """What a rule says of a candidate."""

    state: RuleState
    difference: Interval | None  # candidate less baseline; None for an absolute rule
    excess: Interval


class Outcome(StrEnum):
    """How a measurement stands to another."""

    BETTER = "better"
    WORSE = "worse"
    HIGHER = "higher"  # of a metric of which neither is better
    LOWER = "lower"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Difference:
    """How one recorded number stands to another, and the interval of candidate less baseline; None where a record keeps no draws, so that
    the bounds of each decided."""

    outcome: Outcome
    interval: Interval | None

    def __str__(self) -> str:
        return self.outcome.value if self.interval is not None else f"{self.outcome.value} (by the bounds of each)"


def tail_of(error: float, rules: int, looks: int) -> float:
    """Chance that each end of each interval is left with, so that all of them together keep ``error``."""
    return error / (rules * looks)


def compare(rule: CheckRule, candidate: Estimate, baseline: Estimate | None, tail: float, *, same: bool = False) -> Comparison:
    """Hold a candidate's number against a rule, and, where that has a margin, against the baseline's.

    ``tail`` is the chance of each end of the intervals; ``same``: both are one checkpoint, looked at on the same latents, so that what is
    unknown of one is unknown of the other.
    """
    difference = None
    if rule.worse_by is None:
        over = candidate.scaled(1.0, -rule.max) if rule.max is not None else candidate.scaled(-1.0, rule.min or 0.0)
        excess = over.interval(tail)
    else:
        assert baseline is not None
        if same:
            candidate, baseline = (Estimate.between(one.value, one.value, one.value, one.samples) for one in (candidate, baseline))
        sign = -1.0 if rule.higher_is_better else 1.0
        difference = candidate.plus(baseline.scaled(-1.0)).interval(tail)
        allowed = baseline.scaled(rule.worse_by.relative * math.copysign(1.0, baseline.value), rule.worse_by.absolute)
        excess = candidate.scaled(sign).plus(baseline.scaled(-sign)).plus(allowed.scaled(-1.0)).interval(tail)
    state = RuleState.PASSED if excess.high <= 0 else RuleState.FAILED
    if excess.low <= 0 < excess.high or not (math.isfinite(excess.low) and math.isfinite(excess.high)):
        state = RuleState.INCONCLUSIVE
    return Comparison(state, difference, excess)


def compare_records(candidate: Measurement, baseline: Measurement, tail: float = TAIL) -> Difference:
    """Whether a measurement is better or worse than another: by the interval of their difference where both records keep draws, else by
    whether their own intervals, which stand in the records, overlap.

    Draws are values without blocks of the sample: blocks of the same latents vary together, and their difference less than either.

    Raises:
        InputError: the numbers cannot be compared: another metric, extractor (weights, resizing and precision are part of its key),
            real set, or settings; another number of samples; no value or interval.
    """
    pairs = [
        (name.replace("_", " "), getattr(candidate, name), getattr(baseline, name))
        for name in ("metric", "extractor", "samples", "real", "real_samples")
    ]
    settings = sorted(candidate.settings | baseline.settings)
    pairs += [(name, candidate.settings.get(name), baseline.settings.get(name)) for name in settings]
    problems = [f"{name}: {ours} against {theirs}" for name, ours, theirs in pairs if ours != theirs]
    intervals = []
    for one, which in ((candidate, "first"), (baseline, "second")):
        if (known := one.interval) is None:
            lacking = "value" if one.value is None else "interval"
            problems.append(f"the {which} has no {lacking}{f' ({one.note})' if one.note else ''}")
        else:
            intervals.append(known)
    if problems:
        raise InputError(
            "These numbers cannot be compared",
            "; ".join(problems),
            "the same metric, extractor, resizing, precision, real set and sample size",
            "measure both in the same way",
        )
    ours, theirs = intervals
    low, high, found = ours.low - theirs.high, ours.high - theirs.low, None
    if candidate.blocks and baseline.blocks and len(candidate.blocks) == len(baseline.blocks):
        first = Estimate.jackknife(ours.value, candidate.blocks, candidate.samples)
        second = Estimate.jackknife(theirs.value, baseline.blocks, baseline.samples)
        found = first.plus(second.scaled(-1.0)).interval(tail)
        low, high = found.low, found.high
    if low <= 0.0 <= high:
        return Difference(Outcome.INCONCLUSIVE, found)
    if candidate.higher_is_better is None:
        return Difference(Outcome.HIGHER if low > 0.0 else Outcome.LOWER, found)
    return Difference(Outcome.BETTER if (low > 0.0) == candidate.higher_is_better else Outcome.WORSE, found)
