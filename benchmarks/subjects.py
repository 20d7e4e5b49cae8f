"""Generators to measure: of a checkpoint, or of a paper's size with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from qualitygate.generators.base import Generator
from qualitygate.generators.families.dcgan import DCGAN
from qualitygate.generators.families.pggan import PGGAN
from qualitygate.generators.families.stylegan2 import StyleGAN2


def from_checkpoint(path: Path, device: torch.device) -> Generator:
    from qualitygate.checkpoints.load import load_generator

    return load_generator(path, device)


def random_dcgan() -> DCGAN:
    """The usual shape: latent 100, 64×64."""
    generator = DCGAN(latent_size=100, units=[512, 256, 128, 64], image_channels=3)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for index, weight in enumerate(generator.weight):
            _spread(weight, (1 if index == 0 else 4) * weight.shape[2], random)
    return generator.eval()


def random_pggan(width: int = 512) -> PGGAN:
    """PGGAN up to 8×8 (what follows is not scored); the paper's is 512 units wide."""
    generator = PGGAN(latent_size=width, units=[width] * 4)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight, taps in zip(generator.weight, (1, 9, 4, 9), strict=True):
            _spread(weight, taps * width, random)
        for bias in generator.bias:
            bias.normal_(0.0, 0.1, generator=random)
    return generator.eval()


def narrow_pggan(latent_size: int, width: int = 8) -> PGGAN:
    """PGGAN of any latent size, so narrow that exact CLA of a thousand samples takes minutes."""
    generator = PGGAN(latent_size=latent_size, units=[width] * 8, image_channels=1)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for index, weight in enumerate(generator.weight):
            _spread(weight, latent_size if index == 0 else (4 if weight.shape[:2] == (4, 4) else 9) * width, random)
    return generator.eval()


def random_stylegan2(width: int = 512, units: Sequence[int] = ()) -> StyleGAN2:
    """StyleGAN2 up to 8×8, or of these units at 4×4, 8×8, …; the paper's is 512 units wide, with 8 mapping layers."""
    generator = StyleGAN2(width, [width] * 8, list(units) or [width, width], 3, "skip")
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith("weight"):
                _spread(parameter, parameter[0].numel(), random)
            else:
                parameter.normal_(0.0, 0.1, generator=random)
            if name.endswith("style.bias"):
                parameter += 1.0
        generator.constant.normal_(generator=random)
    return generator.eval()


def _spread(weight: torch.Tensor, fan_in: int, random: torch.Generator) -> None:
    """Random weights that keep the variance through a ReLU."""
    weight.normal_(0.0, (2.0 / fan_in) ** 0.5, generator=random)
