"""A small feature extractor with values one can work out by hand, where a real network would only cost time."""

from __future__ import annotations

import hashlib

import torch
import torch.nn.functional as F
from torch import Tensor

from qualitygate.features.extractor import SpatialExtractor


class PatchExtractor(SpatialExtractor):
    """One convolution and a ReLU: each feature is how well a filter fits a patch. As a vector, the mean over patches.

    Args:
        filters: (channels, image channels, size, size).
        stride: between patches, in pixels.
    """

    def __init__(self, filters: Tensor, stride: int) -> None:
        self._filters, self._stride = filters, stride
        self.channels = self.features = len(filters)
        digest = hashlib.sha256(filters.cpu().contiguous().numpy().tobytes()).hexdigest()
        self.key = f"patches {digest[:12]}, stride {stride}, float32"

    def __call__(self, images: Tensor) -> Tensor:
        return self.spatial(images).mean(dim=(2, 3))

    def spatial(self, images: Tensor) -> Tensor:
        filters = self._filters.to(images.device)
        return F.relu(F.conv2d(images, filters, stride=self._stride, padding=filters.shape[2] // 2))


def random_patches(image_channels: int, channels: int = 64, size: int = 7, stride: int = 4, seed: int = 0) -> PatchExtractor:
    """Seeded random filters of length 1."""
    filters = torch.randn(channels, image_channels, size, size, generator=torch.Generator().manual_seed(seed))
    return PatchExtractor(filters / filters.flatten(1).norm(dim=1)[:, None, None, None], stride)
