"""Live checks: does the run still look like the calibration, and can it still become what was asked for?

A share, or a distribution function at any point, that was counted on n independent samples is farther than

    a(n, α) = sqrt(ln(2 / α) / (2 n))

from the truth with probability at most α (Hoeffding 1963; for the whole function at once Massart 1990, whatever the distribution, so for
counts too). Two samples of one distribution then differ by at most a(n, α/2) + a(m, α/2). For the share of samples that several rules
accept, a distribution function in k dimensions, 2 becomes k (n + 1) (Naaman 2021).

`FALSE_ALARMS` is spent on all checks of all shards: the k-th shard gets 1 / (k (k + 1)) of it, which adds up to one however long the run
is, and its checks get equal parts. So a run whose samples are distributed as the calibration's is stopped with at most that
probability, whatever the size and the number of shards.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from qualitygate import names
from qualitygate.expectations import run_suite
from qualitygate.gating.profile import Profile
from qualitygate.policy.decide import Limits, first_look
from qualitygate.policy.model import BatchRule, Policy
from qualitygate.policy.suite import POLICY_ID
from qualitygate.produce.manifest import ShardRow
from qualitygate.produce.scales import Scales, distance
from qualitygate.produce.tally import Tally
from qualitygate.records.gate import SuiteResult, Verdict

FALSE_ALARMS = 0.001
"""Probability, at most, that a run without any drift is stopped."""
LEAST_KEPT = 0.01
"""A run of which surely less than this share is kept has collapsed, whatever its policy says."""

_SHARES = (names.YIELD, names.ACCEPTED_SHARE, names.CORRECTED_SHARE, names.REJECTED_SHARE, names.BORDERLINE_SHARE)

_Metrics = dict[str, float]

Expectation = tuple[str, str, float | None, float | None, str]
"""Id, metric, least and largest value, severity."""


def allowance(samples: int, chance: float, dimensions: int = 1) -> float:
    """Distance from the truth that a share or distribution function of so many samples exceeds with probability ``chance`` at most."""
    factor = 2.0 if dimensions == 1 else dimensions * (samples + 1.0)
    return math.sqrt(math.log(factor / chance) / (2.0 * samples))


def least_share(samples: int, chance: float, share: float) -> float:
    """What a count of a true share may fall to with probability over ``chance``: below it, n · KL(counted ‖ true) exceeds ln(1 / chance)
    (Chernoff 1952). Sharper than `allowance` where the share is small."""

    def surprise(counted: float) -> float:
        hit = counted * math.log(counted / share) if counted > 0.0 else 0.0
        return samples * (hit + (1.0 - counted) * math.log((1.0 - counted) / (1.0 - share)))

    low, high = 0.0, share
    if surprise(low) <= math.log(1.0 / chance):
        return 0.0
    for _ in range(50):
        middle = (low + high) / 2.0
        low, high = (middle, high) if surprise(middle) > math.log(1.0 / chance) else (low, middle)
    return high


class Watch:
    """Looks at every shard, in the order of their ids.

    Args:
        profile: what the run is held against.
        policy: what decides; its rules on shares are watched too.
    """

    def __init__(self, profile: Profile, policy: Policy) -> None:
        self._scales = Scales.of(profile, policy)
        self._watched = [rule.score for rule in policy.rules if rule.score in self._scales.edges]
        self._rules = [rule for rule in policy.batch if rule.metric in _SHARES]
        self._dimensions = len(policy.rules)
        self._expected, self._known = _accepted_before(profile.columns(policy), profile.limits(policy))
        self._checks = 2 * len(self._watched) + len(self._rules) + 3

    def look(self, row: ShardRow, before: Tally, after: Tally) -> SuiteResult:
        """The outcome for one more shard, given the sums without and with it."""
        chance = FALSE_ALARMS / (self._checks * after.shards * (after.shards + 1))
        metrics: _Metrics = {}
        asked: list[dict[str, Any]] = []
        for one in (
            *self._drift(row, after, chance, metrics),
            *self._shares(row, before, chance, metrics),
            *self._collapse(after, chance, metrics),
        ):
            asked.extend(_expectations(*one))
        return _evaluated(asked, metrics)

    def _drift(self, row: ShardRow, after: Tally, chance: float, metrics: _Metrics) -> Iterator[Expectation]:
        for score in self._watched:
            calibration = self._scales.calibration[score]
            for name, counts in ((names.drift(score), np.array(row.histograms[score])), (names.run_drift(score), after.histograms[score])):
                metrics[name] = distance(counts, calibration)
                largest = allowance(int(counts.sum()), chance / 2) + allowance(int(calibration.sum()), chance / 2)
                yield f"watch/{name}", name, None, largest, "critical"

    def _shares(self, row: ShardRow, before: Tally, chance: float, metrics: _Metrics) -> Iterator[Expectation]:
        """The share accepted at once against the calibration's, and the share corrected against that of all shards before."""
        metrics[names.ACCEPTED_SHARE] = row.accepted / row.samples
        metrics[names.CORRECTED_SHARE] = row.corrected / row.samples
        if self._known:
            ours, theirs = (allowance(n, chance / 2, self._dimensions) for n in (row.samples, self._known))
            least, most = self._expected - ours - theirs, self._expected + ours + theirs
            yield f"watch/{names.ACCEPTED_SHARE}", names.ACCEPTED_SHARE, least, most, "critical"
        if before.samples:
            wide = allowance(row.samples, chance / 2) + allowance(before.samples, chance / 2)
            share = before.corrected / before.samples
            yield f"watch/{names.CORRECTED_SHARE}", names.CORRECTED_SHARE, share - wide, share + wide, "critical"

    def _collapse(self, after: Tally, chance: float, metrics: _Metrics) -> Iterator[Expectation]:
        """A rule on the whole set that the run so far breaks beyond chance; and a run that keeps next to nothing."""
        shares, wide = after.shares(), allowance(after.samples, chance)
        metrics[names.COLLAPSE] = shares[names.YIELD]
        yield (f"watch/{names.COLLAPSE}", names.COLLAPSE, least_share(after.samples, chance, LEAST_KEPT), None, "critical")
        for rule in self._rules:
            metrics[_run(rule)] = shares[rule.metric]
            least = None if rule.min is None else rule.min - wide
            most = None if rule.max is None else rule.max + wide
            yield f"watch/{rule.id}", _run(rule), least, most, rule.severity


