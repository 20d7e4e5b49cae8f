"""Scores and a policy to verdicts: pure, and the same for one sample or a column of a million.

Fails closed: a score that is missing or not finite rejects the sample, and so does a correction whose outcome is unknown.

`Risk` joins scores into one. Each part is turned into how rare it is among the calibration's samples,
``p = (1 + samples at least as bad) / (1 + samples)``, and the risk is the weighted sum of ``−ln p`` (Fisher's way of joining tests, with
all weights 1; its chi-squared law is not used, since the parts depend on each other: limits on the risk are quantiles like any other). The
rule was fixed before any result was looked at. A sum of logarithms answers to a single part that is extreme as well as to several that
are merely high.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from qualitygate import names
from qualitygate.errors import PolicyError, Reason
from qualitygate.policy.corrections import Limit
from qualitygate.policy.model import Policy
from qualitygate.policy.scores import badness, cla_layer, score_of
from qualitygate.records.gate import RuleLimit, Verdict

Columns = Mapping[str, np.ndarray]
"""Scores of N samples by name, each float64 (N,); NaN where there is none."""


class Risk:
    """The joined risk, ready to be computed.

    Args:
        reference: the calibration's scores by part, float64 (samples,), NaN where one was not computed.
        weights: weight of each part, at least 0; one of them positive. A `PolicyError` for one that the calibration does not hold.
    """

    def __init__(self, reference: Columns, weights: Mapping[str, float]) -> None:
        if missing := [part for part in weights if part not in reference]:
            remedy = "calibrate with a policy that scores it, or leave it out of risk.weights"
            found, needed = ", ".join(missing), f"some of {', '.join(sorted(reference))}"
            raise PolicyError("The risk has a part that was not calibrated", found, needed, remedy)
        self.weights = {part: weight for part, weight in weights.items() if weight > 0}
        self._reference = {part: np.sort(badness(part, reference[part][~np.isnan(reference[part])])) for part in self.weights}

    def surprise(self, part: str, values: np.ndarray) -> np.ndarray:
        """``−ln p`` of one part, float64 (N,) in [0, ln(1 + samples)]; NaN where the value is."""
        known = self._reference[part]
        as_bad = len(known) - np.searchsorted(known, badness(part, values), side="left")
        return np.where(np.isnan(values), np.nan, np.log1p(len(known)) - np.log1p(as_bad))

    def __call__(self, columns: Columns) -> np.ndarray:
        """Risk of each sample, float64 (N,), higher = worse; NaN where a part is. A `PolicyError` where the columns lack one."""
        if missing := [part for part in self.weights if part not in columns]:
            raise PolicyError("The risk cannot be joined", f"no {', '.join(missing)}", "records that hold every part", "gate again")
        return np.sum([weight * self.surprise(part, columns[part]) for part, weight in self.weights.items()], axis=0)


def default_weights(rate: float, layers: tuple[int, ...], curvature: tuple[int, ...]) -> dict[str, float]:
    """Every part of what the gate measures counts the same: low-rate neurons of each layer, never-seen neurons, CLA of each layer."""
    parts = [*(names.low_rate(rate, layer) for layer in layers), names.never_seen(), *map(names.cla, curvature)]
    return dict.fromkeys(parts, 1.0)


@dataclass(frozen=True)
class Limits:
    """A policy with its quantiles turned into numbers."""

    rules: tuple[RuleLimit, ...]
    recheck_limits: Mapping[str, RuleLimit]  # of each layer that corrected samples are judged on, by the column that is judged
    strengths: tuple[float, ...]  # of the correction, from the least to the most; empty if there is none
    method: str = "sequential_ablation"


@dataclass(frozen=True)
class Decisions:
    """Verdicts of N samples."""

    verdict: np.ndarray  # `Verdict` values (N,)
    strength: np.ndarray  # of the correction that is kept, float64 (N,), NaN where there is none
    reasons: list[tuple[str, ...]]
    borderline: np.ndarray  # bool (N,): a score lies so close to a limit that another device might decide otherwise


def resolve(policy: Policy, recheck: tuple[int, ...], quantile: Callable[[str, float], float]) -> Limits:
    """Limits of a policy, from the calibration's ``quantile`` of a score; ``recheck``: layers that corrected samples are judged on."""

    def resolved(rule: str, score: str, limit: Limit, action: Verdict) -> RuleLimit:
        value = limit.value if limit.value is not None else quantile(score, limit.quantile or 0.0)
        if not np.isfinite(value):
            raise PolicyError(f"The limit of {score} is not a number", str(value), "a calibration with finite scores")
        return RuleLimit(rule=rule, score=score, limit=float(value), source=str(limit), action=action)

    rules = tuple(resolved(rule.id, rule.score, rule.limit, rule.action) for rule in policy.rules)
    if (correction := policy.correction) is None:
        return Limits(rules, {}, ())
    columns = [names.low_rate(correction.judged_at, layer) for layer in recheck]
    limits = {column: resolved("correction", column, correction.limit, Verdict.REJECT) for column in columns}
    return Limits(rules, limits, correction.strengths, correction.method)


