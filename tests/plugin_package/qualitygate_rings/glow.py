"""A sample score: how active a layer is, on average. Of this one less is worse."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from qualitygate.policy.scores import Score
from qualitygate.scores.low_rate import ActivationRates

GLOW = Score("glow", "qualitygate_rings.glow:reader", higher_is_worse=False)


def reader(rates: ActivationRates, at: Sequence[float], device: torch.device, layers: tuple[int, ...]) -> Callable[[int, Tensor], Tensor]:
    """Reads a layer's activation (N, units, height, width): the score of each sample, (N, 1)."""
    return lambda layer, activation: activation.mean(dim=(1, 2, 3))[:, None]
