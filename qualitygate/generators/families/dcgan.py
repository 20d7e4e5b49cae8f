"""DCGAN (Radford, Metz, Chintala 2016) in the shape of the PyTorch tutorial: transposed 4×4 convolutions, batch norm, ReLU, tanh.

A layer is the ReLU after each batch norm, which is folded into the convolution before it (in float64) when a checkpoint is read. The
discriminator is the mirror image: 4×4 convolutions of stride 2, LeakyReLU, and one value at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualitygate.generators.base import Generator, Presets, State, numbered
from qualitygate.generators.convolutions import by_positions, conv_transpose_4x4_stride_2, doubling, runs_by_positions
from qualitygate.generators.network import Discriminator, settings_of
from qualitygate.latents import Latents


class DCGAN(Generator):
    """The units are of each hidden layer, from 4×4 on; every further layer and the image double the size."""

    family = "dcgan"
    rate = 0.1  # small R ranks better on the DCGAN of faces

    def __init__(self, latent_size: int, units: list[int], image_channels: int) -> None:
        super().__init__()
        self.settings = settings_of(locals())
        self.latent_size = latent_size
        size = 4 * 2 ** len(units)
        self.image_shape = (image_channels, size, size)
        widths = [latent_size, *units, image_channels]
        # kernel positions first: each tap is then a matrix, ready for a product
        self.weight = nn.ParameterList(nn.Parameter(torch.zeros(4, 4, inputs, outputs)) for inputs, outputs in pairwise(widths))
        self.bias = nn.ParameterList(nn.Parameter(torch.zeros(outputs)) for outputs in widths[1:])
        sides = [4 * 2**index for index in range(len(units))]
        # each weight meets each position that is read once
        costs = [2 * weight.numel() * read**2 for weight, read in zip(self.weight, [1, *sides], strict=True)]
        self.layers = numbered((f"layer{i}", *row) for i, row in enumerate(zip(units, sides, costs[:-1], strict=True)))
        self.operations = sum(costs)
        self.presets = Presets.within(self.layers, (0, 1, 2), curvature=1, stop=2)

    def begin(self, latents: Latents) -> State:
        return State(-1, latents.z[:, :, None, None])

    def advance(self, state: State) -> State:
        index = state.layer + 1
        weight, bias = self.weight[index], self.bias[index]
        if index == 0:
            # one input position: at each of the 4×4 output positions a matrix product of its own
            z = state.activation.flatten(1).expand(16, -1, -1)
            before = torch.baddbmm(bias, z, weight.flatten(0, 1)).unflatten(0, (4, 4)).permute(2, 3, 0, 1)
        else:
            before = conv_transpose_4x4_stride_2(state.activation, weight, bias)
        return State(index, self.tap(f"activation/layer{index}", F.relu_(before)))

    def begin_moved(self, latents: Latents, axes: Tensor, distances: Tensor) -> State:
        """After the first layer, which is linear before its ReLU: a step along an axis adds a multiple of one row of its weights."""
        weight = self.weight[0].flatten(0, 1)
        base = torch.baddbmm(self.bias[0], latents.z.expand(16, -1, -1), weight)
        before = torch.addcmul(base[:, None, :, None], weight[:, None, None, axes], distances[:, None, None, None])
        return State(0, F.relu_(before).flatten(1, 3).unflatten(0, (4, 4)).permute(2, 3, 0, 1))

    def by_position(self, layer: int) -> Callable[[State], Iterator[Tensor]] | None:
        place, weight, bias = self.layers[layer], self.weight[layer], self.bias[layer]
        if layer == 0 or not runs_by_positions(place.height * place.width, weight, bias):
            return None
        return lambda state: map(F.relu_, by_positions(state.activation, weight, bias, doubling))

    def finish(self, state: State) -> Tensor:
        return torch.tanh(conv_transpose_4x4_stride_2(state.activation, self.weight[-1], self.bias[-1]))


class DCGANDiscriminator(Discriminator):
    """The units are of each hidden layer; each halves the size, down to 4×4."""

    family = "dcgan"

    def __init__(self, units: list[int], image_channels: int) -> None:
        super().__init__()
        self.settings = settings_of(locals())
        size = 4 * 2 ** len(units)
        self.image_shape = (image_channels, size, size)
        widths = [image_channels, *units, 1]
        self.weight = nn.ParameterList(nn.Parameter(torch.zeros(outputs, inputs, 4, 4)) for inputs, outputs in pairwise(widths))
        self.bias = nn.ParameterList(nn.Parameter(torch.zeros(outputs)) for outputs in widths[1:])

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        x = images
        for index, (weight, bias) in enumerate(zip(self.weight[:-1], self.bias[:-1], strict=True)):
            x = self.tap(f"activation/layer{index}", F.leaky_relu_(F.conv2d(x, weight, bias, stride=2, padding=1), 0.2))
        x = self.tap("features", x)
        self.tap("vector", x.flatten(1))
        return F.conv2d(x, self.weight[-1], self.bias[-1]).flatten()
