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
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import rel_entr

from qualitygate import names, timing
from qualitygate.gating.profile import Profile
from qualitygate.policy.decide import Limits, initial_verdicts
from qualitygate.policy.model import SHARES, Policy
from qualitygate.produce.manifest import COUNTS, DRAIN, GATE, Plan, Shard, ShardRow
from qualitygate.produce.shards import ENCODE, WRITE
from qualitygate.records.gate import ExpectationResult, SuiteResult, Verdict

_STEPS = 512  # of a scale; scores that take fewer values in the calibration, as most counts do, keep each of them


@dataclass(frozen=True)
class Scales:
    """One scale for every score that is followed."""

    edges: Mapping[str, np.ndarray]
    """Upper, inclusive ends of the steps, rising, by score. What is beyond the last one, or not finite, is in one more step."""
    calibration: Mapping[str, np.ndarray]
    """Counts of the calibration samples in those steps."""

    @classmethod
    def of(cls, profile: Profile, policy: Policy) -> Scales:
        """The scales of the scores that summaries tell of, and of those that rules are on, as far as they were calibrated."""
        columns = profile.columns(policy)
        followed = [*map(names.low_rate, policy.detection.rates), names.never_seen(), *(rule.score for rule in policy.rules)]
        known = {name: columns[name][np.isfinite(columns[name])] for name in dict.fromkeys(followed) if name in columns}
        edges = {name: _edges(values) for name, values in known.items() if len(values)}
        return cls(edges, {name: _counted(edges[name], known[name]) for name in edges})

    def histograms(self, rows: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """How many samples lie in each step of each scale."""
        return {name: tuple(_counted(edges, rows[name]).tolist()) for name, edges in self.edges.items() if name in rows}

    def quantile(self, name: str, counts: np.ndarray, q: float) -> float:
        """The upper end of the step in which the quantile lies: exact for counts, else to within a step; the calibration's
        largest score where it lies beyond that."""
        edges = self.edges[name]
        step = int(np.searchsorted(np.cumsum(counts), q * counts.sum(), side="left"))
        return float(edges[min(step, len(edges) - 1)])


def distance(counts: np.ndarray, others: np.ndarray) -> float:
    """Kolmogorov and Smirnov's distance between two samples counted on one scale: never more than between the samples themselves."""
    return float(np.abs(np.cumsum(counts) / counts.sum() - np.cumsum(others) / others.sum()).max())


def _edges(values: np.ndarray) -> np.ndarray:
    different = np.unique(values)
    if len(different) <= _STEPS:
        return different
    return np.unique(np.quantile(values, np.linspace(0.0, 1.0, _STEPS), method="higher"))


def _counted(edges: np.ndarray, values: Any) -> np.ndarray:
    column = np.asarray(values, dtype=np.float64)
    step = np.searchsorted(edges, np.where(np.isnan(column), np.inf, column), side="left")
    return np.bincount(step, minlength=len(edges) + 1)


QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)
_TIMED = (timing.EARLY, timing.LATE, ENCODE, WRITE)


