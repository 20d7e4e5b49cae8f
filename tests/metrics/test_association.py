"""AUC and rank correlation: by hand, against scipy, and intervals that are where they should be."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, spearmanr

from qualitygate.errors import InputError
from qualitygate.metrics.association import auc, rank_correlation

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
