"""Generated and real images as numbers: features, what the discriminator says, and how each generated one stands to the real set."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from qualitygate.errors import InputError
from qualitygate.features.cache import real_features
from qualitygate.features.compute import extract
from qualitygate.features.extractor import Extractor
from qualitygate.features.images import ImageSet
from qualitygate.generators.base import Discriminator
from qualitygate.generators.passes import MICRO_BATCH, Reporter, scored_pass
from qualitygate.metrics import manifold
from qualitygate.metrics.frechet import GaussianStatistics
from qualitygate.metrics.kernel import KernelReference
from qualitygate.records.metrics_report import RealInfo


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


@dataclass(frozen=True)
class RealSet:
    """Real images, as features; what groups are held against is worked out once, when it is first needed.

    Attributes:
        name: of the set.
        digest: hash of its content.
        features: float32 (M, F).
        k: neighbours.

    Raises:
        InputError: no more than k images.
    """

    name: str
    digest: str
    features: Tensor
    k: int = manifold.K

    def __post_init__(self) -> None:
        if len(self.features) <= self.k:
            raise InputError(f"There are too few real images in {self.name}", str(len(self.features)), f"more than {self.k}")

    @cached_property
    def radii(self) -> Tensor:
        """Distance of each image to its k-th neighbour, float64 (M,)."""
        return manifold.neighbour_radii(self.features, self.k)

    @cached_property
    def statistics(self) -> GaussianStatistics:
        return GaussianStatistics.of(self.features)

    @cached_property
    def kernel(self) -> KernelReference:
        return KernelReference.of(self.features)


@dataclass(frozen=True)
class Standing:
    """How each of N samples stands to a real set, whatever group it is in. All float64 (N,).

    Attributes:
        inside: 1 if it lies in a real ball, else 0: its part of precision.
        density: its part of density.
        realism: its realism score.
        kernel: its part of KID, as a tensor on the features' device.
    """

    inside: np.ndarray
    density: np.ndarray
    realism: np.ndarray
    kernel: Tensor

    @classmethod
    def of(cls, features: Tensor, real: RealSet) -> Standing:
        """The standing of features (N, F)."""
        within = manifold.balls_around(features, real.features, real.radii) > 0
        shares = manifold.balls_around(features, real.features, real.radii, strict=True).double() / real.k
        ratios = manifold.realism(features, real.features, real.radii)
        inside, density, realism = (column.double().cpu().numpy() for column in (within, shares, ratios))
        return cls(inside, density, realism, real.kernel.rows(features))


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
