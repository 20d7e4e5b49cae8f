"""Numbers of one snapshot, and what changed since the one before: worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from qualitygate.studies.dynamics.measure import SnapshotScores, rising_units, summary


def scores(units: list[float], low: list[bool], rates: list[float], parts: list[float] | None = None, layer: int = 3) -> SnapshotScores:
    return SnapshotScores(
        sample_cla={layer: np.array([1.0, 3.0])},
        unit_cla={layer: np.array([units, units])},
        scale={layer: 0.5},
        unit_rate={layer: np.array(rates)},
        low_rate={layer: np.array(low).reshape(-1, 1, 1)},
        contribution={} if parts is None else {layer: np.array(parts)},
        metrics={"fid": 12.0},
    )


BEFORE = scores([0.1, 0.5, 0.2], [True, False, False], [0.2, 0.4, 0.6], [-1.0, 2.0, -3.0])
NOW = scores([0.4, 0.5, 0.1], [False, True, False], [0.1, 0.5, 0.4], [-1.0, 2.0, -3.0])


def test_one_snapshot() -> None:
    found = summary(NOW)
    assert found["dynamics/cla_mean/layer_3"] == 2.0
    assert found["dynamics/cla_q0.9/layer_3"] == pytest.approx(2.8)
    assert found["dynamics/cla_unit_max/layer_3"] == 0.5
    assert found["dynamics/activation_scale/layer_3"] == 0.5
    assert found["dynamics/activation_rate/layer_3"] == pytest.approx(1 / 3)
    assert found["dynamics/low_rate_share/layer_3"] == pytest.approx(1 / 3)
    assert found["dynamics/units_against_realism/layer_3"] == pytest.approx(2 / 3)
    # against realism 3, 1, −2; CLA 0.1, 0.4, 0.5: the opposite order
    assert found["dynamics/against_realism_cla_rank_correlation/layer_3"] == pytest.approx(-1.0)
    assert found["dynamics/fid"] == 12.0
    assert not any("born" in name for name in found)


def test_against_the_snapshot_before() -> None:
    found = summary(NOW, BEFORE)
    assert found["dynamics/low_rate_born/layer_3"] == pytest.approx(1 / 3)
    assert found["dynamics/low_rate_gone/layer_3"] == pytest.approx(1 / 3)
    assert found["dynamics/rate_change_of_units_against/layer_3"] == pytest.approx((-0.1 - 0.2) / 2)
    assert found["dynamics/rate_change_of_units_for/layer_3"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    "before",
    [scores([0.1], [True], [0.2], [1.0]), scores([0.1, 0.5, 0.2], [True, False, False], [0.2, 0.4, 0.6], [1.0, 1.0, 1.0], layer=1)],
    ids=["other size", "other layer"],
)
def test_layers_that_do_not_match_are_not_compared(before: SnapshotScores) -> None:
    assert summary(NOW, before) == summary(NOW)


def test_rise_is_from_the_lowest_before() -> None:
    low = scores([0.2, 0.1, 0.9], [False] * 3, [0.5] * 3)
    assert rising_units([BEFORE, low, NOW], 3, 2) == [(1, pytest.approx(0.4)), (0, pytest.approx(0.3))]
    other = scores([9.0], [False], [0.5])
    assert rising_units([other, NOW], 3, 1) == [(0, 0.0)]
    assert rising_units([BEFORE, NOW], 2) == []
    assert rising_units([], 3) == []
