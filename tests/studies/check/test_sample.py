"""Numbers of a check: what is not finite is never left out of a mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from qualitygate import names
from qualitygate.metrics.compare import compare
from qualitygate.metrics.estimate import NotKnownError, Resampling
from qualitygate.metrics.measured_set import RealSet
from qualitygate.policy.model import Policy
from qualitygate.records.check import RuleState
from qualitygate.studies.check.sample import Sample

HOW = Resampling(seed=0, draws=50, tail=0.05)
REAL = RealSet("photos", "r", torch.arange(10.0)[:, None])


def sample(count: int, **known: Any) -> Sample:
    """A sample of which only this is known."""
    made = object.__new__(Sample)
    nothing = {"ids": np.arange(count), "columns": {}, "features": None, "discriminator": None, "lengths": None, "_sets": {}}
    made.__dict__.update(nothing | known)
    return made


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_left_out_of_a_mean(value: float) -> None:
    values = np.where(np.arange(1000) < 700, value, 5.0)
    with pytest.raises(NotKnownError, match="700 of 1000 values of discriminator are not finite"):
        sample(1000, discriminator=values).estimate(names.DISCRIMINATOR, None, HOW)
    with pytest.raises(NotKnownError, match="700 of 1000 values of yield"):
        sample(1000, columns={names.YIELD: values}).estimate(names.YIELD, None, HOW)


def test_a_mean_of_finite_values_is_their_mean() -> None:
    assert sample(5, discriminator=np.arange(5.0)).estimate(names.DISCRIMINATOR, None, HOW).value == 2.0


@pytest.mark.parametrize("metric", [names.REALISM, names.REALISM_TO_BASELINE])
def test_realism_of_a_copy_is_not_left_out(metric: str) -> None:
    others = -1.0 - torch.arange(8.0)[:, None]
    assert np.isfinite(sample(8, features=others).estimate(metric, REAL, HOW).value)
    with pytest.raises(NotKnownError, match="1 of 8 images equal one of photos"):
        sample(8, features=torch.cat([others[:7], REAL.features[5:6]])).estimate(metric, REAL, HOW)


def test_a_few_copies_move_no_realism_and_many_fail_the_check() -> None:
    random = torch.Generator().manual_seed(0)
    real = RealSet("photos", "r", torch.randn(200, 8, generator=random))
    honest = torch.randn(1000, 8, generator=random)
    (rule,) = (one for one in Policy().check_rules() if one.metric == names.COPIES)
    for copies, state in ((0, RuleState.PASSED), (9, RuleState.INCONCLUSIVE), (40, RuleState.FAILED)):
        of = sample(1000, features=torch.cat([honest[copies:], real.features[:copies]]))
        assert compare(rule, of.estimate(names.COPIES, real, HOW), None, 0.001).state is state
        if state is RuleState.FAILED:
            with pytest.raises(NotKnownError, match="40 of 1000 images equal one of photos"):
                of.estimate(names.REALISM, real, HOW)
        else:
            alone = sample(1000, features=honest).estimate(names.REALISM, real, HOW).value
            assert of.estimate(names.REALISM, real, HOW).value == pytest.approx(alone, rel=0.01)


def test_what_is_missing_is_said() -> None:
    with pytest.raises(NotKnownError, match="no discriminator"):
        sample(8).estimate(names.DISCRIMINATOR, None, HOW)
    with pytest.raises(NotKnownError, match="no path lengths"):
        sample(8).estimate(names.PPL, None, HOW)
    with pytest.raises(NotKnownError, match="too few: 2 samples for 3 neighbours"):
        sample(2, features=torch.zeros(2, 1)).estimate(names.RECALL, REAL, HOW)
