"""What images are looked at with, and what they are held against, from the options that name it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qualitygate.features.extractor import Extractor
    from qualitygate.features.images import ImageSet
    from qualitygate.generators.base import Discriminator

DIGITS = "digits"
"""In place of a path: scikit-learn's digits."""
DISCRIMINATOR = "discriminator"
"""In place of an extractor's name: what the checkpoint's own discriminator sees."""


def extractor_of(name: str, weights: str | None, discriminator: Discriminator | None, device: str) -> Extractor:
    """The extractor of a name, or what the checkpoint's own discriminator sees."""
    from qualitygate.errors import InputError
    from qualitygate.features.module import DiscriminatorExtractor
    from qualitygate.features.registry import make_extractor

    if name != DISCRIMINATOR:
        return make_extractor(name, weights=weights, device=device)
    if discriminator is None:
        raise InputError(
            "The checkpoint has no discriminator to look with", "a generator alone", "a file that holds both", "name another --extractor"
        )
    return DiscriminatorExtractor(discriminator)


def real_images(real: str, size: int) -> ImageSet:
    """The real images at the generator's size."""
    from qualitygate.features.images import digits_images, open_images

    return digits_images(size) if real == DIGITS else open_images(real, size=size)
