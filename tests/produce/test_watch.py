"""Live checks: silent on a run like its calibration, loud and by name on one that drifts or collapses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from shard_helpers.making import Small
from small_records import PROVENANCE

from qualitygate import names
from qualitygate.produce.manifest import ShardRow
from qualitygate.produce.watch import FALSE_ALARMS, RunTotals, Scales, Watch, allowance, distance, least_share
from qualitygate.records.gate import SuiteResult

SCORE = "low_rate_0.2"


@dataclass
class Run:
    """A run made up of scores: those over the limit are corrected or rejected."""

    small: Small
    totals: RunTotals = field(default_factory=RunTotals)

    def __post_init__(self) -> None:
        self.profile = self.small.loaded()
        self.policy = self.profile.policy
        self.watch = Watch(self.profile, self.policy)
        self.scales = Scales.of(self.profile, self.policy)
        self.limit = self.profile.limits(self.policy).rules[0].limit

    def look(self, scores: np.ndarray, repaired: float = 0.8) -> SuiteResult:
        accepted = int((scores <= self.limit).sum())
        corrected = round((len(scores) - accepted) * repaired)
        row = row_of(
            samples=len(scores),
            accepted=accepted,
            corrected=corrected,
            rejected=len(scores) - accepted - corrected,
            histograms=self.scales.histograms({SCORE: scores}),
        )
        self.totals.add(row)
        return self.watch.look(row, self.totals)

    def usual(self, count: int, seed: int = 0) -> np.ndarray:
        """Scores as the calibration's."""
        return np.random.default_rng(seed).choice(self.profile.scores[SCORE], count)


def row_of(**given: Any) -> ShardRow:
    rest: dict[str, Any] = {
        "plan": "p",
        "start": 0,
        "stop": 1,
        "file": None,
        "bytes": 0,
        "sha256": None,
        "records": "r",
        "records_sha256": "0",
        "borderline": 0,
        "reasons": {},
        "seconds": {},
        "probe": None,
        "evaluated": 1,
        "results": (),
        "provenance": PROVENANCE,
    }
    return ShardRow(**{**rest, **given})


def failed(result: SuiteResult) -> set[str]:
    return {one.id for one in result.failures}


@pytest.fixture
def run(small: Small) -> Run:
    made = Run(small)
    # the sums over layers are the scores that rules are on
    made.profile = made.small.loaded()
    made.profile.scores[SCORE] = made.profile.columns(made.policy)[SCORE]
    return made


def test_a_usual_run_is_silent(run: Run) -> None:
    for shard in range(4):
        result = run.look(run.usual(2000, shard))
        assert result.passed
        assert failed(result) <= {"watch/accepted"}  # a warning of the policy's
        assert result.evaluated == len(result.results)


def test_a_sudden_drift_is_named_at_once(run: Run) -> None:
    assert run.look(run.usual(2000)).passed
    result = run.look(run.usual(2000) * 1.6)
    assert not result.passed
    assert f"watch/drift/{SCORE}" in failed(result)
    assert f"watch/{names.ACCEPTED_SHARE}" in failed(result)


def test_a_small_lasting_drift_is_found_in_the_sum_of_shards(run: Run) -> None:
    rounds = 0
    while (result := run.look(run.usual(100, rounds) * 1.5)).passed:
        rounds += 1
        assert rounds < 10
    assert rounds > 0
    assert f"watch/drift_run/{SCORE}" in failed(result)


def test_corrections_that_fail_all_at_once_are_named(run: Run) -> None:
    assert run.look(run.usual(2000)).passed
    assert f"watch/{names.CORRECTED_SHARE}" in failed(run.look(run.usual(2000, 1), repaired=0.1))


def test_a_run_that_keeps_nothing_has_collapsed(run: Run) -> None:
    result = run.look(np.full(2000, np.nan), repaired=0.0)
    assert {f"watch/{names.COLLAPSE}", "watch/yield", f"watch/drift/{SCORE}"} <= failed(result)


def test_the_allowance_keeps_its_promise() -> None:
    """Coins thrown 50 times, and the whole distribution function of 40 uniforms."""
    random = np.random.default_rng(0)
    shares = random.binomial(50, 0.5, 20_000) / 50
    chance = 0.05
    assert (np.abs(shares - 0.5) > allowance(50, chance)).mean() <= chance
    samples = np.sort(random.random((20_000, 40)), axis=1)
    steps = np.arange(1, 41) / 40
    away = np.maximum(np.abs(steps - samples), np.abs(steps - 1 / 40 - samples)).max(axis=1)
    assert 0.2 * chance < (away > allowance(40, chance)).mean() <= chance


def test_the_least_share_keeps_its_promise() -> None:
    counted = np.random.default_rng(0).binomial(2000, 0.01, 100_000) / 2000
    assert 0.0 < (counted < least_share(2000, 0.01, 0.01)).mean() <= 0.01
    assert least_share(100, 1e-4, 0.01) == 0.0  # too few to tell


def test_false_alarms_add_up_to_what_is_said() -> None:
    assert sum(1 / (k * (k + 1)) for k in range(1, 100_000)) == pytest.approx(1.0, abs=1e-4)
    assert FALSE_ALARMS <= 0.001


def test_scales_hold_counts_exactly_and_never_exaggerate_a_distance(run: Run) -> None:
    values = run.usual(500)
    counts = np.array(run.scales.histograms({SCORE: values})[SCORE])
    assert counts.sum() == 500
    for q in (0.1, 0.5, 0.9):
        assert run.scales.quantile(SCORE, counts, q) == np.quantile(values, q, method="inverted_cdf")
    unknown = np.array(run.scales.histograms({SCORE: np.array([np.nan, np.inf, 1e9])})[SCORE])
    assert unknown[-1] == 3
    assert run.scales.quantile(SCORE, unknown, 0.5) == run.scales.edges[SCORE][-1]
    assert distance(counts, counts) == 0.0
    assert distance(counts, unknown) == pytest.approx(1.0, abs=0.01)
