"""The table of scores: columns are named as `names` promises, and read back as they were written."""

from __future__ import annotations

import pytest

from qualitygate import names
from qualitygate.policy.scores import CLA, LOW_RATE, NEVER_SEEN, RISK, SCORES, ScoreColumn, cla_layer, parse

PROMISED = {
    names.low_rate(0.1): ScoreColumn(LOW_RATE, 0.1),
    names.low_rate(0.02, 12): ScoreColumn(LOW_RATE, 0.02, 12),
    names.low_rate(1.0, 0): ScoreColumn(LOW_RATE, 1.0, 0),
    names.never_seen(): ScoreColumn(NEVER_SEEN),
    names.never_seen(3): ScoreColumn(NEVER_SEEN, layer=3),
    names.cla(7): ScoreColumn(CLA, layer=7),
    names.RISK: ScoreColumn(RISK),
}


@pytest.mark.parametrize("column", PROMISED)
def test_a_column_is_read_as_it_was_written(column: str) -> None:
    found = parse(column)
    assert found == PROMISED[column]
    assert found is not None
    assert found.score.column(found.rate, found.layer) == column


@pytest.mark.parametrize(
    "column",
    [
        *("", "low_rate", "low_rate_", "low_rate_0.10", "low_rate_.1", "low_rate_1e-05", "low_rate_nan", "low_rate_0.1/layer_01"),
        *("low_rate_0.1/layer_", "low_rate_0.1/layer_-1", "low_rate_0.1/layer_²", "low_rate_0.1/q0.9", "low_rate_0.1/layer_1/layer_2"),
        *("never_seen_active_0.1", "never_seen", "cla", "cla_0.1/layer_1", "cla_low/layer_1", "cla_5x3/layer_1", "risk/layer_1", "risk_1"),
        *("ablation_0.2/low_rate_0.1/layer_3", "activation_mean/layer_1", "low_rate_share_0.1", "moved", "/layer_1"),
    ],
)
def test_what_is_no_score(column: str) -> None:
    assert parse(column) is None
    assert cla_layer(column) is None


def test_the_columns_of_a_layer() -> None:
    assert LOW_RATE.columns((0.1, 0.3), 2) == [names.low_rate(0.1, 2), names.low_rate(0.3, 2)]
    assert NEVER_SEEN.columns((0.1, 0.3)) == [names.never_seen()]
    assert cla_layer("cla/layer_4") == 4


def test_more_is_worse_of_all_of_ours() -> None:
    assert all(score.higher_is_worse for score in SCORES.values())
