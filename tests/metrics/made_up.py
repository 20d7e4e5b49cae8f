"""An extractor and a distance that need no weights, for tests."""

from __future__ import annotations

import torch
from torch import Tensor

from qualitygate.features.extractor import Extractor, PerceptualDistance


class Projection(Extractor):
    """Seeded random features of the pixels."""

    def __init__(self, features: int = 6, seed: int = 0) -> None:
        self.features, self.seed = features, seed
        self.key = f"projection {features}, seed {seed}"

    def __call__(self, images: Tensor) -> Tensor:
        flat = images.float().cpu().flatten(1)
        random = torch.Generator().manual_seed(self.seed)
        return flat @ torch.randn(flat.shape[1], self.features, generator=random) / flat.shape[1] ** 0.5


class Squares(PerceptualDistance):
    """Mean squared difference."""

    key = "mean squared difference"

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        return (first - second).square().mean(dim=(1, 2, 3))
