"""The discriminator of StyleGAN2 (Karras et al. 2020), which StyleGAN3 trains with too.

From the image's size down to 4×4, each block two 3×3 convolutions, the second halving the size; then the standard
deviation over the minibatch as a further unit, a convolution and two fully connected layers.
"""

from __future__ import annotations

from copy import copy
from itertools import pairwise
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualitygate.errors import LatentsError
from qualitygate.generators.discriminator import Discriminator
from qualitygate.generators.network import one_hot
from qualitygate.generators.resampling import blurred, downsampled
from qualitygate.generators.styles import EPSILON, GAIN, SLOPE, Dense, Mapping

Architecture = Literal["skip", "resnet", "orig"]


class Convolution(nn.Module):
    """Convolution, bias, LeakyReLU·√2, clamp; with ``down`` the low-pass filter before it and stride 2."""

    def __init__(self, inputs: int, outputs: int, taps: int, *, down: bool = False, gain: float = 1.0, clamp: float | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs, taps, taps))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.down, self.gain = down, GAIN * gain
        self.clamp = None if clamp is None else clamp * gain

    def forward(self, x: Tensor) -> Tensor:
        if self.down:
            x = F.conv2d(blurred(x, padding=(2, 2)), self.weight, self.bias, stride=2)
        else:
            x = F.conv2d(x, self.weight, self.bias, padding=self.weight.shape[2] // 2)
        x = F.leaky_relu(x, SLOPE) * self.gain
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)


class Block(nn.Module):
    """Two convolutions, the second halving the size; in ``resnet`` added to the halved input."""

    def __init__(self, inputs: int, outputs: int, residual: bool, clamp: float | None) -> None:
        super().__init__()
        self.first = Convolution(inputs, inputs, 3, clamp=clamp)
        self.second = Convolution(inputs, outputs, 3, down=True, gain=0.5**0.5 if residual else 1.0, clamp=clamp)
        self.shortcut = nn.Parameter(torch.zeros(outputs, inputs, 1, 1)) if residual else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.first(x))
        return y if self.shortcut is None else y + F.conv2d(downsampled(x), self.shortcut)


class StyleGAN2Discriminator(Discriminator):
    """StyleGAN2 discriminator.

    A conditional one either has a mapping network for the label and multiplies its output with that (NVIDIA's torch
    code), or has one output for each class (genforce, NVIDIA's TensorFlow code).

    Args:
        units: units at the image's size, half of it, …, 4×4.
        image_channels: channels of the image.
        architecture: ``skip`` reads the image again at every size, ``resnet`` has residual blocks, ``orig`` neither.
        label_size: number of classes; 0 for none.
        label_features: size of the embedded label; 0 where there is no mapping network.
        mapping: sizes after each layer of the label's mapping network; empty where there is none.
        group: samples over which the standard deviation is taken; None for the whole batch. See `minibatch_deviation`.
        deviations: number of units that hold it; 0 for none.
        clamp: bound of the convolutions' output; None for none.
    """

    family = "stylegan2"

    def __init__(
        self,
        units: list[int],
        image_channels: int,
        architecture: Architecture,
        label_size: int = 0,
        label_features: int = 0,
        mapping: list[int] | None = None,
        group: int | None = 4,
        deviations: int = 1,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        mapping = mapping or []
        self.settings = {
            "units": list(units),
            "image_channels": image_channels,
            "architecture": architecture,
            "label_size": label_size,
            "label_features": label_features,
            "mapping": list(mapping),
            "group": group,
            "deviations": deviations,
            "clamp": clamp,
        }
        size = 4 * 2 ** (len(units) - 1)
        self.image_shape = (image_channels, size, size)
        self.label_size, self.group, self.deviations = label_size, group, deviations
        readers = units if architecture == "skip" else units[:1]
        # at 4×4 NVIDIA's code leaves the reader without a bound
        bounds = [clamp if index < len(units) - 1 else None for index in range(len(readers))]
        self.from_rgb = nn.ModuleList(
            Convolution(image_channels, outputs, 1, clamp=bound) for outputs, bound in zip(readers, bounds, strict=True)
        )
        self.blocks = nn.ModuleList(Block(inputs, outputs, architecture == "resnet", clamp) for inputs, outputs in pairwise(units))
        self.last = Convolution(units[-1] + deviations, units[-1], 3, clamp=clamp)
        self.dense = Dense(16 * units[-1], units[-1])
        self.mapping = Mapping(0, mapping, label_size, label_features, average=False) if mapping else None
        self.output = Dense(units[-1], mapping[-1] if mapping else max(label_size, 1))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.from_rgb[0](images)
        for index, block in enumerate(self.blocks, start=1):
            x = block(x)
            if len(self.from_rgb) > 1:
                images = downsampled(images)
                x = x + self.from_rgb[index](images)
        x = self.tap("features", x)
        if self.deviations:
            x = torch.cat((x, minibatch_deviation(x, self.group, self.deviations)), dim=1)
        x = self.tap("vector", F.leaky_relu(self.dense(self.last(x).flatten(1)), SLOPE) * GAIN)
        return self._judged(self.output(x), labels)

    def alone(self) -> Self:
        alone = copy(self)
        alone.group = 1
        return alone

    def _judged(self, x: Tensor, labels: Tensor | None) -> Tensor:
        if not self.label_size:
            return x.squeeze(1)
        if labels is None:
            raise LatentsError("The discriminator is conditional", "images without labels", f"{self.label_size} classes")
        vectors = one_hot(labels, self.label_size)
        if self.mapping is None:
            return (x * vectors).sum(dim=1)
        return (x * self.mapping(None, vectors)).sum(dim=1) / x.shape[1] ** 0.5


def minibatch_deviation(x: Tensor, group: int | None, deviations: int) -> Tensor:
    """Standard deviation of units over groups of samples, averaged over units and positions (Karras et al. 2018,
    section 3): (N, deviations, height, width).

    All sources put samples i, i + N/G, i + 2N/G, … into a group of G = min(group, N). They fail where N is no multiple
    of G; here G is then the largest number below that divides N.

    Args:
        x: (N, units, height, width).
        group: G; None for N.
        deviations: number of sets the units are split into, each with a deviation of its own.
    """
    samples, _, height, width = x.shape
    size = next(g for g in range(min(group or samples, samples), 0, -1) if samples % g == 0)
    sets = x.reshape(size, samples // size, deviations, -1, height, width)
    deviation = torch.sqrt(sets.var(dim=0, correction=0) + EPSILON).mean(dim=(2, 3, 4))
    return deviation.repeat(size, 1)[:, :, None, None].expand(-1, -1, height, width)