@dataclass
class RunTotals:
    """Sums over shards. ``probes`` are seconds of an image without the gate, one for each worker that measured them."""

    samples: int = 0
    accepted: int = 0
    corrected: int = 0
    rejected: int = 0
    borderline: int = 0
    shards: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    histograms: dict[str, np.ndarray] = field(default_factory=dict)
    probes: list[float] = field(default_factory=list)

    @property
    def kept(self) -> int:
        return self.accepted + self.corrected

    def add(self, row: ShardRow) -> None:
        for count in COUNTS:
            setattr(self, count, getattr(self, count) + getattr(row, count))
        self.shards += 1
        self.reasons.update(row.reasons)
        self.seconds.update(row.seconds)
        for name, counts in row.histograms.items():
            self.histograms[name] = self.histograms.get(name, 0) + np.array(counts, dtype=np.int64)
        if row.probe is not None:
            self.probes.append(row.probe)

    def shares(self) -> dict[str, float]:
        total = max(self.samples, 1)
        return {
            names.ASKED: float(self.samples),
            names.ACCEPTED_SHARE: self.accepted / total,
            names.CORRECTED_SHARE: self.corrected / total,
            names.REJECTED_SHARE: self.rejected / total,
            names.YIELD: self.kept / total,
            names.BORDERLINE_SHARE: self.borderline / total,
        }

    def metrics(self, scales: Scales) -> dict[str, float]:
        """Everything that a summary tells of the set, as one row."""
        metrics = self.shares()
        for name, counts in self.histograms.items():
            metrics |= {names.quantile(name, q): scales.quantile(name, counts, q) for q in QUANTILES}
        return metrics | self.waiting() | self.costs()

    def waiting(self) -> dict[str, float]:
        """The share of the workers' time in which generation was held up by encoding and writing: while it went on, and at the end of each
        shard."""
        spent, held = self.seconds[GATE] + self.seconds[DRAIN], self.seconds[timing.WAIT] + self.seconds[DRAIN]
        return {names.time_share(timing.WAIT): held / spent} if spent else {}

    def costs(self) -> dict[str, float]:
        """Where the workers' time went, and what a kept image cost.

        Generate-then-filter makes every image whole and throws some away: with a judge that costs nothing and accepts what the gate accepts
        (it cannot correct), its cost of an accepted image is that of an image without the gate over the accepted share. Encoding and
        writing are the same on all sides and run beside generation; they are in none of the three.
        """
        spent = self.seconds[GATE]
        if not spent or not self.samples:
            return {}
        costs = {names.time_share(part): self.seconds[part] / spent for part in _TIMED}
        if self.kept:
            costs[names.COST_ACCEPTED] = spent / self.kept
        if self.probes:
            costs[names.COST_UNGATED] = float(np.median(self.probes))
            if self.accepted:
                costs[names.COST_FILTERED] = costs[names.COST_UNGATED] * self.samples / self.accepted
        return costs


FALSE_ALARMS = 0.001
"""Probability, at most, that a run without any drift is stopped."""
LEAST_KEPT = 0.01
"""A run of which surely less than this share is kept has collapsed, whatever its policy says."""


def allowance(samples: int, chance: float, dimensions: int = 1) -> float:
    """Distance from the truth that a share or distribution function of so many samples exceeds with probability ``chance`` at most."""
    factor = 2.0 if dimensions == 1 else dimensions * (samples + 1.0)
    return math.sqrt(math.log(factor / chance) / (2.0 * samples))


def least_share(samples: int, chance: float, share: float) -> float:
    """What a count of a true share may fall to with probability over ``chance``: below it, n · KL(counted ‖ true) exceeds ln(1 / chance)
    (Chernoff 1952). Sharper than `allowance` where the share is small."""

    def excess(counted: float) -> float:
        return float(samples * (rel_entr(counted, share) + rel_entr(1.0 - counted, 1.0 - share)) - math.log(1.0 / chance))

    return 0.0 if excess(0.0) <= 0.0 else float(brentq(excess, 0.0, share))


class Watch:
    """Looks at every shard, in the order of their ids: against the calibration of a profile, and the rules on shares of a policy."""

    def __init__(self, profile: Profile, policy: Policy) -> None:
        self._scales = Scales.of(profile, policy)
        self._watched = [rule.score for rule in policy.rules if rule.score in self._scales.edges]
        self._rules = [rule for rule in policy.batch if rule.metric in SHARES]
        self._dimensions = len(policy.rules)
        self._expected, self._known = _accepted_before(profile.columns(policy), profile.limits(policy))
        self._checks = 2 * len(self._watched) + len(self._rules) + 3

    def look(self, row: ShardRow, after: RunTotals) -> SuiteResult:
        """The outcome for one more shard, given the sums with it."""
        chance = FALSE_ALARMS / (self._checks * after.shards * (after.shards + 1))
        return SuiteResult.of([*self._drift(row, after, chance), *self._shares(row, after, chance), *self._collapse(after, chance)])

    def _drift(self, row: ShardRow, after: RunTotals, chance: float) -> Iterator[ExpectationResult]:
        for score in self._watched:
            calibration = self._scales.calibration[score]
            for name, counts in zip(names.drift(score), (np.array(row.histograms[score]), after.histograms[score]), strict=True):
                largest = allowance(int(counts.sum()), chance / 2) + allowance(int(calibration.sum()), chance / 2)
                yield _within(name, distance(counts, calibration), None, largest)

    def _shares(self, row: ShardRow, after: RunTotals, chance: float) -> Iterator[ExpectationResult]:
        """The share accepted at once against the calibration's, and the share corrected against that of all shards before."""
        if self._known:
            wide = sum(allowance(n, chance / 2, self._dimensions) for n in (row.samples, self._known))
            yield _within(names.ACCEPTED_SHARE, row.accepted / row.samples, self._expected - wide, self._expected + wide)
        if before := after.samples - row.samples:
            wide = allowance(row.samples, chance / 2) + allowance(before, chance / 2)
            share = (after.corrected - row.corrected) / before
            yield _within(names.CORRECTED_SHARE, row.corrected / row.samples, share - wide, share + wide)

    def _collapse(self, after: RunTotals, chance: float) -> Iterator[ExpectationResult]:
        """A rule on the whole set that the run so far breaks beyond chance; and a run that keeps next to nothing."""
        shares, wide = after.shares(), allowance(after.samples, chance)
        yield _within(names.COLLAPSE, shares[names.YIELD], least_share(after.samples, chance, LEAST_KEPT), None)
        for rule in self._rules:
            least, most = None if rule.min is None else rule.min - wide, None if rule.max is None else rule.max + wide
            yield _within(f"run/{rule.metric}", shares[rule.metric], least, most, rule.id, rule.severity)


