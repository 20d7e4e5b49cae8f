from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, spearmanr

from qualitygate.errors import InputError
from qualitygate.metrics import estimate
from qualitygate.metrics.estimate import Estimate, NotKnownError, Resampling, auc, blocks_of, mean, rank_correlation, ratio, wilson

VALUES = np.random.default_rng(0).normal(size=400)


def test_the_bootstrap_is_about_as_wide_as_theory_says() -> None:
    found = mean(VALUES, Resampling()).interval()
    error = VALUES.std() / np.sqrt(len(VALUES))
    assert found.value == VALUES.mean()
    assert found.low < found.value < found.high
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.1)


def test_every_argument_has_an_effect_and_the_seed_decides() -> None:
    found = mean(VALUES, Resampling())
    narrow, wide = found.interval(0.25), found.interval()
    assert mean(VALUES, Resampling()).interval() == wide
    assert mean(VALUES, Resampling(seed=1)).interval() != wide
    assert wide.low < narrow.low < narrow.high < wide.high
    assert mean(VALUES, Resampling(draws=50)).interval() != wide
    assert Resampling.for_tail(0.001, 0).draws * 0.001 >= 10


def test_memory_is_bounded_without_changing_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    before = mean(VALUES, Resampling(draws=100)).interval()
    monkeypatch.setattr(estimate, "_NUMBERS", 1)
    assert mean(VALUES, Resampling(draws=100)).interval() == before


def test_a_ratio_weighs_every_value_alike() -> None:
    sums, counts = np.array([6.0, 1.0]), np.array([3.0, 1.0])
    found = ratio(sums, counts, Resampling()).interval()
    assert found.value == 7 / 4
    assert (found.low, found.high) == (1.0, 2.0)


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    left_out = [(VALUES.sum() - value) / (len(VALUES) - 1) for value in VALUES]
    known = Estimate.jackknife(float(VALUES.mean()), left_out, len(VALUES))
    found, error = known.interval(), VALUES.std(ddof=1) / np.sqrt(len(VALUES))
    assert (found.high - found.low) / 2 == pytest.approx(1.966 * error, rel=1e-3)
    assert known.bias == pytest.approx(0.0, abs=1e-10)
    assert known.interval(0.25).high < found.high


def test_the_jackknife_sees_the_bias_of_a_variance() -> None:
    """Divided by N it is too small by about the variance over N."""
    left_out = [np.delete(VALUES, row).var() for row in range(len(VALUES))]
    assert Estimate.jackknife(VALUES.var(), left_out, len(VALUES)).bias == pytest.approx(-VALUES.var(ddof=1) / len(VALUES), rel=1e-6)


def test_blocks_hold_every_row_once() -> None:
    blocks = blocks_of(23, 5)
    assert sorted(np.concatenate(blocks).tolist()) == list(range(23))
    assert sorted(map(len, blocks)) == [4, 4, 5, 5, 5]
    assert len(blocks_of(3)) == 3
    assert any(not np.array_equal(one, other) for one, other in zip(blocks, blocks_of(23, 5, seed=1), strict=True))


@pytest.mark.parametrize(("freedom", "quantile"), [(4, 2.776), (9, 2.262), (30, 2.042)])
def test_the_jackknife_has_students_quantiles(freedom: int, quantile: float) -> None:
    blocks = freedom + 1
    without = np.arange(blocks) - freedom / 2.0
    error = np.sqrt(freedom / blocks * (without**2).sum())
    assert Estimate.jackknife(0.0, without, blocks).interval().high / error == pytest.approx(quantile, rel=3e-4)


def test_blocks_of_a_mean_are_the_means_without_them() -> None:
    blocks, found = blocks_of(400, seed=3), mean(VALUES, Resampling(seed=3))
    np.testing.assert_allclose(found.blocks, [np.delete(VALUES, block).mean() for block in blocks])


def test_what_is_not_finite_is_left_out_and_counted() -> None:
    found = mean(np.array([1.0, np.inf, 3.0, np.nan]), Resampling())
    assert (found.value, found.samples, found.left_out) == (2.0, 4, 2)
    with pytest.raises(NotKnownError, match="none of 2 values"):
        mean(np.full(2, np.nan), Resampling())
    assert mean(np.array([1.0, np.nan]), Resampling()).note == "one sample: no interval"


def test_refusals() -> None:
    with pytest.raises(InputError, match="at least one value"):
        ratio(np.zeros(3), np.zeros(3), None)
    with pytest.raises(InputError, match="at least 2"):
        Estimate.jackknife(1.0, [1.0], 9)


RANDOM = np.random.default_rng(0)
FIRST = np.round(RANDOM.normal(size=200), 1)  # with ties
SECOND = np.round(FIRST + RANDOM.normal(size=200), 1)


def test_as_scipy_has_it() -> None:
    bad = SECOND > 0.5
    expected = mannwhitneyu(FIRST[bad], FIRST[~bad]).statistic / (bad.sum() * (~bad).sum())
    assert auc(FIRST, bad).value == pytest.approx(expected, abs=1e-12)
    found = rank_correlation(FIRST, SECOND)
    assert found is not None
    assert found.value == pytest.approx(spearmanr(FIRST, SECOND).statistic, abs=1e-12)


def test_order_and_sign() -> None:
    scores, bad = np.arange(8.0), np.arange(8) >= 4
    assert auc(scores, bad).value == 1.0
    assert auc(-scores, bad).value == 0.0
    assert auc(np.zeros(8), bad).value == 0.5
    scores[7] = np.inf
    assert auc(scores, bad).value == 1.0


def test_intervals_hold_the_value_and_shrink() -> None:
    bad = SECOND > 0.5
    few, many = auc(FIRST[:50], bad[:50], seed=3), auc(FIRST, bad, seed=3)
    for one in (few, many):
        assert one.low < one.value < one.high
    assert many.high - many.low < few.high - few.low
    assert auc(FIRST, bad, seed=3) == many
    assert auc(FIRST, bad, seed=4) != many


def test_what_cannot_be_said() -> None:
    assert rank_correlation(FIRST, np.zeros(200)) is None
    with pytest.raises(InputError, match="both kinds"):
        auc(FIRST, np.zeros(200, dtype=bool))
    with pytest.raises(InputError, match="cannot be ranked"):
        auc(np.full(4, np.nan), np.arange(4) > 1)


def test_wilson() -> None:
    low, high = wilson(0, 10)
    assert low == pytest.approx(0.0, abs=1e-12)
    assert high == pytest.approx(0.2775, abs=1e-4)
    assert np.allclose(wilson(50, 100), (0.4038, 0.5962), atol=1e-4)
