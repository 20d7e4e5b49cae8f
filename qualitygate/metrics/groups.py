"""Groups of samples: sets of rows, never images."""

from __future__ import annotations

import numpy as np

from qualitygate.errors import InputError
from qualitygate.latents import uniforms
from qualitygate.metrics.intervals import GROUPS

RANDOM_GROUPS = 30
"""Random groups that stand for chance, as in the papers."""
SHARE = 0.1
"""Share of the samples in a group, as in the papers: 1,000 of 10,000."""


def group_size(count: int, share: float = SHARE) -> int:
    """Samples in a group.

    Raises:
        InputError: a share outside (0, 0.5], or one that comes to no sample.
    """
    size = round(count * share)
    if not 0.0 < share <= 0.5 or not size:
        raise InputError(
            "A group must be a part of the samples",
            f"a share of {share:g} of {count} samples",
            "a share in (0, 0.5] that comes to at least one sample",
        )
    return size


def extremes(scores: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows with the lowest and with the highest scores, ``size`` of each, in rising order; of equal scores the earlier row is the lower.

    Args:
        scores: (N,), not NaN; infinite is highest.
        size: of each group, at most half of N.

    Raises:
        InputError: scores that are NaN.
    """
    if np.isnan(scores).any():
        missing = int(np.isnan(scores).sum())
        raise InputError(
            "Samples without a score cannot be ranked",
            f"{missing} of {len(scores)} have none",
            "a score for each",
            "choose a score that every sample has",
        )
    order = np.argsort(scores, kind="stable")
    return np.sort(order[:size]), np.sort(order[len(order) - size :])


def random_groups(count: int, size: int, groups: int = RANDOM_GROUPS, *, seed: int = 0) -> list[np.ndarray]:
    """Rows of random groups, each drawn without replacement from all ``count`` samples."""
    draws = uniforms(seed, GROUPS, np.arange(groups), count)
    return [np.sort(np.argpartition(draw, size - 1)[:size]) for draw in draws]
