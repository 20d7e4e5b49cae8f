"""Small generators with seeded random weights, for tests that do not care which family it is, and their images as real ones."""

from __future__ import annotations

import torch
from torch import Tensor

from qualitygate.features.image_sources import Item, Source
from qualitygate.features.images import ImageSet
from qualitygate.generators.families.dcgan import DCGAN
from qualitygate.generators.families.pggan import PGGAN
from qualitygate.generators.families.stylegan2 import StyleGAN2
from qualitygate.storage import to_uint8


def small_dcgan(units: tuple[int, ...] = (8, 6, 4, 3), latent_size: int = 5, seed: int = 0, shift: float = -0.5) -> DCGAN:
    """Activations of order one; biases around ``shift``, so that below 0 many neurons fire rarely."""
    generator = DCGAN(latent_size, list(units), 1)
    random = torch.Generator().manual_seed(seed)
    taps = [1, *(4 for _ in units)]
    with torch.no_grad():
        for weight, bias, read in zip(generator.weight, generator.bias, taps, strict=True):
            weight.normal_(0.0, (2.0 / (read * weight.shape[2])) ** 0.5, generator=random)
            bias.normal_(shift, 0.5, generator=random)
    return generator.eval().requires_grad_(False)


def small_pggan() -> PGGAN:
    generator = PGGAN(latent_size=4, units=[5, 4, 3, 2])
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.normal_(0.0, max(parameter[0].numel(), 1) ** -0.5, generator=random)
    return generator.eval().requires_grad_(False)


def small_stylegan2() -> StyleGAN2:
    generator = StyleGAN2(4, [6, 6], [6, 5], 3, "skip")
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in [*generator.parameters(), *generator.buffers()]:
            tensor.normal_(0.0, 0.3, generator=random)
    return generator.eval().requires_grad_(False)


def image_set(name: str, images: Tensor) -> ImageSet:
    """Images (N, channels, height, width) in [-1, 1] in the place of real ones."""
    items = [Item(str(row), to_uint8(image)) for row, image in enumerate(images.numpy())]
    return ImageSet(name, Source(len(items), lambda: iter(items)))
