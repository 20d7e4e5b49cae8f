"""The checkpoint's own discriminator as an extractor: what it looks at, in the domain that it was trained on."""

from __future__ import annotations

import torch
from torch import Tensor

from qualitygate.features.extractor import SpatialExtractor
from qualitygate.features.preparation import in_colour, smooth_resized
from qualitygate.generators.base import Discriminator


class DiscriminatorExtractor(SpatialExtractor):
    """The last hidden activation of a discriminator: what its value is a linear function of; as spatial features, the last
    activation that has a place in the image.

    Each image is seen alone, also by families that measure how much a batch varies (their spatial features come before
    that). Conditional discriminators are shown class 0: neither activation depends on the label.

    Args:
        discriminator: on the device to use; it is not changed.
    """

    def __init__(self, discriminator: Discriminator) -> None:
        self._discriminator = discriminator.alone()
        size = "×".join(map(str, discriminator.image_shape[1:]))
        self.key = f"discriminator of {discriminator.family}, {discriminator.fingerprint()}, smooth bilinear to {size}, float32"
        with torch.no_grad():
            probe = torch.zeros(1, *discriminator.image_shape, device=discriminator.device)
            self.features = self._seen(probe, "vector").shape[1]
            self.channels = self._seen(probe, "features").shape[1]

    def __call__(self, images: Tensor) -> Tensor:
        return self._seen(images, "vector")

    def spatial(self, images: Tensor) -> Tensor:
        return self._seen(images, "features")

    def _seen(self, images: Tensor, name: str) -> Tensor:
        judge = self._discriminator
        labels = torch.zeros(len(images), dtype=torch.int64, device=judge.device) if judge.label_size else None
        return judge.taps(self._prepared(images), labels, names=[name])[name]

    def _prepared(self, images: Tensor) -> Tensor:
        channels, size, _ = self._discriminator.image_shape
        images = in_colour(images.to(self._discriminator.device))
        return smooth_resized(images if channels == 3 else images.mean(dim=1, keepdim=True), size)
