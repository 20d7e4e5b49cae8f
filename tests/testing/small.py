"""Small random generators of three kinds of chain: ReLU, pixel norms, modulated convolutions."""

from __future__ import annotations

import pytest
import torch

from qualitygate.generators.base import Generator
from qualitygate.generators.families.dcgan import DCGAN
from qualitygate.generators.families.pggan import PGGAN
from qualitygate.generators.families.stylegan2 import StyleGAN2


def _randomised(generator: Generator) -> Generator:
    """Weights of a size that keeps activations of order one, the same every time."""
    random = torch.Generator().manual_seed(0)
    for tensor in [*generator.parameters(), *generator.buffers()]:
        tensor.data.normal_(0.0, 0.25, generator=random)
    return generator.eval().requires_grad_(False)


def dcgan() -> Generator:
    return _randomised(DCGAN(12, [16, 12, 8], 3))


def pggan() -> Generator:
    return _randomised(PGGAN(12, [16, 16, 12, 12, 8, 8]))


def stylegan2() -> Generator:
    return _randomised(StyleGAN2(12, [12, 12], [16, 12, 8], 3, "skip"))


every_kind = pytest.mark.parametrize("make", [dcgan, pggan, stylegan2])