def initial_verdicts(limits: Limits, columns: Columns) -> Decisions:
    """Verdicts before any correction; ``CORRECT`` means that a correction has to be tried."""
    count = _length(columns)
    worst = np.zeros(count, dtype=np.int64)  # 0 accept, 1 correct, 2 reject
    borderline = np.zeros(count, dtype=bool)
    reasons: list[list[str]] = [[] for _ in range(count)]
    for rule in limits.rules:
        if rule.score not in columns:
            found, remedy = f"no score {rule.score} among {', '.join(sorted(columns))}", "calibrate and gate with a policy that computes it"
            raise PolicyError(f"Rule {rule.rule} cannot be applied", found, "records that hold this score", remedy)
        score = np.asarray(columns[rule.score], dtype=np.float64)
        unknown, over = ~np.isfinite(score), over_limit(rule, score)
        worst = np.maximum(worst, np.where(unknown, 2, np.where(over, 2 if rule.action is Verdict.REJECT else 1, 0)))
        borderline |= _close(rule, score) | _screened_across(rule, columns)
        _note(reasons, unknown, f"{Reason.SCORE_NOT_FINITE}:{rule.rule}")
        _note(reasons, over, f"{Reason.OVER_LIMIT}:{rule.rule}")
    verdict = np.array([Verdict.ACCEPT, Verdict.CORRECT, Verdict.REJECT])[worst]
    return Decisions(verdict, np.full(count, np.nan), [tuple(one) for one in reasons], borderline)


def repaired(limits: Limits, columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    """Whether samples corrected at one strength pass, and whether that is borderline: two bool arrays (N,). Columns have plain names."""
    passed, borderline = np.ones(_length(columns), dtype=bool), np.zeros(_length(columns), dtype=bool)
    for name, rule in limits.recheck_limits.items():
        score = np.asarray(columns[name], dtype=np.float64)
        passed &= score <= rule.limit  # NaN does not pass
        borderline |= _close(rule, score)
    return passed, borderline


def decide(limits: Limits, columns: Columns) -> Decisions:
    """Final verdicts from records: the scores of every sample and of every strength that was tried on it."""
    first = initial_verdicts(limits, columns)
    count = len(first.verdict)
    verdict, strength, borderline = first.verdict.copy(), first.strength.copy(), first.borderline.copy()
    open_ = verdict == Verdict.CORRECT
    tried_all = np.ones(count, dtype=bool)
    reasons = [list(one) for one in first.reasons]
    for at in limits.strengths:
        tried = np.asarray(columns.get(names.tried(limits.method, at), np.zeros(count)), dtype=np.float64) > 0
        outcome = {name: names.trial(limits.method, at, name) for name in limits.recheck_limits}
        if all(column in columns for column in outcome.values()):
            passed, close = repaired(limits, {name: columns[column] for name, column in outcome.items()})
        else:
            passed, close, tried = np.zeros((3, count), dtype=bool)
        borderline |= close & tried & open_
        kept = open_ & tried & passed
        strength[kept] = at
        _note(reasons, kept, f"{Reason.REPAIRED}:{names.rate(at)}")
        tried_all &= tried | ~open_
        open_ = open_ & ~kept & tried  # a gap in what was tried ends it: the least correction is unknown
    broken = np.asarray(columns.get(names.IMAGE_FINITE, np.full(count, np.nan))) == 0
    _note(reasons, broken & (verdict != Verdict.REJECT), Reason.IMAGE_NOT_FINITE)
    verdict[broken] = Verdict.REJECT
    lost = (first.verdict == Verdict.CORRECT) & np.isnan(strength)
    verdict[lost] = Verdict.REJECT
    _note(reasons, lost & tried_all, Reason.NOT_REPAIRED)
    _note(reasons, lost & ~tried_all, Reason.CORRECTION_NOT_TRIED)
    return Decisions(verdict, strength, [tuple(one) for one in reasons], borderline)


def over_limit(rule: RuleLimit, values: np.ndarray) -> np.ndarray:
    """Where a score is worse than a limit: bool (N,)."""
    return values > rule.limit if score_of(rule.score).higher_is_worse else values < rule.limit


def _close(rule: RuleLimit, score: np.ndarray) -> np.ndarray:
    kind = score_of(rule.score)
    return np.abs(score - rule.limit) <= kind.tolerance * (abs(rule.limit) if kind.relative else 1.0)


def _screened_across(rule: RuleLimit, columns: Columns) -> np.ndarray | bool:
    """Where a CLA was screened for other limits, and this one lies inside of its interval."""
    layer = cla_layer(rule.score)
    if layer is None or names.cla_low(layer) not in columns:
        return False
    return (columns[names.cla_low(layer)] <= rule.limit) & (columns[names.cla_high(layer)] > rule.limit)


def _note(reasons: list[list[str]], where: np.ndarray, code: str) -> None:
    for row in np.flatnonzero(where):
        reasons[row].append(code)


def _length(columns: Columns) -> int:
    return len(next(iter(columns.values())))
