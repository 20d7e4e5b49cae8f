"""Agreement of two rankings, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from qualitygate.errors import InputError
from qualitygate.units.compare import compare, joined, rank_correlation
from qualitygate.units.score import UnitScores


def scores(source: str, *of_layers: list[float]) -> UnitScores:
    return UnitScores.of_layers({layer: torch.tensor(one) for layer, one in enumerate(of_layers)}, source, {})


def test_rank_correlation() -> None:
    assert rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([10.0, 100.0, 1000.0])) == pytest.approx(1.0)
    assert rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])) == pytest.approx(-1.0)
    # ranks 1, 2, 3, 4 and 2, 1, 3.5, 3.5
    assert rank_correlation(np.arange(4.0), np.array([5.0, 4.0, 9.0, 9.0])) == pytest.approx(3.5 / math.sqrt(5 * 4.5))
    assert math.isnan(rank_correlation(np.arange(3.0), np.zeros(3)))


def test_every_pair_at_every_layer_that_both_know() -> None:
    a = scores("a", [4.0, 3.0, 2.0, 1.0], [1.0, 2.0])
    b = scores("b", [4.0, 1.0, 3.0, float("nan")], [2.0, 1.0])
    c = scores("c", [0.0, 1.0, 2.0, 3.0])
    found = {(one.layer, one.first, one.second): one for one in compare([a, b, c], top=2)}
    assert found.keys() == {(0, "a", "b"), (0, "a", "c"), (0, "b", "c"), (1, "a", "b")}
    ab = found[0, "a", "b"]
    assert (ab.units, ab.top, ab.overlap) == (3, 2, 0.5)
    assert ab.correlation == pytest.approx(0.5)  # ranks 3, 2, 1 and 3, 1, 2
    assert ab.by_chance == pytest.approx(2 / 3)
    assert found[0, "a", "c"].overlap == 0.0
    assert found[0, "a", "c"].correlation == pytest.approx(-1.0)
    assert found[1, "a", "b"].overlap == 1.0


def test_a_source_without_any_score() -> None:
    (one,) = compare([scores("a", [1.0]), scores("b", [float("nan")])])
    assert one.units == 0
    assert math.isnan(one.correlation)
    assert math.isnan(one.overlap)


def test_no_top() -> None:
    with pytest.raises(InputError, match="Not a number of units"):
        compare([], top=0)


def test_joined_is_the_mean_rank_in_the_layer() -> None:
    a = scores("a", [4.0, 3.0, 2.0, 1.0], [1.0, 2.0])
    b = scores("b", [0.0, 0.0, 5.0, float("nan")])
    found = joined([a, b])
    assert found.of(0).tolist() == pytest.approx([(1 + 0.5) / 2, (0.75 + 0.5) / 2, (0.5 + 1) / 2, 0.25])
    assert found.of(1).tolist() == [0.5, 1.0]
    assert found.settings == {"sources": ["a", "b"]}
    nothing = scores("a", [float("nan"), 1.0])
    assert math.isnan(joined([nothing]).of(0)[0])
