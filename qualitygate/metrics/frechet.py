"""Fréchet distance of two sets of features, each seen as a Gaussian (Heusel et al. 2017), from statistics that add up.

``FID = |μ₁ − μ₂|² + tr(C₁ + C₂ − 2·√(C₁C₂))``, the covariances divided by N, not N − 1, as in the code of the StyleGAN papers. At small
N the distance is too large, by about a constant over N: `FrechetDistance` states by how much, and `extrapolated_frechet_distance` takes
the bias of the generated set away. With no more samples than features the covariances are singular and the distance is mostly bias.

A real set's root is made once, and generated features are multiplied by it once: what is left for every set that is held against it, a
jackknife's without a block included, is the eigenvalues of one symmetric matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
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
_PANEL = 256  # columns of outer products that are made at once, from the diagonal on: the other half is their mirror image
_POINTS = 15  # sizes of the subsets that the extrapolation is fitted to, as in Chong and Forsyth
_LEAST_SHARE = 0.1  # smallest of them, as a share of the set


class FrechetDistance(SetMetric):
    """FID of a group, and by how much it is too large at this number of samples."""

    def compute(self, group: Group, how: Resampling | None) -> Estimate:
        features, real, width = group.features, group.real, group.features.shape[1]
        _check_enough(min(len(group), len(real.features)), width)
        blocks = [] if how is None else [torch.from_numpy(block).to(features.device) for block in blocks_of(len(group), seed=how.seed)]
        fewest = len(group) - len(blocks[0]) if blocks else len(group)
        value, *without = frechet_distances(features, real.once(_reference), blocks if fewest > width else ())
        if without:
            found = Estimate.jackknife(value, without, len(group))
            return replace(found, note=f"too large by about {found.bias:.2g} at this number of samples")
        note = f"too few for an interval: {fewest:,} samples for {width:,} features" if blocks else None
        return Estimate(value, len(group), note=note)


class ExtrapolatedFrechetDistance(SetMetric):
    """FID of a whole set as its size goes to infinity."""

    def compute(self, group: Group, how: Resampling | None) -> Estimate:
        features, real, width = group.features, group.real, group.features.shape[1]
        _check_enough(min(len(group) // 2, len(real.features)), width)
        value = extrapolated_frechet_distance(features, real.once(_reference), seed=0 if how is None else how.seed)
        return Estimate(value, len(group), note="a straight line in 1/N, read off at 0; no interval")


def _check_enough(samples: int, width: int) -> None:
    if samples <= width:
        raise NotKnownError(f"too few: {samples:,} samples for {width:,} features; KID has no such limit")


def _reference(real: RealSet) -> FrechetReference:
    return FrechetReference.of(GaussianStatistics.of(real.features))


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
            for at in range(0, width, _PANEL):
                outer[at:, at : at + _PANEL].addmm_(exact[:, at:].T, exact[:, at : at + _PANEL])
        return cls(len(features), total, outer.tril() + outer.tril(-1).T)

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
        return torch.addr(self.outer, self.mean, self.mean, beta=1.0 / self.count, alpha=-1.0)


@dataclass(frozen=True)
class FrechetReference:
    """What others are held against, as a Gaussian.

    Attributes:
        mean: float64 (F,).
        trace: of the covariance.
        root: of the covariance, float64 (F, F): ``root @ root.T`` is it. Of a singular covariance, eigenvalues that rounding made negative
            count as 0, so that it needs no offset.
    """

    mean: Tensor
    trace: Tensor
    root: Tensor

    @classmethod
    def of(cls, statistics: GaussianStatistics) -> FrechetReference:
        """From the statistics of real features."""
        covariance = statistics.covariance
        root, failed = torch.linalg.cholesky_ex(covariance)  # any root serves, and this one takes a twentieth of the time
        if on_host(failed):
            values, vectors = torch.linalg.eigh(covariance)
            root = vectors * values.clamp(min=0.0).sqrt()
        return cls(statistics.mean, covariance.trace(), root)

    def view(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, F) as they are held against it: from its mean and times its root, float64 (N, F); and their squared distances from
        its mean, float64 (N,)."""
        mapped = torch.empty(features.shape, dtype=torch.float64, device=features.device)
        squares = mapped.new_empty(len(features))
        for part, out, square in zip(features.split(_ROWS), mapped.split(_ROWS), squares.split(_ROWS), strict=True):
            centred = part.double() - self.mean
            torch.mm(centred, self.root, out=out)
            square.copy_(centred.square_().sum(dim=1))
        return mapped, squares

    def distance(self, spread: Tensor, covariance: Tensor) -> float:
        """The distance of a set whose mean squared distance from this mean is ``spread``, scalar, and whose view has this covariance,
        float64 (F, F).

        ``|μ₁ − μ₂|² + tr(C₁)`` is the spread. With ``C₂ = RRᵀ`` the trace of ``√(C₁C₂)`` is the sum of the roots of the eigenvalues of
        ``RᵀC₁R``, the covariance, which is symmetric: no general matrix square root, and no imaginary part to drop.
        """
        shared = torch.linalg.eigvalsh(covariance).clamp(min=0.0).sqrt().sum()
        return max(0.0, float(on_host(spread + self.trace - 2.0 * shared)))


def frechet_distances(generated: Tensor, real: FrechetReference, blocks: Sequence[Tensor] = ()) -> list[float]:
    """The distance of generated features (N, F), and of them without each block of rows, int64 (n,), for a jackknife."""
    mapped, squares = real.view(generated)
    whole, total = GaussianStatistics.of(mapped), squares.sum()
    found = [real.distance(total / whole.count, whole.covariance)]
    for block in blocks:
        rest = whole - GaussianStatistics.of(mapped[block])
        found.append(real.distance((total - squares[block].sum()) / rest.count, rest.covariance))
    return found


def frechet_distance(first: GaussianStatistics, second: GaussianStatistics) -> float:
    """Fréchet distance of two Gaussians, in float64, from statistics alone.

    >>> x = torch.tensor([[0.0], [2.0]])
    >>> frechet_distance(GaussianStatistics.of(x), GaussianStatistics.of(x + 3.0))
    9.0

    Raises:
        InputError: features of different lengths, or of no samples.
    """
    _check_alike((first.count, len(first.total)), (second.count, len(second.total)))
    real, covariance = FrechetReference.of(second), first.covariance
    spread = (first.mean - second.mean).square().sum() + covariance.trace()
    return real.distance(spread, real.root.T @ covariance @ real.root)


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


def extrapolated_frechet_distance(features: Tensor, real: FrechetReference, *, seed: int = 0) -> float:
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
    mapped, squares = real.view(features)
    distances = []
    for draw, size in zip(uniforms(seed, Purpose.SUBSET, np.arange(len(sizes)), count), sizes, strict=True):
        rows = torch.from_numpy(np.sort(np.argsort(draw, kind="stable")[:size])).to(features.device)
        distances.append(real.distance(squares[rows].mean(), GaussianStatistics.of(mapped[rows]).covariance))
    return float(np.polyfit(1.0 / sizes, distances, 1)[1])
