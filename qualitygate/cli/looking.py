"""What images are looked at with, and what they are held against, from the options that name it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qualitygate.features.extractor import Extractor
    from qualitygate.features.images import ImageSet
    from qualitygate.generators.base import Discriminator

DIGITS = "digits"
DISCRIMINATOR = "discriminator"


def extractor_of(name: str, weights: str | None, discriminator: Discriminator | None, device: str) -> Extractor:
    from qualitygate.features import registry

    return registry.make_extractor(name, weights=weights, device=device, discriminator=discriminator)


def real_images(real: str, size: int) -> ImageSet:
    from qualitygate.features import images

    return images.real_images(real, size)
