"""Intervals of differences, and what a rule says of them."""

from __future__ import annotations

import numpy as np
import pytest

from qualitygate.metrics.compare import Estimate, Kind, compare, draws_for, mean_of, quantile_of, resampled, tail_of, worst_of
from qualitygate.policy.model import CheckRule, Margin
from qualitygate.records.check import RuleState

TAIL = 0.01


def mean(values: np.ndarray, seed: int = 1, step: float = 0.0) -> Estimate:
    return resampled(float(values.mean()), mean_of(values), len(values), draws=1000, seed=seed, step=step)


def rule(metric: str = "low_rate_0.1/q0.9", **limit: object) -> CheckRule:
    return CheckRule(id="r", metric=metric, **limit)


def test_shared_latents_cancel() -> None:
    base = np.random.default_rng(0).normal(10.0, 3.0, 200)
    relative = rule(worse_by=Margin(relative=0.05))
    paired = compare(relative, mean(base + 0.1), mean(base), TAIL)
    apart = compare(relative, mean(base + 0.1), mean(base, seed=2), TAIL)
    assert paired.state is RuleState.PASSED
    assert paired.difference is not None
    assert apart.difference is not None
    assert paired.difference.low == pytest.approx(0.1) == paired.difference.high
    assert apart.difference.high - apart.difference.low > 1.0
    assert apart.state is RuleState.INCONCLUSIVE


@pytest.mark.parametrize(("worse", "state"), [(0.0, RuleState.PASSED), (0.5, RuleState.INCONCLUSIVE), (2.0, RuleState.FAILED)])
def test_the_interval_decides_not_the_value(worse: float, state: RuleState) -> None:
    random = np.random.default_rng(1)
    base = random.normal(10.0, 1.0, 400)
    candidate = base + worse + random.normal(0.0, 1.0, 400)
    assert compare(rule(worse_by=Margin(relative=0.05)), mean(candidate), mean(base), TAIL).state is state


@pytest.mark.parametrize("metric", ["yield", "rejected_share"])
def test_worse_is_the_other_way_where_more_is_better(metric: str) -> None:
    low, high = (Estimate(value, np.full(2, value), Kind.BOUNDS, 9) for value in (0.5, 0.9))
    states = [compare(rule(metric, worse_by=Margin(absolute=0.1)), *pair, TAIL).state for pair in ((low, high), (high, low))]
    expected = [RuleState.FAILED, RuleState.PASSED]
    assert states == (expected if metric == "yield" else expected[::-1])


def test_absolute_rules_need_no_baseline() -> None:
    values = np.array([0.0, 1.0] * 200)
    assert compare(rule("yield", min=0.3), mean(values), None, TAIL).state is RuleState.PASSED
    assert compare(rule("yield", max=0.3), mean(values), None, TAIL).state is RuleState.FAILED
    assert compare(rule("yield", max=0.5), mean(values), None, TAIL).state is RuleState.INCONCLUSIVE


def test_the_same_checkpoint_passes_without_any_margin() -> None:
    values = np.random.default_rng(0).normal(size=50)
    found = compare(rule(worse_by=Margin(absolute=0.0)), mean(values), mean(values), TAIL, same=True)
    assert found.state is RuleState.PASSED
    assert found.excess.high == 0.0


def test_an_event_that_never_came_is_not_impossible() -> None:
    none = mean(np.zeros(100), step=1 / 100)
    assert none.interval(TAIL).high == pytest.approx(-np.log(TAIL) / 100)
    assert compare(rule("rejected_share", max=0.01), none, None, TAIL).state is RuleState.INCONCLUSIVE


def test_bounds_are_added_as_intervals() -> None:
    one, other = (Estimate(0.5, np.array(ends), Kind.BOUNDS, 9) for ends in ([0.4, 0.6], [0.3, 0.9]))
    found = one.plus(other.scaled(-1.0)).interval(TAIL)
    assert (found.low, found.high) == (pytest.approx(-0.5), pytest.approx(0.3))


def test_not_finite_is_never_a_pass() -> None:
    broken = Estimate(np.nan, np.full(10, np.nan), Kind.BOUNDS, 9)
    assert compare(rule(max=1.0), broken, None, TAIL).state is RuleState.INCONCLUSIVE


def test_statistics_by_hand() -> None:
    rows = np.array([[0, 0, 2], [1, 1, 1]])
    np.testing.assert_allclose(mean_of(np.array([1.0, np.nan, 4.0]))(rows), [2.0, 0.0])
    np.testing.assert_allclose(quantile_of(np.array([1.0, 5.0, 3.0]), 0.5)(rows), [1.0, 5.0])
    units = np.array([[0.0, 3.0, 6.0], [1.0, 0.0, 2.0], [3.0, 3.0, 0.0]])
    np.testing.assert_allclose(worst_of(units, 2)(rows), [(3.0 + 4.0) / 2, (1.0 + 2.0) / 2])


def test_the_error_is_shared_by_rules_and_looks() -> None:
    assert tail_of(0.05, 10, 5) == pytest.approx(0.001)
    assert draws_for(0.001) * 0.001 >= 10


def test_wrong_decisions_stay_below_the_error() -> None:
    """Right at the margin every decision to pass is wrong half of the time at most; here: at most the tail, with room for chance."""
    at_margin, wrong = rule(worse_by=Margin(absolute=0.5)), 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        base = random.normal(0.0, 1.0, 100)
        found = compare(at_margin, mean(base + 0.5 + random.normal(0.0, 1.0, 100)), mean(base), 0.05)
        wrong += found.state is not RuleState.INCONCLUSIVE
    assert wrong / 200 <= 2 * 0.05 + 0.04
