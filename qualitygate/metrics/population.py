"""What is kept of images after they were made once: their features, and what the discriminator says of them. Never the images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qualitygate.features.compute import extract
from qualitygate.features.extractor import Extractor
from qualitygate.generators.base import Discriminator
from qualitygate.generators.passes import MICRO_BATCH, scored_pass


@dataclass(frozen=True)
class Population:
    """N images, as numbers. Groups are rows of it.

    Attributes:
        count: N.
        features: float32 (N, F), on the extractor's device; None without an extractor.
        discriminator: value of each image, float64 (N,), higher = more real; None without a discriminator.
        lengths: of the paths that start at each sample, float64 (N, paths), NaN where they were not measured; None if nowhere.
    """

    count: int
    features: Tensor | None = None
    discriminator: np.ndarray | None = None
    lengths: Tensor | None = None


class Observer:
    """Turns images into a population, some at a time.

    Args:
        extractor: makes the features.
        discriminator: the checkpoint's own, if it has one.
        device: where features are kept for the distances between them.
        known: features float32 (M, F) of the first M images, where they are known already.
    """

    def __init__(
        self, extractor: Extractor | None, discriminator: Discriminator | None, device: torch.device | str, known: np.ndarray | None = None
    ) -> None:
        self._extractor, self._discriminator, self._device = extractor, discriminator, device
        self._known = 0 if known is None else len(known)
        self._features: list[np.ndarray] = [] if known is None else [known]
        self._values: list[np.ndarray] = []
        self._count = 0

    def add(self, images: Tensor, labels: Tensor | None = None) -> None:
        """Look at images (N, channels, height, width), float32 in [-1, 1], with their labels if there are classes."""
        unknown = images[max(0, self._known - self._count) :]
        self._count += len(images)
        if not len(images):
            return
        if self._extractor is not None and len(unknown):
            self._features.append(extract(self._extractor, unknown))
        if self._discriminator is not None:
            self._values.append(discriminator_values(self._discriminator, images, labels))

    def population(self) -> Population:
        """What was seen, in the order in which it came."""
        features = torch.from_numpy(np.concatenate(self._features)).to(self._device) if self._features else None
        return Population(self._count, features, np.concatenate(self._values) if self._values else None)


def discriminator_values(discriminator: Discriminator, images: Tensor, labels: Tensor | None = None) -> np.ndarray:
    """Value of each image: float64 (N,), each judged as if it were alone. Passes have a fixed size, as everywhere."""
    judge, parts = discriminator.alone(), []
    for start in range(0, len(images), MICRO_BATCH):
        count = min(MICRO_BATCH, len(images) - start)
        rows = (start + torch.arange(MICRO_BATCH)).clamp(max=len(images) - 1)
        batch = images[rows.to(images.device)].to(discriminator.device)
        own = None if labels is None else labels[rows.to(labels.device)].to(discriminator.device)
        with scored_pass():
            parts.append(judge(batch, own)[:count].double().cpu().numpy())
    return np.concatenate(parts)
