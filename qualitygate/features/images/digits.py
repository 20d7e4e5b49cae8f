"""Scikit-learn's digits: 1,797 real images of handwriting that come with the library."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qualitygate.errors import MissingExtraError
from qualitygate.features.images.image_set import ImageSet, Item, Resize, Source

_LEVELS = 16  # pixels are 0 … 16


class _Digits(Source):
    def __init__(self) -> None:
        try:
            from sklearn.datasets import load_digits  # type: ignore[import-untyped]
        except ImportError as error:
            raise MissingExtraError(
                "The digits are part of scikit-learn", str(error), "scikit-learn", "pip install scikit-learn"
            ) from error
        digits = load_digits()
        pixels: np.ndarray = digits.images
        self.labels: np.ndarray = digits.target.astype(np.int64)
        self._images = np.rint(pixels * (255.0 / _LEVELS)).astype(np.uint8)[..., None]

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[Item]:
        for row, image in enumerate(self._images):
            yield Item(f"digit {row}", image)


def digits_images(size: int = 32) -> ImageSet:
    """The 1,797 digits of scikit-learn (8×8, grey), resized.

    Args:
        size: height and width.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    return ImageSet("scikit-learn digits", _Digits(), Resize(size))


def digits_labels() -> np.ndarray:
    """Which digit each of them is: int64 (1797,).

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    return _Digits().labels
