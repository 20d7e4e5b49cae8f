"""The discriminator of the PyTorch tutorial's DCGAN: 4×4 convolutions of stride 2, batch norm, LeakyReLU, and one value at the end."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualitygate.generators.discriminator import Discriminator

_SLOPE = 0.2


class DCGANDiscriminator(Discriminator):
    """DCGAN discriminator; batch norms are folded into the convolutions, as in `DCGAN`.

    Args:
        units: units of each hidden layer; every layer halves the size, down to 4×4.
        image_channels: channels of the image, whose size is ``4 · 2**len(units)``.
    """

    family = "dcgan"

    def __init__(self, units: list[int], image_channels: int) -> None:
        super().__init__()
        self.settings = {"units": list(units), "image_channels": image_channels}
        size = 4 * 2 ** len(units)
        self.image_shape = (image_channels, size, size)
        widths = [image_channels, *units, 1]
        self.weight = nn.ParameterList(nn.Parameter(torch.zeros(outputs, inputs, 4, 4)) for inputs, outputs in pairwise(widths))
        self.bias = nn.ParameterList(nn.Parameter(torch.zeros(outputs)) for outputs in widths[1:])

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        x = images
        for index, (weight, bias) in enumerate(zip(self.weight[:-1], self.bias[:-1], strict=True)):
            x = self.tap(f"activation/layer{index}", F.leaky_relu_(F.conv2d(x, weight, bias, stride=2, padding=1), _SLOPE))
        x = self.tap("features", x)
        self.tap("vector", x.flatten(1))
        return F.conv2d(x, self.weight[-1], self.bias[-1]).flatten()
