from __future__ import annotations

import pytest
import torch

from qualitygate.errors import InputError
from qualitygate.metrics.inception_score import split_scores


@pytest.mark.parametrize("splits", [1, 10])
def test_agrees(recorded, expected, splits: int) -> None:
    found = split_scores(recorded.tensors["input/probs"], splits)
    mean, spread = float(found.mean()), float(found.std(correction=0))
    assert mean == pytest.approx(expected[f"nvlabs_is_splits{splits}"]["mean"], rel=1e-6)
    assert spread == pytest.approx(expected[f"nvlabs_is_splits{splits}"]["std"], rel=1e-5, abs=1e-9)


def test_bounds() -> None:
    assert split_scores(torch.eye(5).repeat(4, 1), splits=2).tolist() == pytest.approx([5.0] * 2)
    assert split_scores(torch.full((20, 5), 0.2)).tolist() == pytest.approx([1.0] * 10)


def test_too_few() -> None:
    with pytest.raises(InputError, match="at least 10"):
        split_scores(torch.eye(9))