def _run(rule: BatchRule) -> str:
    return f"run/{rule.metric}"


def _accepted_before(columns: dict[str, np.ndarray], limits: Limits) -> tuple[float, int]:
    """Share of the calibration samples that the rules accept, and of how many; of none if a rule's score was not calibrated."""
    used = [columns.get(rule.score) for rule in limits.rules]
    known = [column for column in used if column is not None]
    if len(known) < len(used):
        return math.nan, 0
    rows = np.isfinite(known).all(axis=0)
    look = first_look(limits, {rule.score: columns[rule.score][rows] for rule in limits.rules})
    return float((look.verdict == Verdict.ACCEPT).mean()), int(rows.sum())


def _expectations(name: str, metric: str, least: float | None, most: float | None, severity: str) -> list[dict[str, Any]]:
    """A range, and that there is a value at all: a range alone holds where there is none."""
    limits = {key: value for key, value in (("min_value", least), ("max_value", most)) if value is not None}
    known = {
        "type": "expect_column_values_to_not_be_null",
        "kwargs": {"column": metric},
        "severity": "critical",
        "meta": {POLICY_ID: f"{name}.known"},
    }
    between = {
        "type": "expect_column_mean_to_be_between",
        "kwargs": {"column": metric, **limits},
        "severity": severity,
        "meta": {POLICY_ID: name},
    }
    return [known, between]


def _evaluated(asked: list[dict[str, Any]], metrics: _Metrics) -> SuiteResult:
    import pandas

    suite = {"format": 1, "samples": [], "summary": asked}
    return run_suite(suite, pandas.DataFrame(), pandas.DataFrame([metrics]))
