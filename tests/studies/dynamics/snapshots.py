"""A small training run on disk: PGGANs whose weights grow, with a discriminator beside each."""

from __future__ import annotations

from pathlib import Path

import torch

from qualitygate.checkpoints.save import save_generator
from qualitygate.generators.families.pggan import PGGAN, PGGANDiscriminator

UNITS = (5, 4, 3, 2)


def made(growth: float = 1.0, units: tuple[int, ...] = UNITS, latent_size: int = 4, lod: float = 0.0) -> PGGAN:
    return _drawn(PGGAN(latent_size, list(units), 1, lod=lod), growth)


def judge() -> PGGANDiscriminator:
    return _drawn(PGGANDiscriminator([3, 3, 3, 3, 3], 1), 1.0)


def write(folder: Path, kimg: float, generator: PGGAN | None = None) -> Path:
    """The snapshot of ``kimg``; of a run whose weights grow unless another generator is given."""
    path = folder / f"net-{kimg:06g}.safetensors"
    generator = made(1.0 + kimg / 100) if generator is None else generator
    fits = generator.image_shape == (1, 8, 8)
    save_generator(generator, path, discriminator=judge() if fits else None, notes={"kimg": f"{kimg:g}"})
    return path


def pixels(images: torch.Tensor) -> torch.Tensor:
    """Features that anyone can follow: the pixels of the first channel."""
    return images[:, 0].flatten(1)


def _drawn(network, growth: float):
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0.0, growth * max(parameter[0].numel(), 1) ** -0.5, generator=random)
    return network.eval().requires_grad_(False)
