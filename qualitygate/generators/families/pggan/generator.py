"""PGGAN (Karras, Aila, Laine, Lehtinen 2018): two layers at 4×4, the first dense, and two 3×3 layers for each doubling.

A layer is the LeakyReLU after each convolution. The pixel norm that follows it is computed where the activation is read
(next layer, to-RGB), so an edit of the activation passes through the norm like everything else. The stored weights are
the scaled ones ("equalized learning rate" is applied once, when a checkpoint is read), and nearest up-sampling followed
by a 3×3 convolution is stored as what it equals: a 4×4 transposed convolution of stride 2, which needs 4 taps for an
output instead of 9.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualitygate.generators.base import Generator, Layer, Presets, State
from qualitygate.generators.positions import by_positions, conv_3x3, doubling, keeping, runs_by_positions
from qualitygate.generators.transposed import conv_transpose_4x4_stride_2
from qualitygate.latents import Latents

_SLOPE = 0.2  # of the LeakyReLU
_EPS = 1e-8  # of the pixel norm


class PGGAN(Generator):
    """PGGAN generator.

    The *level of detail* is the state of progressive growing: its whole part says how many doublings the image is short
    of its full size (made up by repeating pixels), its fraction how much of the image comes from the to-RGB of the
    resolution before.

    Args:
        latent_size: D.
        units: units of each layer: 4×4, 4×4, 8×8, 8×8, …; an even number of them.
        image_channels: channels of the image, whose size is ``4 · 2**(len(units) // 2 − 1 + floor(lod))``.
        label_size: number of classes; 0 where there are none.
        label_after_norm: the label joins z after a pixel norm of z alone (genforce), rather than before the only one
            (NVIDIA, torch hub).
        lod: level of detail, ≥ 0; 0 when growing is over.
        final_tanh: the image goes through tanh.
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
        self.settings = {
            "latent_size": latent_size,
            "units": list(units),
            "image_channels": image_channels,
            "label_size": label_size,
            "label_after_norm": label_after_norm,
            "lod": lod,
            "final_tanh": final_tanh,
        }
        self.latent_size, self.label_size = latent_size, label_size
        self.label_after_norm, self.final_tanh = label_after_norm, final_tanh
        self.blend, whole = math.modf(lod)
        self.repeat = 2 ** int(whole)
        size = 2 ** (len(units) // 2 + 1)
        self.image_shape = (image_channels, size * self.repeat, size * self.repeat)

        widths = [latent_size + label_size, *units]
        shapes = [_weight_shape(index, *pair) for index, pair in enumerate(pairwise(widths))]
        self.weight = nn.ParameterList(nn.Parameter(torch.zeros(shape)) for shape in shapes)
        biases = [(units[0], 4, 4), *((count,) for count in units[1:])]
        self.bias = nn.ParameterList(nn.Parameter(torch.zeros(shape)) for shape in biases)
        # to-RGB of the last layer and, while blending, before it that of the resolution before
        readers = [units[-3], units[-1]] if self.blend else [units[-1]]
        self.rgb_weight = nn.ParameterList(nn.Parameter(torch.zeros(image_channels, count, 1, 1)) for count in readers)
        self.rgb_bias = nn.ParameterList(nn.Parameter(torch.zeros(image_channels)) for _ in readers)

        self.layers = _layers(widths)
        self.operations = self.layers[-1].operations + 2 * image_channels * units[-1] * size**2
        if self.blend:
            self.operations += 2 * image_channels * units[-3] * (size // 2) ** 2
        last = len(units) - 1
        self.presets = Presets(tuple(index for index in (1, 3, 5) if index <= last), (min(3, last),), min(5, last))

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


def _layers(widths: list[int]) -> tuple[Layer, ...]:
    layers: list[Layer] = []
    operations = 0
    for index, (inputs, outputs) in enumerate(pairwise(widths)):
        size = 4 * 2 ** (index // 2)
        taps = 1 if index == 0 else 9 if index % 2 else 4
        operations += 2 * inputs * outputs * taps * size * size
        layers.append(Layer(index, f"layer{index}", outputs, size, size, operations))
    return tuple(layers)
