"""Fréchet distance of two sets of features, each seen as a Gaussian (Heusel et al. 2017), from statistics that add up.

``FID = |μ₁ − μ₂|² + tr(C₁ + C₂ − 2·√(C₁C₂))``, the covariances divided by N, not N − 1, as in the code of the StyleGAN papers. At small
N the distance is too large, by about a constant over N: `FrechetDistance` states by how much, and `extrapolated_frechet_distance` takes
the bias of the generated set away. With no more samples than features the covariances are singular and the distance is mostly bias: it is
worked out all the same, from the products of N samples instead of F features.

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
_POINTS = 15  # sizes of the subsets that the extrapolation is fitted to, as in Chong and Forsyth
_LEAST_SHARE = 0.1  # smallest of them, as a share of the set
_NO_DISTANCE = 1e-8  # of the covariance's trace: what rounding leaves of 0


class FrechetDistance(SetMetric):
    """FID of a group of any number, and by how much it is too large at this one. With no more samples than features it is mostly bias: it
    stands without an interval, beside what as many real images would have."""

    def compute(self, group: Group, how: Resampling | None) -> Estimate:
        features, real, (count, width) = group.features, group.real, group.features.shape
        blocks = [] if how is None else [torch.from_numpy(block).to(features.device) for block in blocks_of(count, seed=how.seed)]
        fewest = min(count - len(blocks[0]) if blocks else count, len(real.features))
        reference = real.once(_reference)
        value, *without = frechet_distances(features, reference, blocks if fewest > width else ())
        if without:
            found = Estimate.jackknife(value, without, count)
            return replace(found, note=_bias(found, len(real.features), float(on_host(reference.trace))))
        note = (
            f"too few for an interval: {fewest:,} samples for {width:,} features; KID has no such limit; {_mostly_bias(real, count)}"
            if blocks
            else None
        )
        return Estimate(value, count, note=note)


def _bias(found: Estimate, real: int, trace: float) -> str:
    """By how much a distance is too large, both sides counted: the real one's bias goes like 1/M too."""
    if found.value <= _NO_DISTANCE * trace:
        return "0 within rounding: both sides have the same mean and covariance"
    own = found.bias or 0.0
    of_real = f"and by {own * found.samples / real:.2g} of the {real:,} real ones, if they vary as much"
    return f"too large by about {own:.2g} of the {found.samples:,} generated images, {of_real}"


def _mostly_bias(real: RealSet, count: int) -> str:
    """What as many real images would have, beside all of them: their true distance is 0."""
    if count >= len(real.features):
        return "mostly bias: compare it at this number of samples alone"
    return f"mostly bias: {count:,} of the real images themselves are at {real.once(_floor, count):.3g}"


def _floor(real: RealSet, count: int) -> float:
    """The distance of so many real images from all of them."""
    rows = np.sort(np.argsort(uniforms(0, Purpose.SUBSET, np.arange(1), len(real.features))[0], kind="stable")[:count])
    return frechet_distances(real.features[torch.from_numpy(rows).to(real.features.device)], real.once(_reference))[0]


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
    return FrechetReference.of_features(real.features)


