"""Intervals of differences, and what a rule says of them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.metrics import estimate
from qualitygate.metrics.compare import Outcome, compare, compare_records, tail_of
from qualitygate.metrics.estimate import Estimate, Resampling, mean_of_worst, quantile
from qualitygate.metrics.estimate import mean as mean_of
from qualitygate.policy.model import CheckRule, Margin
from qualitygate.records.check import RuleState
from qualitygate.records.metrics import Measurement

TAIL = 0.01


def mean(values: np.ndarray, seed: int = 1, step: float = 0.0) -> Estimate:
    return mean_of(values, Resampling(seed), step)


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
    low, high = (Estimate.between(value, value, value, 9) for value in (0.5, 0.9))
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
    none = mean(np.zeros(100), step=1.0)
    assert none.interval(TAIL).high == pytest.approx(-np.log(TAIL) / 100)
    assert compare(rule("rejected_share", max=0.01), none, None, TAIL).state is RuleState.INCONCLUSIVE


def test_bounds_are_added_as_intervals() -> None:
    one, other = (Estimate.between(0.5, *ends, 9) for ends in ((0.4, 0.6), (0.3, 0.9)))
    found = one.plus(other.scaled(-1.0)).interval(TAIL)
    assert (found.low, found.high) == (pytest.approx(-0.5), pytest.approx(0.3))


def test_not_finite_is_never_a_pass() -> None:
    broken = Estimate.between(np.nan, np.nan, np.nan, 9)
    assert compare(rule(max=1.0), broken, None, TAIL).state is RuleState.INCONCLUSIVE


def test_statistics_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.array([[0, 0, 2], [1, 1, 1]])
    monkeypatch.setattr(estimate, "_drawn", lambda *_: rows)
    np.testing.assert_allclose(mean_of(np.array([1.0, np.nan, 4.0]), Resampling()).draws, [2.0, 2.5])  # without any value: that of all
    np.testing.assert_allclose(quantile(np.array([1.0, 5.0, 3.0]), 0.5, Resampling()).draws, [1.0, 5.0])
    units = np.array([[0.0, 3.0, 6.0], [1.0, 0.0, 2.0], [3.0, 3.0, 0.0]])
    found = mean_of_worst(units, 2, Resampling())
    np.testing.assert_allclose(found.draws, [(3.0 + 4.0) / 2, (1.0 + 2.0) / 2])
    assert found.value == (8 / 3 + 2.0) / 2


def test_the_error_is_shared_by_rules_and_looks() -> None:
    assert tail_of(0.05, 10, 5) == pytest.approx(0.001)


def test_wrong_decisions_stay_below_the_error() -> None:
    """Right at the margin every decision to pass is wrong half of the time at most; here: at most the tail, with room for chance."""
    at_margin, wrong = rule(worse_by=Margin(absolute=0.5)), 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        base = random.normal(0.0, 1.0, 100)
        found = compare(at_margin, mean(base + 0.5 + random.normal(0.0, 1.0, 100)), mean(base), 0.05)
        wrong += found.state is not RuleState.INCONCLUSIVE
    assert wrong / 200 <= 2 * 0.05 + 0.04


# what stands in records


def fid(value: float, reach: float = 1.0, /, **changes: object) -> Measurement:
    made = Measurement(
        metric=names.FID,
        value=value,
        low=value - reach,
        high=value + reach,
        samples=1000,
        real_samples=500,
        real="r" * 64,
        extractor="network, weights, resize, float32",
        settings={"k": 3.0},
    )
    return made.model_copy(update=changes)


def test_direction_comes_from_the_table() -> None:
    assert compare_records(fid(10), fid(20)).outcome is Outcome.BETTER
    assert compare_records(fid(20), fid(10)).outcome is Outcome.WORSE
    assert compare_records(fid(10), fid(11)).outcome is Outcome.INCONCLUSIVE
    precision = {"metric": names.PRECISION}
    assert compare_records(fid(20, **precision), fid(10, **precision)).outcome is Outcome.BETTER


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"extractor": "network, weights, resize, float16"}, "extractor: network, weights, resize, float32 against"),
        ({"samples": 999}, "samples: 1000 against 999"),
        ({"real_samples": 499}, "real samples: 500 against 499"),
        ({"real": "s" * 64}, "real: r"),
        ({"settings": {"k": 5.0}}, "k: 3.0 against 5.0"),
        ({"settings": {}}, "k: 3.0 against None"),
        ({"metric": names.KID}, "metric: fid against kid"),
        ({"value": None, "note": "too few: 3 samples"}, "the second has no value \\(too few: 3 samples\\)"),
        ({"low": None}, "the second has no interval"),
    ],
)
def test_what_differs_is_refused_and_said(change: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said) as refused:
        compare_records(fid(10), fid(20, **change))
    assert pickle.loads(pickle.dumps(refused.value)).found == refused.value.found


def test_all_differences_are_said_at_once() -> None:
    with pytest.raises(InputError) as refused:
        compare_records(fid(10), fid(20, samples=1, extractor="other", value=None))
    assert all(word in str(refused.value) for word in ("samples", "extractor", "no value"))


def test_records_with_draws_are_compared_by_their_difference() -> None:
    """Blocks that vary together tell apart what the bounds of each do not."""
    wave = np.sin(np.arange(10.0))
    base, better, noisy = (fid(value, blocks=tuple(draws)) for value, draws in ((10.0, 10 + wave), (9.9, 9.9 + wave), (9.9, 9.9 - wave)))
    found = compare_records(better, base)
    assert found.outcome is Outcome.BETTER
    assert found.interval is not None
    assert found.interval.low == pytest.approx(-0.1) == found.interval.high
    assert str(found) == "better"
    assert compare_records(noisy, base).outcome is Outcome.INCONCLUSIVE
    old = compare_records(better, fid(10.0))
    assert old.interval is None
    assert str(old) == "inconclusive (by the bounds of each)"
    random = np.random.default_rng(0).normal(size=10)
    doubtful = fid(9.9, blocks=tuple(9.87 + 0.01 * random + wave))
    assert compare_records(doubtful, base).outcome is Outcome.BETTER
    assert compare_records(doubtful, base, 1e-9).outcome is Outcome.INCONCLUSIVE
