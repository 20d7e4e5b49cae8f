"""Numbers of a check: what is not finite is never left out of a mean."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from qualitygate import names
from qualitygate.metrics.measured_set import RealSet
from qualitygate.studies.check.sample import Drawing, NotKnownError, Sample, of_sample

HOW = Drawing(draws=50, seed=0, tail=0.05)
REAL = RealSet("photos", "r", torch.arange(10.0)[:, None])


def sample(**known: Any) -> Sample:
    """A sample of which only this is known."""
    return cast(Sample, SimpleNamespace(**{"columns": {}, "features": None, "discriminator": None, **known}))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_left_out_of_a_mean(value: float) -> None:
    values = np.where(np.arange(1000) < 700, value, 5.0)
    with pytest.raises(NotKnownError, match="700 of 1000 values of discriminator are not finite"):
        of_sample(names.DISCRIMINATOR, sample(discriminator=values), None, HOW)
    with pytest.raises(NotKnownError, match="700 of 1000 values of yield"):
        of_sample(names.YIELD, sample(columns={names.YIELD: values}), None, HOW)


def test_a_mean_of_finite_values_is_their_mean() -> None:
    assert of_sample(names.DISCRIMINATOR, sample(discriminator=np.arange(5.0)), None, HOW).value == 2.0


@pytest.mark.parametrize("metric", [names.REALISM, names.REALISM_TO_BASELINE])
def test_realism_of_a_copy_is_not_left_out(metric: str) -> None:
    near = torch.arange(8.0)[:, None] + 0.25
    assert np.isfinite(of_sample(metric, sample(features=near), REAL, HOW).value)
    with pytest.raises(NotKnownError, match="1 of 8 images equal one of photos"):
        of_sample(metric, sample(features=torch.cat([near[:7], REAL.features[5:6]])), REAL, HOW)
