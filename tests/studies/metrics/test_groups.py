from __future__ import annotations

import numpy as np
import pytest

from qualitygate.errors import InputError
from qualitygate.studies.metrics.groups import extremes, group_size, random_groups


def test_extremes() -> None:
    lowest, highest = extremes(np.array([3.0, 1.0, 1.0, np.inf, 2.0]), 2)
    assert lowest.tolist() == [1, 2]
    assert highest.tolist() == [0, 3]
    with pytest.raises(InputError, match="1 of 2 have none"):
        extremes(np.array([1.0, np.nan]), 1)


def test_group_size() -> None:
    assert group_size(10_000) == 1000
    for share in (0.0, 0.6, 0.001):
        with pytest.raises(InputError, match="A group must be a part"):
            group_size(100, share)


def test_random_groups() -> None:
    groups = random_groups(50, 10)
    assert len(groups) == 30
    assert all(len(set(rows.tolist())) == 10 and rows.max() < 50 for rows in groups)
    assert len({tuple(rows) for rows in groups}) == 30
    assert all(np.array_equal(one, other) for one, other in zip(groups, random_groups(50, 10), strict=True))
    assert not np.array_equal(groups[0], random_groups(50, 10, seed=1)[0])
    drawn = np.bincount(np.concatenate(random_groups(20, 5, 2000)), minlength=20)
    assert drawn.std() / drawn.mean() < 0.1
