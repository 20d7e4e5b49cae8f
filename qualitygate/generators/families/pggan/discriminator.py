"""The discriminator of PGGAN (Karras et al. 2018): from-RGB, pairs of 3×3 convolutions that halve the size, and at 4×4
a convolution that also sees how much the batch varies.

Every layer ends in a LeakyReLU, except the last. Stored weights are the scaled ones, as in the generator.
"""

from __future__ import annotations

import math
from copy import copy
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualitygate.generators.discriminator import Discriminator

_SLOPE = 0.2


class PGGANDiscriminator(Discriminator):
    """PGGAN discriminator.

    Its value of an image depends on the images beside it in the batch (minibatch standard deviation), unless
    ``group_size`` is 0.

    Args:
        units: units of from-RGB, of each convolution from the full size down to 4×4, and of the dense layer; an odd
            number of them.
        image_channels: channels of the image, whose size is ``4 · 2**((len(units) − 3) // 2 + floor(lod))``.
        outputs: 1, and one more for each class where the classes are predicted too.
        fused: halving is one 4×4 convolution of stride 2 with its nonlinearity after it; otherwise pooling follows
            the nonlinearity.
        group_size: samples over which variation is measured; the whole batch where it does not divide it; 0 for no such
            input.
        consecutive_groups: groups are neighbours in the batch and their variance is unbiased (torch hub), rather than
            spread over the batch and biased (NVIDIA, genforce).
        lod: level of detail, as in the generator.
    """

    family = "pggan"

    def __init__(
        self,
        units: list[int],
        image_channels: int = 3,
        outputs: int = 1,
        fused: bool = False,
        group_size: int = 4,
        consecutive_groups: bool = False,
        lod: float = 0.0,
    ) -> None:
        super().__init__()
        self.settings = {
            "units": list(units),
            "image_channels": image_channels,
            "outputs": outputs,
            "fused": fused,
            "group_size": group_size,
            "consecutive_groups": consecutive_groups,
            "lod": lod,
        }
        self.fused, self.group_size, self.consecutive_groups = fused, group_size, consecutive_groups
        self.label_size = outputs - 1
        self.blend, whole = math.modf(lod)
        self.pool = 2 ** int(whole)
        self.blocks = (len(units) - 3) // 2
        size = 4 * 2**self.blocks * self.pool
        self.image_shape = (image_channels, size, size)

        # from-RGB of the full size and, while blending, after it that of half the size
        makers = [units[0], units[2]] if self.blend else [units[0]]
        self.rgb_weight = nn.ParameterList(nn.Parameter(torch.zeros(count, image_channels, 1, 1)) for count in makers)
        self.rgb_bias = nn.ParameterList(nn.Parameter(torch.zeros(count)) for count in makers)
        self.weight = nn.ParameterList(nn.Parameter(torch.zeros(shape)) for shape in self._shapes([*units, outputs]))
        self.bias = nn.ParameterList(nn.Parameter(torch.zeros(count)) for count in [*units[1:], outputs])

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.pool > 1:
            images = F.avg_pool2d(images, self.pool)
        x = self._from_rgb(images, 0)
        for block in range(self.blocks):
            x = self._halved(self._convolved(x, 2 * block), 2 * block + 1)
            if self.blend and block == 0:
                x = torch.lerp(x, self._from_rgb(F.avg_pool2d(images, 2), 1), self.blend)
        x = self.tap("features", x)
        if self.group_size:
            x = torch.cat((x, self._variation(x)), dim=1)
        x = self._convolved(x, 2 * self.blocks)
        x = F.leaky_relu_(F.linear(x.flatten(1), self.weight[-2], self.bias[-2]), _SLOPE)
        x = self.tap(f"activation/layer{2 * self.blocks + 1}", x)
        values = F.linear(self.tap("vector", x), self.weight[-1], self.bias[-1])
        return self.tap(f"activation/layer{2 * self.blocks + 2}", values)[:, 0]

    def alone(self) -> Self:
        if not self.group_size:
            return self
        alone = copy(self)
        alone.group_size = 1
        return alone

    def _from_rgb(self, images: Tensor, which: int) -> Tensor:
        return F.leaky_relu_(F.conv2d(images, self.rgb_weight[which], self.rgb_bias[which]), _SLOPE)

    def _convolved(self, x: Tensor, index: int) -> Tensor:
        return F.leaky_relu_(F.conv2d(x, self.weight[index], self.bias[index], padding=1), _SLOPE)

    def _halved(self, x: Tensor, index: int) -> Tensor:
        if self.fused:
            return F.leaky_relu_(F.conv2d(x, self.weight[index], self.bias[index], stride=2, padding=1), _SLOPE)
        return F.avg_pool2d(self._convolved(x, index), 2)

    def _variation(self, x: Tensor) -> Tensor:
        """Standard deviation over each sample's group, averaged over units and positions: (N, 1, height, width)."""
        samples, _, height, width = x.shape
        size = min(self.group_size, samples)
        if samples % size:
            size = samples
        if self.consecutive_groups:
            deviation = _mean_deviation(x.unflatten(0, (-1, size)), dim=1, correction=min(1, size - 1))
            deviation = deviation.repeat_interleave(size)
        else:
            deviation = _mean_deviation(x.unflatten(0, (size, -1)), dim=0, correction=0).repeat(size)
        return deviation[:, None, None, None].expand(-1, 1, height, width)

    def _shapes(self, units: list[int]) -> list[tuple[int, ...]]:
        """Shapes of the weights: pairs of convolutions, the one at 4×4, the dense layer, the values."""
        down = 4 if self.fused else 3
        shapes: list[tuple[int, ...]] = []
        for index in range(2 * self.blocks + 1):
            kernel = down if index % 2 else 3
            extra = int(index == 2 * self.blocks and self.group_size > 0)
            shapes.append((units[index + 1], units[index] + extra, kernel, kernel))
        return [*shapes, (units[-2], units[-3] * 16), (units[-1], units[-2])]


def _mean_deviation(groups: Tensor, dim: int, correction: int) -> Tensor:
    """One number for each group, whose samples stand along ``dim``."""
    return torch.sqrt(groups.var(dim=dim, correction=correction) + 1e-8).flatten(1).mean(dim=1)
