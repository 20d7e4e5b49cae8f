"""Where in latent space a planted defect lives: a half space or a narrow slab, or several of them, of an exactly known share."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

Shape = Literal["half_space", "slab"]


class Region(BaseModel):
    """A part of latent space, as a rule on linear forms ``x = z·a`` of unit vectors a.

    Under z ~ N(0, I) each x is standard normal, and those of orthogonal vectors are independent: the share is exact. A half space is
    ``x > t``. A slab is ``t < x < t'`` and starts at the median, so that its latents are as ordinary as latents can be. With several
    modes the region is the union over as many orthogonal vectors, each with an equal part.

    Attributes:
        shape: half space or slab.
        share: share of all latents, in (0, 0.5).
        modes: number of vectors.
        rise: how far inside the region full level is reached, in units of its depth (see `level`): 1 is soft, near 0 is sharp.
        saturates: full level is also the most; otherwise the level keeps rising, as a ReLU of one linear form does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    shape: Shape = "half_space"
    share: float = Field(0.01, gt=0.0, lt=0.5)
    modes: int = Field(1, ge=1)
    rise: float = Field(0.05, gt=0.0)
    saturates: bool = True

    @property
    def bounds(self) -> tuple[float, float]:
        """t and t' of each mode; t' is infinite for a half space."""
        if self.shape == "half_space":
            return _quantile(1.0 - self._part), float("inf")
        return 0.0, _quantile(0.5 + self._part)

    @property
    def depth(self) -> float:
        """How far inside a mode's typical latents are: half a slab's width; for a half space, the median distance of its latents."""
        low, high = self.bounds
        if self.shape == "slab":
            return (high - low) / 2.0
        return _quantile(1.0 - self._part / 2.0) - low

    @property
    def _part(self) -> float:
        """Share of one mode."""
        return 1.0 - (1.0 - self.share) ** (1.0 / self.modes)

    def level(self, z: Tensor, directions: Tensor) -> Tensor:
        """How much each latent lies inside, float32 (N,), positive exactly inside: the distance to the nearest border (of the best mode)
        over ``rise · depth``, at least -1 and, if it saturates, at most 1.

        Args:
            z: latents (N, D).
            directions: the modes' orthonormal vectors, float64 (modes, D).
        """
        low, high = self.bounds
        # products and sums of one row at a time, so that a latent's level does not depend on its batch
        x = (z.double()[:, None] * directions).sum(dim=2)
        inside = torch.minimum(x - low, high - x).amax(dim=1)
        return (inside / (self.rise * self.depth)).clamp(-1.0, 1.0 if self.saturates else None).float()


def _quantile(probability: float) -> float:
    return float(torch.special.ndtri(torch.tensor(probability, dtype=torch.float64)))
