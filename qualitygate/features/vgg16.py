"""VGG16 (Simonyan and Zisserman 2015): feature vectors for precision and recall, maps for explanations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from qualitygate.errors import InputError
from qualitygate.features.extractor import SpatialExtractor
from qualitygate.features.preparation import in_colour

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Units of the convolutions, a maximum over 2×2 after each stage."""
DENSE = 4096
INPUT = 224
"""Height and width of the images that the published weights were trained on."""
_SHRINK = 2 ** len(STAGES)
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colours in [0, 1]

Resize = Callable[[Tensor, int], Tensor]
"""Images to images of a given height and width, one of `preparation`."""


class Convolutions(nn.Module):
    """The thirteen convolutions of VGG16, for images of any size; parameters are to be filled in."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, *(units for stage in STAGES for units in stage)]
        self.layers = nn.ModuleList(nn.Conv2d(inputs, outputs, 3, padding=1, device="meta") for inputs, outputs in pairwise(widths))
        self.eval().requires_grad_(False)

    def stages(self, images: Tensor) -> Iterator[Tensor]:
        """The last activation of each stage, before the maximum, of RGB images in [-1, 1]."""
        x = _normalised(images)
        layers = iter(self.layers)
        for index, stage in enumerate(STAGES):
            x = F.max_pool2d(x, 2) if index else x
            for _ in stage:
                x = F.relu(next(layers)(x))
            yield x

    def forward(self, images: Tensor) -> Tensor:
        """The activation of the last convolution (N, 512, height / 16, width / 16)."""
        *_, last = self.stages(images)
        return last


class VGG16(nn.Module):
    """VGG16 up to its second fully connected layer; parameters are to be filled in.

    Args:
        size: height and width of the images, a multiple of 32. The first fully connected layer reads what the convolutions
            leave of them.
    """

    def __init__(self, size: int = INPUT) -> None:
        super().__init__()
        if size < _SHRINK or size % _SHRINK:
            raise InputError("VGG16 has no such input size", str(size), f"a multiple of {_SHRINK}")
        self.size = size
        self.convolutions = Convolutions()
        left = STAGES[-1][-1] * (size // _SHRINK) ** 2
        self.dense = nn.ModuleList(nn.Linear(inputs, DENSE, device="meta") for inputs in (left, DENSE))
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """The activation (after its ReLU) of the second fully connected layer, "fc2" (N, 4096)."""
        x = F.max_pool2d(self.convolutions(images), 2).flatten(1)
        for layer in self.dense:
            x = F.relu(layer(x))
        return x


class VGG16Extractor(SpatialExtractor):
    """The fc2 activation of a VGG16 (Kynkäänniemi et al. 2019, section 3.1; Naeem et al. 2020), and the activation of its
    last convolution as the spatial features.

    Args:
        network: on the device to use.
        key: what identifies network, weights and resizing.
        resize: brings images to the network's size.
    """

    features = DENSE
    channels = STAGES[-1][-1]

    def __init__(self, network: VGG16, key: str, resize: Resize) -> None:
        self.key = key
        self._network, self._resize = network, resize

    def __call__(self, images: Tensor) -> Tensor:
        features: Tensor = self._network(self._prepared(images))
        return features

    def spatial(self, images: Tensor) -> Tensor:
        maps: Tensor = self._network.convolutions(self._prepared(images))
        return maps

    def _prepared(self, images: Tensor) -> Tensor:
        device = next(self._network.parameters()).device
        return self._resize(in_colour(images.to(device)), self._network.size)


def _normalised(images: Tensor) -> Tensor:
    """RGB images in [-1, 1] with each colour shifted and scaled by ImageNet's mean and deviation."""
    mean, deviation = (images.new_tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _DEVIATION))
    return ((images + 1.0) / 2.0 - mean) / deviation