def _accepted_before(columns: dict[str, np.ndarray], limits: Limits) -> tuple[float, int]:
    """Share of the calibration samples that the rules accept, and of how many; of none if a rule's score was not calibrated."""
    scores = [rule.score for rule in limits.rules]
    if not columns.keys() >= set(scores):
        return math.nan, 0
    rows = np.isfinite([columns[score] for score in scores]).all(axis=0)
    look = initial_verdicts(limits, {score: columns[score][rows] for score in scores})
    return float((look.verdict == Verdict.ACCEPT).mean()), int(rows.sum())


def _within(
    metric: str, value: float, least: float | None, most: float | None, name: str = "", severity: str = "critical"
) -> ExpectationResult:
    """The outcome of an expectation on a number, told as those of the suite are. One that is not known cannot be evaluated."""
    known = math.isfinite(value)
    return ExpectationResult(
        id=f"watch/{name or metric}",
        type="expect_column_mean_to_be_between",
        severity=severity,
        success=known and (least is None or value >= least) and (most is None or value <= most),
        observed=value if known else None,
        kwargs={"column": metric, **{key: limit for key, limit in (("min_value", least), ("max_value", most)) if limit is not None}},
        note=None if known else f"{metric} is not known",
    )


class RunState:
    """What a run knows while it goes on: it follows the rows of a plan, in the order of their ids. There are no live checks of a set in one
    folder whose ids are given."""

    def __init__(self, plan: Plan, profile: Profile, policy: Policy) -> None:
        self.plan, self.profile, self.policy, self.scales = plan, profile, policy, Scales.of(profile, policy)
        self.watch = None if plan.form is None and plan.accepted is None else Watch(profile, policy)
        self.totals, self.shards = RunTotals(), list[Shard]()
        self.last: ShardRow | None = None
        self.watched: SuiteResult | None = None  # what the live checks said of the last shard
        self.broken: dict[str, ExpectationResult] = {}  # by id, what was written by hand of samples, and some shard did not meet

    @property
    def failed(self) -> bool:
        """Whether the run is to stop: a critical expectation was not met, or one could not be evaluated."""
        broken = any(one.severity == "critical" or one.note is not None for one in self.broken.values())
        return broken or (self.watched is not None and not self.watched.passed)

    @property
    def complete(self) -> bool:
        return self.plan.accepted is not None and self.totals.kept >= self.plan.accepted

    def next_shards(self) -> list[Shard]:
        """The next shards that are needed for certain; none if nothing is missing. For a number of images: as many as would be enough if
        the share that is kept stayed what it is (at first: if all were kept)."""
        followed, plan = len(self.shards), self.plan
        if plan.accepted is None:
            assert plan.stop is not None
            count = math.ceil((plan.stop - plan.start) / plan.shard_size)
        elif self.complete:
            count = followed
        else:
            share = self.totals.kept / self.totals.samples if followed else 1.0
            more = (plan.accepted - self.totals.kept) / (plan.shard_size * max(share, 1e-9))
            count = followed + math.ceil(min(more, 2 * followed + plan.accepted / plan.shard_size))
        return [plan.shard(index) for index in range(followed, count)]

    def update(self, row: ShardRow) -> None:
        self.totals.add(row)
        if self.watch is not None:
            self.watched = self.watch.look(row, self.totals)
        self.broken = {one.id: one for one in row.results} | self.broken
        self.shards.append(row.shard)
        self.last = row

    @property
    def surplus(self) -> int:
        """Images beyond those that were asked for."""
        return 0 if self.plan.accepted is None else max(0, self.totals.kept - self.plan.accepted)
