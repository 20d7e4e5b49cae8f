"""What the checkpoint's own discriminator says of images: higher = more real to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from qualitygate.generators.base import Discriminator
from qualitygate.generators.passes import MICRO_BATCH, scored_pass
from qualitygate.metrics.estimate import Estimate, Resampling, mean
from qualitygate.metrics.metric import SetMetric

if TYPE_CHECKING:
    from qualitygate.metrics.measured_set import Group


class DiscriminatorValue(SetMetric):
    """Its mean over the group."""

    def compute(self, group: Group, how: Resampling | None) -> Estimate:
        assert group.of.discriminator is not None
        return mean(group.of.discriminator[group.rows], how)


def discriminator_values(discriminator: Discriminator, images: Tensor, labels: Tensor | None = None) -> np.ndarray:
    """Value of each image: float64 (N,), each judged as if it were alone. Passes have a fixed size, as everywhere.

    Images are float32 (N, channels, height, width) in [-1, 1], labels int64 (N,), if there are classes.
    """
    judge, parts = discriminator.alone(), []
    for start in range(0, len(images), MICRO_BATCH):
        count = min(MICRO_BATCH, len(images) - start)
        rows = (start + torch.arange(MICRO_BATCH)).clamp(max=len(images) - 1)
        batch = images[rows.to(images.device)].to(discriminator.device)
        own = None if labels is None else labels[rows.to(labels.device)].to(discriminator.device)
        with scored_pass():
            parts.append(judge(batch, own)[:count].double().cpu().numpy())
    return np.concatenate(parts)
