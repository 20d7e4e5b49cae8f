"""Images with and without a bright square: artifacts that a classifier of patches can tell and point at."""

from __future__ import annotations

import torch
from torch import Tensor

SQUARE = slice(8, 16), slice(0, 8)
"""Where the square is."""


def normal_images(count: int, seed: int = 0) -> Tensor:
    noise = torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
    return (0.2 * noise).clamp(-1.0, 1.0)


def artifact_images(count: int, seed: int = 1) -> Tensor:
    images = normal_images(count, seed)
    images[:, :, *SQUARE] = 1.0
    return images
