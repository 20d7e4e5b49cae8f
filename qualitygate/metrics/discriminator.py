"""What the checkpoint's own discriminator says of images: higher = more real to it."""

from __future__ import annotations

from qualitygate.metrics.estimate import Estimate, Resampling, mean
from qualitygate.metrics.measured_set import Group
from qualitygate.metrics.metric import SetMetric


class DiscriminatorValue(SetMetric):
    """Its mean over the group."""

    def compute(self, group: Group, how: Resampling | None) -> Estimate:
        assert group.of.discriminator is not None
        return mean(group.of.discriminator[group.rows], how)
