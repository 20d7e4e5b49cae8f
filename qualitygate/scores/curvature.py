"""Change points and curvature on the axes, from the activations at the grid points: section 3.1 of the paper, for many neurons at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from qualitygate.errors import InputError


@dataclass(frozen=True)
class Grid:
    """Distances from the sample on either side of an axis, from the bound inwards."""

    distances: tuple[float, ...]

    @classmethod
    def of(cls, bound: float, divisions: int, points: Sequence[int] | None) -> Grid:
        """The grid of ``divisions`` steps over ``[−bound, bound]``, or some of its points, counted in steps from the sample.

        Raises:
            InputError: there is no such grid, or the points are not some of its steps with the bound among them.
        """
        if not bound > 0 or divisions < 2 or divisions % 2:
            raise InputError(
                "The search range cannot be divided so",
                f"bound {bound}, divisions {divisions}",
                "a positive bound and an even number of divisions, at least 2",
            )
        steps = divisions // 2
        walked = sorted(range(1, steps + 1) if points is None else points, reverse=True)
        if not walked or walked[0] != steps or walked[-1] < 1 or len({*walked}) != len(walked):
            raise InputError("Not a choice of grid points", str(list(points or ())), f"different steps in [1, {steps}], {steps} included")
        return cls(tuple(bound * step / steps for step in walked))

    def signed(self, device: torch.device) -> Tensor:
        """Float32 (2, points): one side, then the other."""
        one_side = torch.tensor(self.distances, device=device)
        return torch.stack((one_side, -one_side))


def curvature(along: Tensor, start: Tensor, distances: Tensor) -> Tensor:
    """Curvature of neurons on their axes: the difference of the secant slopes to the change points of either side, over their distance.

    Args:
        along: (2, P, N, A, …), activations on both sides of N samples on A axes, from the bound inwards.
        start: float32 (N, …), activations at the samples.
        distances: float32 (2, P), signed.

    Returns:
        float32 (N, A, …).
    """
    start = start[:, None]
    turn = _change_points(along, ~(start <= 0))
    value = along.gather(1, turn).squeeze(1).float()
    at = torch.stack([side[index] for side, index in zip(distances, turn.squeeze(1), strict=True)])
    slope = value.sub_(start).div_(at)
    return slope[0].sub_(slope[1]).div_(at[0].sub_(at[1]))


def _change_points(along: Tensor, positive: Tensor) -> Tensor:
    """Which point of each side (2, 1, N, A, …) is the nearest with another sign; the bound where there is none."""
    # NaN counts as positive. Comparing floats is not vectorised on the CPU: there two other passes are faster than the one
    changed = (along <= 0).bitwise_xor_(~positive) if along.is_cuda else F.relu(along).bool().bitwise_xor_(positive)
    # nearer points have larger numbers, so the nearest change is a maximum of small integers, and no change is the bound's 0
    numbers = torch.arange(along.shape[1], dtype=_smallest_integer(along.shape[1]), device=along.device)
    return changed.view(torch.uint8).mul(numbers.view(-1, *[1] * (along.ndim - 2))).amax(1, keepdim=True).long()


def _smallest_integer(count: int) -> torch.dtype:
    return torch.uint8 if count <= 256 else torch.int32
