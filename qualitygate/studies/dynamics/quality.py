"""How good a snapshot's images are, where there are real ones to hold them against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from qualitygate.features.compute import extract
from qualitygate.features.extractor import Extractor
from qualitygate.features.images import ImageSet
from qualitygate.generators.passes import Progress, silent
from qualitygate.metrics.measured_set import Population, RealSet, comparable
from qualitygate.metrics.metric import Ruler


@dataclass(frozen=True)
class AgainstReal:
    """Realism, precision, recall, density, coverage, KID and FID of images, by name; those without a number for so few images are left out.

    Attributes:
        extractor: makes the features.
        ruler: measures them.
        key: real images and extractor: only numbers of the same key can be compared.
    """

    extractor: Extractor
    ruler: Ruler
    key: str

    @classmethod
    def of(cls, images: ImageSet, extractor: Extractor, progress: Progress = silent) -> Self:
        """Held against these real images, whose features are made now."""
        features = torch.from_numpy(extract(extractor, images, progress))
        real = RealSet(images.name, images.sha256, features)
        how = comparable(extractor, images)
        return cls(extractor, Ruler(real, how, intervals=False), f"{real.digest}; {how}")

    def __call__(self, images: Tensor) -> dict[str, float]:
        features = torch.from_numpy(extract(self.extractor, images))
        measured = self.ruler.measure(self.ruler.subject(Population(len(images), features)))
        return {name: one.value for name, one in measured.items() if one.value is not None}
