"""A discriminator as the frozen backbone of a classifier: it comes with many checkpoints and has seen the training images."""

from __future__ import annotations

import torch
from torch import Tensor

from qualitygate.errors import InputError
from qualitygate.features.extractor import SpatialExtractor
from qualitygate.generators.base import Discriminator

_FEATURES = "features"


class DiscriminatorFeatures(SpatialExtractor):
    """The last features of a discriminator that still have a place in the image; as a vector, their mean over positions.

    Args:
        discriminator: of the generator's images; its weights become part of the key.
    """

    def __init__(self, discriminator: Discriminator) -> None:
        self._discriminator = discriminator
        channels, height, width = discriminator.image_shape
        self.key = f"{discriminator.family} discriminator {discriminator.fingerprint()[:12]}, {height}x{width}, float32"
        with torch.no_grad():
            probe = self.spatial(torch.zeros(1, channels, height, width))
        self.channels = self.features = probe.shape[1]

    def __call__(self, images: Tensor) -> Tensor:
        return self.spatial(images).mean(dim=(2, 3))

    def spatial(self, images: Tensor) -> Tensor:
        """As of every `SpatialExtractor`.

        Raises:
            InputError: images of another shape than the discriminator's.
        """
        judge = self._discriminator
        if tuple(images.shape[1:]) != tuple(judge.image_shape):
            raise InputError("The discriminator cannot read these images", str(tuple(images.shape)),
                             f"(N, {', '.join(map(str, judge.image_shape))})")  # fmt: skip
        # the features do not depend on the class, which the last layer asks for
        labels = torch.zeros(len(images), dtype=torch.int64, device=judge.device) if judge.label_size else None
        return judge.taps(images.to(judge.device), labels, names=[_FEATURES])[_FEATURES]
