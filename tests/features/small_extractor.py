"""An extractor that costs nothing and is worked out by hand."""

from __future__ import annotations

from torch import Tensor

from qualitygate.features.extractor import Extractor


class Means(Extractor):
    """Mean of each channel, and how many images were in the pass."""

    key, features = "means", 4

    def __init__(self) -> None:
        self.passes: list[int] = []

    def __call__(self, images: Tensor) -> Tensor:
        self.passes.append(len(images))
        means = images.expand(-1, 3, -1, -1).mean(dim=(2, 3))
        return means[:, [0, 1, 2, 0]] * images.new_tensor([1.0, 1.0, 1.0, 0.0]) + images.new_tensor([0, 0, 0, 1.0])
