"""PGGAN (Karras, Aila, Laine, Lehtinen 2018): two layers at 4×4, the first dense, and two 3×3 layers for each doubling.

A layer is the LeakyReLU after each convolution. The pixel norm that follows it is computed where the activation is read (next layer,
to-RGB), so an edit of the activation passes through the norm like everything else. When a checkpoint is read, the scaling of the weights
("equalized learning rate") is folded in, and nearest up-sampling into the 3×3 convolution after it (see `nearest_then_3x3`).

The discriminator: from-RGB, pairs of 3×3 convolutions that halve the size, and at 4×4 a convolution that also sees how much the batch
varies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from copy import copy
from itertools import pairwise
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualitygate.generators.base import Generator, Presets, State, numbered
from qualitygate.generators.convolutions import by_positions, conv_3x3, conv_transpose_4x4_stride_2, doubling, keeping, runs_by_positions
from qualitygate.generators.network import Discriminator, minibatch_deviation, settings_of
from qualitygate.latents import Latents

_SLOPE = 0.2  # of the LeakyReLU
_EPS = 1e-8  # of the pixel norm, and of the variance over a group


class PGGAN(Generator):
    """The *level of detail* (``lod``) is the state of progressive growing, 0 when it is over: its whole part says how many doublings the
    image is short of its full size (made up by repeating pixels), its fraction how much comes from the to-RGB of the resolution before.

    Args:
        units: of each layer: 4×4, 4×4, 8×8, 8×8, …; an even number of them.
        label_after_norm: the label joins z after a pixel norm of z alone (genforce), rather than before the only one (NVIDIA, torch hub).
    """

    family = "pggan"

    def __init__(
        self,
        latent_size: int,
        units: list[int],
        image_channels: int = 3,
        label_size: int = 0,
        label_after_norm: bool = False,
        lod: float = 0.0,
        final_tanh: bool = False,
    ) -> None:
        super().__init__()
        self.settings = settings_of(locals())
        self.latent_size, self.label_size = latent_size, label_size
        self.label_after_norm, self.final_tanh = label_after_norm, final_tanh
        self.blend, whole = math.modf(lod)
        self.repeat = 2 ** int(whole)
        size = 2 ** (len(units) // 2 + 1)
        self.image_shape = (image_channels, size * self.repeat, size * self.repeat)

        widths = [latent_size + label_size, *units]
        shapes = [_weight_shape(index, *pair) for index, pair in enumerate(pairwise(widths))]
        biases = [(units[0], 4, 4), *((count,) for count in units[1:])]
        self.weight = nn.ParameterList(nn.Parameter(torch.zeros(shape)) for shape in shapes)
        self.bias = nn.ParameterList(nn.Parameter(torch.zeros(shape)) for shape in biases)
        # to-RGB of the last layer and, while blending, before it that of the resolution before
        readers = [units[-3], units[-1]] if self.blend else [units[-1]]
        self.rgb_weight = nn.ParameterList(nn.Parameter(torch.zeros(image_channels, count, 1, 1)) for count in readers)
        self.rgb_bias = nn.ParameterList(nn.Parameter(torch.zeros(image_channels)) for _ in readers)

        sides = [4 * 2 ** (index // 2) for index in range(len(units))]
        # each weight meets each position that is read once
        costs = [2 * weight.numel() * read**2 for weight, read in zip(self.weight, [1, *sides[:-1]], strict=True)]
        self.layers = numbered((f"layer{i}", *row) for i, row in enumerate(zip(units, sides, costs, strict=True)))
        self.operations = sum(costs) + 2 * image_channels * units[-1] * size**2
        if self.blend:
            self.operations += 2 * image_channels * units[-3] * (size // 2) ** 2
        self.presets = Presets.within(self.layers, (1, 3, 5), curvature=3, stop=5)

    def begin(self, latents: Latents) -> State:
        z = latents.z
        if self.label_size:
            z = torch.cat((_pixel_norm(z) if self.label_after_norm else z, self.label_vectors(latents)), dim=1)
        return State(-1, z[:, :, None, None])

    def advance(self, state: State) -> State:
        index, x = state.layer + 1, state.activation
        # the last block is the one that is blended in, over an image of what it reads
        carry = self._to_rgb(x, 0) if self.blend and index == len(self.layers) - 2 else state.carry
        weight, bias, x = self.weight[index], self.bias[index], _pixel_norm(x)
        if index == 0:
            before = torch.addmm(bias.flatten(), x.flatten(1), weight.flatten(1)).unflatten(1, bias.shape)
        elif index % 2 == 0:
            before = conv_transpose_4x4_stride_2(x, weight, bias)
        else:
            before = conv_3x3(x, weight, bias)
        return State(index, self.tap(f"activation/layer{index}", F.leaky_relu_(before, _SLOPE)), carry)

    def begin_moved(self, latents: Latents, axes: Tensor, distances: Tensor) -> State:
        """After the first layer, whose product is linear: a step along an axis adds a multiple of one row of its weights, and the norm
        is a factor. Where z is normalised before the label joins it, the layer is run."""
        begun = super().begin_moved(latents, axes, distances)
        if self.label_size and self.label_after_norm:
            return begun
        weight, bias = self.weight[0].permute(2, 3, 0, 1).flatten(0, 1), self.bias[0].flatten(1).T  # positions first
        base = self.begin(latents).activation.flatten(1) @ weight
        before = torch.addcmul(base[:, None, :, None], weight[:, None, None, axes], distances[:, None, None, None])
        before = before.flatten(1, 3).mul_(_norm_factor(begun.activation.flatten(1))).add_(bias[:, None])
        return State(0, F.leaky_relu_(before, _SLOPE).unflatten(0, (4, 4)).permute(2, 3, 0, 1))

    def by_position(self, layer: int) -> Callable[[State], Iterator[Tensor]] | None:
        place, weight, bias = self.layers[layer], self.weight[layer], self.bias[layer]
        if layer == 0 or not runs_by_positions(place.height * place.width, weight, bias):
            return None
        taps, readers = (weight.permute(2, 3, 1, 0), keeping) if layer % 2 else (weight, doubling)
        return lambda state: (F.leaky_relu_(before, _SLOPE) for before in by_positions(_pixel_norm(state.activation), taps, bias, readers))

    def finish(self, state: State) -> Tensor:
        image = self._to_rgb(state.activation, -1)
        if self.blend:
            image = torch.lerp(image, _repeated(state.carry, 2), self.blend)
        if self.final_tanh:
            image = torch.tanh(image)
        return _repeated(image, self.repeat)

    def _to_rgb(self, activation: Tensor, which: int) -> Tensor:
        # the norm is one factor for each position, so it is applied to the few channels of the result
        rgb = F.conv2d(activation, self.rgb_weight[which])
        return rgb * _norm_factor(activation) + self.rgb_bias[which][:, None, None]


def _norm_factor(x: Tensor) -> Tensor:
    """1 / root mean square over the units (N, 1, …)."""
    if x.dtype == torch.float16:  # whose squares end at 65,504
        return _norm_factor(x.float()).half()
    return torch.rsqrt(x.square().mean(dim=1, keepdim=True) + _EPS)


def _pixel_norm(x: Tensor) -> Tensor:
    """Each position scaled to unit mean square over the units: equation in section 4.2 of the paper."""
    return x * _norm_factor(x)


def _repeated(image: Tensor, times: int) -> Tensor:
    return image if times == 1 else F.interpolate(image, scale_factor=float(times), mode="nearest")


def _weight_shape(index: int, inputs: int, outputs: int) -> tuple[int, int, int, int]:
    if index == 0:
        return inputs, outputs, 4, 4
    return (outputs, inputs, 3, 3) if index % 2 else (4, 4, inputs, outputs)


class PGGANDiscriminator(Discriminator):
    """Its value of an image depends on the images beside it in the batch (minibatch standard deviation), unless ``group_size`` is 0.

    Args:
        units: of from-RGB, of each convolution from the full size down to 4×4, and of the dense layer; an odd number of them.
        outputs: 1, and one more for each class where the classes are predicted too.
        fused: halving is one 4×4 convolution of stride 2 with its nonlinearity after it; otherwise pooling follows the nonlinearity.
        group_size: samples over which variation is measured; the whole batch where it does not divide it.
        consecutive_groups: groups are neighbours in the batch and their variance is unbiased (torch hub), rather than
            spread over the batch and biased (NVIDIA, genforce).
        lod: as of the generator.
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
        self.settings = settings_of(locals())
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
        alone = copy(self)
        alone.group_size = min(1, self.group_size)
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
        if not self.consecutive_groups:
            return minibatch_deviation(x, size)
        variance = x.unflatten(0, (-1, size)).var(dim=1, correction=min(1, size - 1))
        deviation = torch.sqrt(variance + _EPS).flatten(1).mean(dim=1).repeat_interleave(size)
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
