"""Fréchet distance of two sets of features, each seen as a Gaussian (Heusel et al. 2017), from statistics that add up.

``FID = |μ₁ − μ₂|² + tr(C₁ + C₂ − 2·√(C₁C₂))``, the covariances divided by N, not N − 1, as in the code of the StyleGAN papers. At small
N the distance is too large, by about a constant over N: `FrechetDistance` states by how much, and `extrapolated_frechet_distance` takes
the bias of the generated set away. With no more samples than features the covariances are singular and the distance is mostly bias.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from qualitygate.errors import InputError
from qualitygate.generators.passes import on_host
from qualitygate.latents import Purpose, uniforms
from qualitygate.metrics.estimate import Estimate, NotKnownError, Resampling, blocks_of
from qualitygate.metrics.measured_set import Group, RealSet
from qualitygate.metrics.metric import SetMetric

_ROWS = 4096  # features that are turned into float64 at once
_POINTS = 15  # sizes of the subsets that the extrapolation is fitted to, as in Chong and Forsyth
_LEAST_SHARE = 0.1  # smallest of them, as a share of the set


class FrechetDistance(SetMetric):
    """FID of a group, and by how much it is too large at this number of samples."""

    def compute(self, group: Group, how: Resampling | None) -> Estimate:
        features, real, width = group.features, group.real, group.features.shape[1]
        _check_enough(min(len(group), len(real.features)), width)
        whole, reference = GaussianStatistics.of(features), real.once(_statistics)
        value = frechet_distance(whole, reference)
        if how is None:
            return Estimate(value, len(group))
        blocks = [torch.from_numpy(block).to(features.device) for block in blocks_of(len(group), seed=how.seed)]
        if (fewest := len(group) - len(blocks[0])) <= width:
            return Estimate(value, len(group), note=f"too few for an interval: {fewest:,} samples for {width:,} features")
        without = [frechet_distance(whole - GaussianStatistics.of(features[block]), reference) for block in blocks]
        found = Estimate.jackknife(value, without, len(group))
        return replace(found, note=f"too large by about {found.bias:.2g} at this number of samples")


class ExtrapolatedFrechetDistance(SetMetric):
    """FID of a whole set as its size goes to infinity."""

    def compute(self, group: Group, how: Resampling | None) -> Estimate:
        features, real, width = group.features, group.real, group.features.shape[1]
        _check_enough(min(len(group) // 2, len(real.features)), width)
        value = extrapolated_frechet_distance(features, real.once(_statistics), seed=0 if how is None else how.seed)
        return Estimate(value, len(group), note="a straight line in 1/N, read off at 0; no interval")


def _check_enough(samples: int, width: int) -> None:
    if samples <= width:
        raise NotKnownError(f"too few: {samples:,} samples for {width:,} features; KID has no such limit")


def _statistics(real: RealSet) -> GaussianStatistics:
    return GaussianStatistics.of(real.features)


@dataclass(frozen=True)
class GaussianStatistics:
    """Sums over a set of N features; the sums of two halves added are those of the whole, in whatever order.

    Attributes:
        count: N.
        total: sum of the features, float64 (F,).
        outer: sum of their outer products, float64 (F, F).
    """

    count: int
    total: Tensor
    outer: Tensor

    @classmethod
    def of(cls, features: Tensor) -> GaussianStatistics:
        """Statistics of features (N, F), on their device."""
        width = features.shape[1]
        total = torch.zeros(width, dtype=torch.float64, device=features.device)
        outer = torch.zeros(width, width, dtype=torch.float64, device=features.device)
        for part in features.split(_ROWS):
            exact = part.double()
            total += exact.sum(dim=0)
            outer.addmm_(exact.T, exact)
        return cls(len(features), total, outer)

    def __add__(self, other: GaussianStatistics) -> GaussianStatistics:
        return GaussianStatistics(self.count + other.count, self.total + other.total, self.outer + other.outer)

    def __sub__(self, part: GaussianStatistics) -> GaussianStatistics:
        return GaussianStatistics(self.count - part.count, self.total - part.total, self.outer - part.outer)

    @property
    def mean(self) -> Tensor:
        """float64 (F,)."""
        return self.total / self.count

    @property
    def covariance(self) -> Tensor:
        """float64 (F, F), divided by N."""
        return self.outer / self.count - torch.outer(self.mean, self.mean)


def frechet_distance(first: GaussianStatistics, second: GaussianStatistics) -> float:
    """Fréchet distance of two Gaussians, in float64.

    The trace of ``√(C₁C₂)`` is the sum of the roots of the eigenvalues of ``√C₁·C₂·√C₁``, which is symmetric: no general matrix square
    root, and no imaginary part to drop. Eigenvalues that rounding made negative count as 0, so nearly singular covariances need no
    offset.

    >>> x = torch.tensor([[0.0], [2.0]])
    >>> frechet_distance(GaussianStatistics.of(x), GaussianStatistics.of(x + 3.0))
    9.0

    Raises:
        InputError: features of different lengths, or of no samples.
    """
    _check_alike((first.count, len(first.total)), (second.count, len(second.total)))
    values, vectors = torch.linalg.eigh(first.covariance)
    root = (vectors * values.clamp(min=0.0).sqrt()) @ vectors.T
    inner = root @ second.covariance @ root
    shared = torch.linalg.eigvalsh((inner + inner.T) / 2.0).clamp(min=0.0).sqrt().sum()
    traces = first.covariance.trace() + second.covariance.trace()
    distance = (first.mean - second.mean).square().sum() + traces - 2.0 * shared
    return max(0.0, float(on_host(distance)))


def frechet_distance_of_few(first: Tensor, second: Tensor) -> float:
    """The same distance of two sets of features (N, F) and (M, F), for fewer samples than features.

    With ``C₁ = A₁ᵀA₁`` and ``C₂ = A₂ᵀA₂`` the trace of ``√(C₁C₂)`` is the sum of the singular values of ``A₁A₂ᵀ``: a matrix of N × M.
    At such numbers the distance is mostly bias; only sets of one size, held against one reference, may be compared by it.

    Raises:
        InputError: features of different lengths, or of no samples.
    """
    _check_alike(tuple(first.shape), tuple(second.shape))
    exact = first.double(), second.double()
    means = [one.mean(dim=0) for one in exact]
    roots = [(one - mean) / len(one) ** 0.5 for one, mean in zip(exact, means, strict=True)]
    shared = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    traces = sum(root.square().sum() for root in roots)
    return max(0.0, float(on_host((means[0] - means[1]).square().sum() + traces - 2.0 * shared)))


def _check_alike(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    """Shapes (N, F) of two sets of features."""
    if first[1] != second[1] or not first[0] or not second[0]:
        raise InputError(
            "These features cannot be compared", f"{first} and {second}", "samples on both sides, with features of the same extractor"
        )


def extrapolated_frechet_distance(features: Tensor, real: GaussianStatistics, *, seed: int = 0) -> float:
    """The distance of features (N, F) to real ones as N goes to infinity (Chong and Forsyth 2020): a straight line in 1/N, fitted to
    random subsets from a tenth of the set (or one more than there are features) to all of it, read off at 1/N = 0.

    The bias of the real set stays: it is the same for all generators held against this set.

    Raises:
        InputError: not twice as many samples as features, so that there is no line to fit.
    """
    count, width = features.shape
    if count < 2 * (width + 1):
        raise InputError(
            "Too few samples to extrapolate FID",
            f"{count} samples of {width} features",
            f"{2 * (width + 1)} samples",
            "make more samples, or use KID, which has no bias",
        )
    sizes = np.unique(np.linspace(max(width + 1, int(_LEAST_SHARE * count)), count, _POINTS).astype(int))
    distances = []
    for draw, size in zip(uniforms(seed, Purpose.SUBSET, np.arange(len(sizes)), count), sizes, strict=True):
        rows = np.sort(np.argsort(draw, kind="stable")[:size])
        distances.append(frechet_distance(GaussianStatistics.of(features[torch.from_numpy(rows).to(features.device)]), real))
    return float(np.polyfit(1.0 / sizes, distances, 1)[1])