@dataclass(frozen=True)
class GaussianStatistics:
    """Sums over a set of N features; the sums of two halves added are those of the whole, in whatever order.

    Attributes:
        count: N.
        origin: what the features are counted from, float64 (F,): the first of them, so that an offset that all share costs no digits.
        total: sum of the features from there, float64 (F,).
        outer: sum of their outer products, float64 (F, F).
    """

    count: int
    origin: Tensor
    total: Tensor
    outer: Tensor

    @classmethod
    def of(cls, features: Tensor) -> GaussianStatistics:
        """Statistics of features (N, F), on their device."""
        width = features.shape[1]
        total = torch.zeros(width, dtype=torch.float64, device=features.device)
        outer = torch.zeros(width, width, dtype=torch.float64, device=features.device)
        origin = features[0].double() if len(features) else torch.zeros_like(total)
        for part in features.split(_ROWS):
            exact = part.double() - origin
            total += exact.sum(dim=0)
            outer.addmm_(exact.T, exact)
        return cls(len(features), origin, total, outer)

    def __add__(self, other: GaussianStatistics) -> GaussianStatistics:
        count, total, outer = other._from(self.origin)
        return GaussianStatistics(self.count + count, self.origin, self.total + total, self.outer + outer)

    def __sub__(self, part: GaussianStatistics) -> GaussianStatistics:
        count, total, outer = part._from(self.origin)
        return GaussianStatistics(self.count - count, self.origin, self.total - total, self.outer - outer)

    def _from(self, origin: Tensor) -> tuple[int, Tensor, Tensor]:
        """Count, total and outer products of the features counted from elsewhere, (F,)."""
        moved = self.origin - origin
        total = self.total + self.count * moved
        crossed = torch.outer(self.total, moved)
        return self.count, total, self.outer + crossed + crossed.T + self.count * torch.outer(moved, moved)

    @property
    def mean(self) -> Tensor:
        """float64 (F,)."""
        return self.origin + self.total / self.count

    @property
    def covariance(self) -> Tensor:
        """float64 (F, F), divided by N."""
        centre = self.total / self.count
        return torch.addr(self.outer, centre, centre, beta=1.0 / self.count, alpha=-1.0)


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

    @classmethod
    def of_features(cls, features: Tensor) -> FrechetReference:
        """From real features (M, F); the root of a few is what they are, from their mean."""
        count, width = features.shape
        if count > width:
            return cls.of(GaussianStatistics.of(features))
        exact = features.double()
        root = (exact - exact.mean(dim=0)).T / count**0.5
        return cls(exact.mean(dim=0), root.square().sum(), root)

    def view(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, F) as they are held against it: from its mean and times its root, float64 (N, R); and their squared distances from
        its mean, float64 (N,)."""
        mapped = torch.empty(len(features), self.root.shape[1], dtype=torch.float64, device=features.device)
        squares = mapped.new_empty(len(features))
        for part, out, square in zip(features.split(_ROWS), mapped.split(_ROWS), squares.split(_ROWS), strict=True):
            centred = part.double() - self.mean
            torch.mm(centred, self.root, out=out)
            square.copy_(centred.square_().sum(dim=1))
        return mapped, squares

    def distance(self, spread: Tensor, covariance: Tensor) -> float:
        """The distance of a set whose mean squared distance from this mean is ``spread``, scalar, and whose view has this covariance,
        float64 (R, R), or of few samples the products between them over N, float64 (N, N), which have the same eigenvalues but for 0.

        ``|μ₁ − μ₂|² + tr(C₁)`` is the spread. With ``C₂ = RRᵀ`` the trace of ``√(C₁C₂)`` is the sum of the roots of the eigenvalues of
        ``RᵀC₁R``, the covariance, which is symmetric: no general matrix square root, and no imaginary part to drop.
        """
        shared = torch.linalg.eigvalsh(covariance).clamp(min=0.0).sqrt().sum()
        return max(0.0, float(on_host(spread + self.trace - 2.0 * shared)))


def frechet_distances(generated: Tensor, real: FrechetReference, blocks: Sequence[Tensor] = ()) -> list[float]:
    """The distance of generated features (N, F), and of them without each block of rows, int64 (n,), for a jackknife."""
    mapped, squares = real.view(generated)
    if len(mapped) <= mapped.shape[1]:
        kept = [torch.arange(len(mapped), device=mapped.device), *(_others(block, len(mapped)) for block in blocks)]
        return [real.distance(squares[rows].mean(), _products(mapped[rows])) for rows in kept]
    whole, total = GaussianStatistics.of(mapped), squares.sum()
    found = [real.distance(total / whole.count, whole.covariance)]
    for block in blocks:
        rest = whole - GaussianStatistics.of(mapped[block])
        found.append(real.distance((total - squares[block].sum()) / rest.count, rest.covariance))
    return found


def _others(rows: Tensor, count: int) -> Tensor:
    """The rows of so many that are not given, in order, int64; a mask would have to be waited for."""
    given = torch.zeros(count, device=rows.device).index_fill_(0, rows, 1.0)
    return given.argsort(stable=True)[: count - len(rows)]


def _products(features: Tensor) -> Tensor:
    """Products between N samples from their mean, over N: float64 (N, N), of features (N, R)."""
    centred = features - features.mean(dim=0)
    return centred @ centred.T / len(features)


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
