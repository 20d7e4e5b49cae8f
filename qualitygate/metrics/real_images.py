"""Real images as generated ones are held against them: features, made once, and what a report says of where they come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch

from qualitygate.errors import InputError
from qualitygate.features.cache import real_features
from qualitygate.features.extractor import Extractor
from qualitygate.features.images import ImageSet
from qualitygate.generators.execution import Reporter
from qualitygate.metrics.real_set import RealSet
from qualitygate.records.metrics import RealInfo


@dataclass(frozen=True)
class RealImages:
    """Real images under an extractor.

    Attributes:
        reference: their features, ready to be compared with.
        key: of the extractor and of how the images were brought to size: only numbers of one key can be compared.
        info: what a report says of them.
    """

    reference: RealSet
    key: str
    info: RealInfo

    @classmethod
    def of(cls, images: ImageSet, extractor: Extractor | None, device: torch.device | str, reporter: Reporter) -> Self:
        """Read the images, or find what was computed of them before.

        Args:
            images: the images.
            extractor: makes the features.
            device: where they are compared.
            reporter: shows progress.

        Raises:
            InputError: there is no extractor; no more images than neighbours that are looked for.
        """
        if extractor is None:
            raise InputError("Real images need a feature extractor", "none", "an extractor", "give --extractor")
        with reporter.phase("real images", len(images)) as progress:
            features = torch.from_numpy(real_features(extractor, images, progress))
        info = RealInfo(name=images.name, digest=images.sha256, samples=len(images), preparation=images.preparation)
        return cls(RealSet(images.name, images.sha256, features.to(device)), comparable(extractor, images), info)


def comparable(extractor: Extractor, images: ImageSet) -> str:
    """What numbers against real images depend on besides the images: extractor and preparation."""
    return f"{extractor.key}; real images: {images.preparation}"
