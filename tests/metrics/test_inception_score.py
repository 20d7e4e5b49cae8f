from __future__ import annotations

import pytest
import torch

from qualitygate.errors import InputError
from qualitygate.metrics.inception_score import inception_score


@pytest.mark.parametrize("splits", [1, 10])
def test_agrees(recorded, expected, splits: int) -> None:
    mean, spread = inception_score(recorded.tensors["input/probs"], splits)
    assert mean == pytest.approx(expected[f"nvlabs_is_splits{splits}"]["mean"], rel=1e-6)
    assert spread == pytest.approx(expected[f"nvlabs_is_splits{splits}"]["std"], rel=1e-5, abs=1e-9)


def test_bounds() -> None:
    assert inception_score(torch.eye(5).repeat(4, 1), splits=2) == pytest.approx((5.0, 0.0))
    assert inception_score(torch.full((20, 5), 0.2)) == pytest.approx((1.0, 0.0))


def test_too_few() -> None:
    with pytest.raises(InputError, match="at least 10"):
        inception_score(torch.eye(9))
