"""One risk a sample: how its parts are joined, and how weights are fitted."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qualitygate.errors import InputError, PolicyError
from qualitygate.policy.decide import Risk, default_weights, fit_weights

REFERENCE = {"a": np.array([1.0, 2.0, 3.0, 4.0]), "b": np.array([0.0, 0.0, 0.0, 9.0, np.nan])}


def test_by_hand() -> None:
    risk = Risk(REFERENCE, {"a": 1.0, "b": 2.0})
    got = risk({"a": np.array([0.0, 3.0, 5.0]), "b": np.array([0.0, 9.0, 10.0])})
    # a: 4, 2 and 0 of 4 are as high; b: 4, 1 and 0 of 4
    expected = [-math.log(5 / 5) - 2 * math.log(5 / 5), -math.log(3 / 5) - 2 * math.log(2 / 5), -3 * math.log(1 / 5)]
    assert got == pytest.approx(expected)


def test_it_never_falls_as_a_part_rises() -> None:
    random = np.random.default_rng(0)
    risk = Risk({"a": random.normal(size=200), "b": random.normal(size=100)}, {"a": 1.0, "b": 0.3})
    low = {"a": random.normal(size=500), "b": random.normal(size=500)}
    high = {name: values + random.exponential(size=500) for name, values in low.items()}
    assert (risk(high) >= risk(low)).all()


def test_a_part_that_is_not_known_leaves_the_risk_unknown() -> None:
    assert np.isnan(Risk(REFERENCE, {"a": 1.0})({"a": np.array([np.nan])})).all()


def test_parts_must_be_calibrated_and_recorded() -> None:
    with pytest.raises(PolicyError, match="not calibrated"):
        Risk(REFERENCE, {"c": 1.0})
    with pytest.raises(PolicyError, match="no b"):
        Risk(REFERENCE, {"a": 1.0, "b": 1.0})({"a": np.zeros(1)})


def test_the_default_takes_every_layer_never_seen_neurons_and_cla() -> None:
    assert default_weights(0.1, (0, 2), (1,)) == {
        "low_rate_0.1/layer_0": 1.0,
        "low_rate_0.1/layer_2": 1.0,
        "never_seen_active": 1.0,
        "cla/layer_1": 1.0,
    }


def test_fitted_weights_find_the_part_that_tells_and_are_never_negative() -> None:
    random = np.random.default_rng(1)
    broken = random.random(2000) < 0.1
    columns = {
        "tells": random.normal(size=2000) + 2.0 * broken,
        "noise": random.normal(size=2000),
        "against": random.normal(size=2000) - 1.0 * broken,
    }
    risk = Risk({name: random.normal(size=1000) for name in columns}, dict.fromkeys(columns, 1.0))
    weights = fit_weights(risk, columns, broken)
    assert weights["against"] == 0.0
    assert weights["tells"] > 5 * weights["noise"] >= 0.0
    assert sum(weights.values()) == pytest.approx(3.0)

    fitted = Risk({name: random.normal(size=1000) for name in columns}, weights)
    assert _auc(fitted(columns), broken) > _auc(risk(columns), broken)


@pytest.mark.parametrize(("broken", "message"), [([0, 0], "both kinds"), ([1, 1], "both kinds")])
def test_weights_need_both_kinds(broken: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_weights(Risk(REFERENCE, {"a": 1.0}), {"a": np.zeros(2)}, np.array(broken, dtype=bool))


def test_scores_that_say_nothing_are_not_weighted() -> None:
    risk = Risk({"a": np.arange(100.0)}, {"a": 1.0})
    with pytest.raises(InputError, match="No part"):
        fit_weights(risk, {"a": np.array([90.0, 95.0, 1.0, 2.0])}, np.array([0, 0, 1, 1], dtype=bool))


def _auc(score: np.ndarray, broken: np.ndarray) -> float:
    return float(np.mean(score[broken][:, None] > score[~broken][None]))
