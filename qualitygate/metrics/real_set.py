"""A set of real images as features, and how generated samples stand to it one by one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from qualitygate.errors import InputError
from qualitygate.metrics import manifold
from qualitygate.metrics.frechet import GaussianStatistics
from qualitygate.metrics.kernel import KernelReference


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
