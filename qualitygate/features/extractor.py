"""What metrics and unit scores ask of a feature extractor."""

from __future__ import annotations

import abc

from torch import Tensor


class Extractor(abc.ABC):
    """Images to feature vectors, the same vector for an image whatever else is in the batch.

    Attributes:
        key: everything that makes numbers comparable, in one line: network, hash of its weights, size and manner of resizing,
            precision. Two numbers are compared only if their keys are equal.
        features: length of a vector.
        kept: whether the features may be kept for another run: not where the code is somebody else's, which no key contains.
    """

    key: str
    features: int
    kept: bool = True

    @abc.abstractmethod
    def __call__(self, images: Tensor) -> Tensor:
        """Features float32 (N, features) of images float32 (N, 1 or 3, height, width) in [-1, 1] of any size, on the device of the
        extractor; resizing and scaling are the extractor's own."""


class SpatialExtractor(Extractor):
    """An extractor whose features have a place in the image: what a Grad-CAM needs.

    Attributes:
        channels: channels of the spatial features.
    """

    channels: int

    @abc.abstractmethod
    def spatial(self, images: Tensor) -> Tensor:
        """Features float32 (N, channels, height, width), differentiable in the images."""


class PerceptualDistance(abc.ABC):
    """A distance between images, for path lengths.

    Attributes:
        key: as of an `Extractor`.
    """

    key: str

    @abc.abstractmethod
    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """Distance float32 (N,) between images (N, 1 or 3, height, width) in [-1, 1], row by row."""
