"""Kernel distance (KID, Bińkowski et al. 2018): the unbiased squared maximum mean discrepancy with the kernel ``(x·y / F + 1)³``.

Without bias at any sample size, so it stands where FID has too few samples; it can come out slightly negative. Not multiplied by 1,000.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from qualitygate.errors import InputError
from qualitygate.metrics.estimate import Estimate, NotKnownError, Resampling, blocks_of
from qualitygate.metrics.metric import SetMetric

if TYPE_CHECKING:
    from qualitygate.metrics.measured_set import Group

_PRODUCTS = 2**24  # kernel values held at once
_FEWEST = 4  # samples of which every block can be left out


class KernelDistance(SetMetric):
    """KID of a group."""

    def compute(self, group: Group, how: Resampling | None) -> Estimate:
        if len(group) < _FEWEST:
            raise NotKnownError(f"too few: {len(group)} samples")
        rows, real = group.of.kernel[group.at], group.real.kernel
        value = kernel_distance(group.features, real, rows)
        if how is None:
            return Estimate(value, len(group))
        without = kernel_distances_without(group.features, real, rows, blocks_of(len(group), seed=how.seed))
        return Estimate.jackknife(value, without, len(group))


@dataclass(frozen=True)
class KernelReference:
    """A real set, its own part of the distance computed once.

    Attributes:
        features: float64 (M, F).
        inner: sum of the kernel over all pairs of different samples.
    """

    features: Tensor
    inner: float

    @classmethod
    def of(cls, features: Tensor) -> KernelReference:
        """From the features (M, F) of real images."""
        exact = features.double()
        return cls(exact, float(_without_itself(exact).sum()))

    def rows(self, features: Tensor) -> Tensor:
        """Sum of the kernel of each sample with all real ones: float64 (N,). The same for a sample whatever group it is in."""
        return _row_sums(features.double(), self.features)


def squared_mmd(generated: Tensor, real: Tensor) -> float:
    """The distance of features (N, F) and (M, F), in float64.

    Raises:
        InputError: fewer than two samples on a side.
    """
    reference = KernelReference.of(real)
    return kernel_distance(generated, reference, reference.rows(generated))


def kernel_distance(generated: Tensor, real: KernelReference, rows: Tensor) -> float:
    """The distance to features (N, F), with the rows (N,) of the real side already known: see `KernelReference.rows`."""
    count, others = len(generated), len(real.features)
    _check(count, others)
    inner = float(_without_itself(generated.double()).sum())
    return _assembled(inner, float(rows.sum()), real.inner, count, others)


def kernel_distances_without(generated: Tensor, real: KernelReference, rows: Tensor, blocks: Sequence[np.ndarray]) -> list[float]:
    """The distance without each of the blocks of generated samples, for a jackknife: one pass over all pairs serves them all.

    Args:
        generated: features (N, F).
        real: the real set.
        rows: as of `KernelReference.rows`.
        blocks: rows of each block.
    """
    exact, others = generated.double(), len(real.features)
    own = _without_itself(exact)
    total, across = own.sum(), rows.sum()
    left = []
    for block in (torch.from_numpy(block).to(exact.device) for block in blocks):
        count = len(exact) - len(block)
        _check(count, others)
        inner = total - 2.0 * own[block].sum() + _without_itself(exact[block]).sum()
        left.append(_assembled(float(inner), float(across - rows[block].sum()), real.inner, count, others))
    return left


def _assembled(inner: float, across: float, inner_real: float, count: int, others: int) -> float:
    return inner / (count * (count - 1)) + inner_real / (others * (others - 1)) - 2.0 * across / (count * others)


def _without_itself(features: Tensor) -> Tensor:
    """Sum of the kernel of each sample with all others of the set: float64 (N,)."""
    return _row_sums(features, features) - (features.square().mean(dim=1) + 1.0) ** 3


def _row_sums(first: Tensor, second: Tensor) -> Tensor:
    step = max(1, _PRODUCTS // max(1, len(second)))
    return torch.cat([((part @ second.T) / first.shape[1] + 1.0).pow(3).sum(dim=1) for part in first.split(step)])


def _check(count: int, others: int) -> None:
    if min(count, others) < 2:
        raise InputError("Too few samples for KID", f"{count} generated and {others} real", "at least two of each")
