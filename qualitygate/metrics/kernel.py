"""Kernel distance (KID, Bińkowski et al. 2018): the unbiased squared maximum mean discrepancy with the kernel ``(x·y / F + 1)³``.

Without bias at any sample size, so it stands where FID has too few samples; it can come out slightly negative. Not multiplied by 1,000.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qualitygate.errors import InputError
from qualitygate.generators.passes import on_host
from qualitygate.metrics.estimate import Estimate, NotKnownError, Resampling, blocks_of
from qualitygate.metrics.measured_set import Group, MeasuredSet, RealSet
from qualitygate.metrics.metric import SetMetric

_PRODUCTS = 2**24  # kernel values held at once
_FEWEST = 4  # samples of which every block can be left out


class KernelDistance(SetMetric):
    """KID of a group."""

    def compute(self, group: Group, how: Resampling | None) -> Estimate:
        if len(group) < _FEWEST:
            raise NotKnownError(f"too few: {len(group)} samples")
        blocks = [] if how is None else blocks_of(len(group), seed=how.seed)
        real, rows = group.real.once(_reference), group.of.once(_rows)[group.at]
        value, *without = kernel_distances(group.features, real, rows, blocks)
        return Estimate.jackknife(value, without, len(group)) if without else Estimate(value, len(group))


@dataclass(frozen=True)
class KernelReference:
    """A real set: its features, float64 (M, F), and its own part of the distance, the kernel summed over all pairs of different samples."""

    features: Tensor
    inner: float

    @classmethod
    def of(cls, features: Tensor) -> KernelReference:
        """From the features (M, F) of real images."""
        exact = features.double()
        return cls(exact, float(on_host(_without_itself(exact).sum())))

    def rows(self, features: Tensor) -> Tensor:
        """Sum of the kernel of each sample with all real ones: float64 (N,). The same for a sample whatever group it is in."""
        return _row_sums(features.double(), self.features)


def kernel_distances(generated: Tensor, real: KernelReference, rows: Tensor, blocks: Sequence[np.ndarray] = ()) -> list[float]:
    """The distance of all generated samples, and of them without each block, for a jackknife: one pass over all pairs serves them all.

    Args:
        generated: features (N, F).
        real: the real set.
        rows: the real side of each sample (N,), as of `KernelReference.rows`.
        blocks: rows of each block.

    Raises:
        InputError: fewer than two samples on a side.
    """
    exact, others = generated.double(), len(real.features)
    own = _without_itself(exact)
    found = []
    for block in (torch.from_numpy(block).to(exact.device) for block in (np.empty(0, dtype=np.int64), *blocks)):
        count = len(exact) - len(block)
        if min(count, others) < 2:
            raise InputError("Too few samples for KID", f"{count} generated and {others} real", "at least two of each")
        inner = own.sum() - 2.0 * own[block].sum() + _without_itself(exact[block]).sum()
        across = rows.sum() - rows[block].sum()
        of_real = real.inner / (others * (others - 1))
        found.append(inner / (count * (count - 1)) + of_real - 2.0 * across / (count * others))
    return on_host(torch.stack(found)).tolist()


def _reference(real: RealSet) -> KernelReference:
    return KernelReference.of(real.features)


def _rows(measured: MeasuredSet) -> Tensor:
    features, real = measured.sides
    return real.once(_reference).rows(features)


def _without_itself(features: Tensor) -> Tensor:
    """Sum of the kernel of each sample with all others of the set: float64 (N,)."""
    return _row_sums(features, features) - (features.square().mean(dim=1) + 1.0) ** 3


def _row_sums(first: Tensor, second: Tensor) -> Tensor:
    step = max(1, _PRODUCTS // max(1, len(second)))
    return torch.cat([((part @ second.T) / first.shape[1] + 1.0).pow(3).sum(dim=1) for part in first.split(step)])
