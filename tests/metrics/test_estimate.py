from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, spearmanr

from qualitygate.errors import InputError
from qualitygate.metrics import estimate as intervals
from qualitygate.metrics.estimate import auc, blocks_of, bootstrap_mean, bootstrap_ratio, jackknife, rank_correlation, student_t

VALUES = np.random.default_rng(0).normal(size=400)


def test_the_bootstrap_is_about_as_wide_as_theory_says() -> None:
    found = bootstrap_mean(VALUES)
    error = VALUES.std() / np.sqrt(len(VALUES))
    assert found.value == VALUES.mean()
    assert found.low < found.value < found.high
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.1)


def test_every_argument_has_an_effect_and_the_seed_decides() -> None:
    assert bootstrap_mean(VALUES) == bootstrap_mean(VALUES)
    assert bootstrap_mean(VALUES, seed=1) != bootstrap_mean(VALUES)
    narrow, wide = bootstrap_mean(VALUES, level=0.5), bootstrap_mean(VALUES)
    assert wide.low < narrow.low < narrow.high < wide.high
    assert bootstrap_mean(VALUES, resamples=50) != wide


def test_memory_is_bounded_without_changing_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    before = bootstrap_mean(VALUES, resamples=100)
    monkeypatch.setattr(intervals, "_NUMBERS", 1)
    assert bootstrap_mean(VALUES, resamples=100) == before


def test_a_ratio_weighs_every_value_alike() -> None:
    sums, counts = np.array([6.0, 1.0]), np.array([3.0, 1.0])
    found = bootstrap_ratio(sums, counts)
    assert found.value == 7 / 4
    assert (found.low, found.high) == (1.0, 2.0)


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    left_out = [(VALUES.sum() - value) / (len(VALUES) - 1) for value in VALUES]
    found = jackknife(float(VALUES.mean()), left_out)
    error = VALUES.std(ddof=1) / np.sqrt(len(VALUES))
    assert (found.high - found.low) / 2 == pytest.approx(student_t(0.95, 399) * error)
    assert found.bias == pytest.approx(0.0, abs=1e-10)
    narrow = jackknife(float(VALUES.mean()), left_out, level=0.5)
    assert narrow.high < found.high


def test_the_jackknife_sees_the_bias_of_a_variance() -> None:
    """Divided by N it is too small by about the variance over N."""
    left_out = [np.delete(VALUES, row).var() for row in range(len(VALUES))]
    assert jackknife(VALUES.var(), left_out).bias == pytest.approx(-VALUES.var(ddof=1) / len(VALUES), rel=1e-6)


def test_blocks_hold_every_row_once() -> None:
    blocks = blocks_of(23, 5)
    assert sorted(np.concatenate(blocks).tolist()) == list(range(23))
    assert sorted(map(len, blocks)) == [4, 4, 5, 5, 5]
    assert len(blocks_of(3)) == 3
    assert any(not np.array_equal(one, other) for one, other in zip(blocks, blocks_of(23, 5, seed=1), strict=True))


@pytest.mark.parametrize(("freedom", "quantile"), [(4, 2.776), (9, 2.262), (30, 2.042)])
def test_student(freedom: int, quantile: float) -> None:
    assert student_t(0.95, freedom) == pytest.approx(quantile, rel=3e-3)


def test_refusals() -> None:
    with pytest.raises(InputError, match="at least one value"):
        bootstrap_ratio(np.zeros(3), np.zeros(3))
    with pytest.raises(InputError, match="at least 2"):
        jackknife(1.0, [1.0])


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
