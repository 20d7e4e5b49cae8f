"""A metric of sets: how much the images of a group vary, as a share of how much real ones do."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from qualitygate.features.extractor import Extractor
from qualitygate.metrics.estimate import Estimate, NotKnownError, Resampling, blocks_of
from qualitygate.metrics.measured_set import Group
from qualitygate.metrics.metric import SetMetric
from qualitygate.records.metrics import Metric


class Variety(SetMetric):
    """Ratio of the total variances of the features."""

    def compute(self, group: Group, how: Resampling | None) -> Estimate:
        if len(group) < 2:
            raise NotKnownError(f"too few: {len(group)} samples")
        of_real, rows = _variance(group.real.features), np.arange(len(group))
        value = _variance(group.features) / of_real
        if how is None:
            return Estimate(value, len(group))
        parts = (np.setdiff1d(rows, block) for block in blocks_of(len(group), seed=how.seed))
        return Estimate.jackknife(value, [_variance(group.features[part]) / of_real for part in parts], len(group))


class Pixels(Extractor):
    """Features of tiny images in colour: their pixels."""

    key, features = "pixels", 48

    def __call__(self, images: Tensor) -> Tensor:
        return images.expand(-1, 3, -1, -1).flatten(1).float()


def _variance(features: Tensor) -> float:
    return float(features.double().var(dim=0, correction=0).sum())


VARIETY = Variety(Metric("variety", "variety", higher_is_better=True, needs="real"))
