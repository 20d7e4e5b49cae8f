"""Modulated convolutions of StyleGAN2 (Karras et al. 2020, section 2.2): the style scales the input units, and the
output units are brought back to unit variance.

Scaling activations before and after one shared convolution equals convolving every sample with weights of its own, and
keeps the convolution a plain batched one.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualitygate.generators.positions import by_positions, conv_3x3, keeping
from qualitygate.generators.resampling import blurred
from qualitygate.generators.styles import GAIN, SLOPE, Dense, demodulation


class StyledConvolution(nn.Module):
    """One layer: modulated 3×3 convolution, noise, bias, LeakyReLU·√2, clamp.

    Args:
        inputs, outputs: units before and after.
        style_size: size of w.
        size: height and width of the output.
        up: whether the layer doubles the size: transposed convolution of stride 2, then the low-pass filter.
        gain: factor of the output, which also scales the clamp.
        clamp: bound of the output's magnitude; None for none.
    """

    def __init__(
        self, inputs: int, outputs: int, style_size: int, size: int, *, up: bool, gain: float = 1.0, clamp: float | None = None
    ) -> None:
        super().__init__()
        self.style = Dense(style_size, inputs)
        self.weight = nn.Parameter(torch.zeros(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise = nn.Parameter(torch.zeros(size, size))
        self.size, self.up, self.gain = size, up, gain
        self.clamp = None if clamp is None else clamp * gain

    @property
    def operations(self) -> int:
        """Operations of one sample, 2 per multiply-add: style, demodulation, convolution, separable filter.

        A transposed convolution visits its 9 taps once for each *input* position: 9/4 for each output position.
        """
        outputs, inputs = self.weight.shape[:2]
        positions = (self.size // 2) ** 2 if self.up else self.size**2
        filtering = 8 * outputs * self.size**2 if self.up else 0
        return 2 * (self.style.weight.numel() + inputs * outputs + 9 * inputs * outputs * positions + filtering)

    def forward(self, x: Tensor, style: Tensor, noise: bool) -> Tensor:
        """Output (N, outputs, size, size) of x (N, inputs, …) and the style (N, inputs) that `style` makes of w."""
        x = x * style[:, :, None, None]
        if self.up:
            x = x.contiguous(memory_format=torch.channels_last)  # in which the transposed convolution is the fastest
            x = blurred(F.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2), padding=(1, 1), gain=4.0)
        else:
            x = conv_3x3(x, self.weight)
        offset, factor = self._offset(noise), self._factor(style)
        return self._activated(torch.addcmul(offset, x, factor[:, :, None, None]))

    def by_position(self, x: Tensor, style: Tensor, noise: bool) -> Iterator[Tensor]:
        """The same a position at a time, (N, outputs), each over the one before; only of layers that keep the size."""
        offset, factor = self._offset(noise).expand(-1, self.size, self.size).flatten(1).T, self._factor(style)
        taps, none = self.weight.permute(2, 3, 1, 0), x.new_zeros(len(self.bias))
        for position, product in enumerate(by_positions(x * style[:, :, None, None], taps, none, keeping)):
            yield self._activated(product.mul_(factor).add_(offset[position]))

    def from_constant(self, constant: Tensor, style: Tensor, noise: bool) -> Tensor:
        """The same for many styles of one input (inputs, size, size): a single product, linear in the style."""
        weight = self.weight.flatten(2)
        read = F.unfold(constant[:, None], 3, padding=1)  # (inputs, taps, positions)
        response = torch.einsum("oit,itp->ipo", weight, read).flatten(1)
        x = (style @ response).unflatten(1, (self.size**2, -1))
        offset = self._offset(noise).expand(-1, self.size, self.size).flatten(1).T
        x = torch.addcmul(offset, x, self._factor(style)[:, None])
        return self._activated(x).unflatten(1, (self.size, self.size)).permute(0, 3, 1, 2)

    # LeakyReLU commutes with positive factors, so its gain goes into the small tensors

    def _offset(self, noise: bool) -> Tensor:
        offset = self.bias[:, None, None] + self.noise if noise else self.bias[:, None, None]
        return offset * (GAIN * self.gain)

    def _factor(self, style: Tensor) -> Tensor:
        return demodulation(self.weight, style) * (GAIN * self.gain)

    def _activated(self, x: Tensor) -> Tensor:
        x = F.leaky_relu_(x, SLOPE)
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)


class ToRGB(nn.Module):
    """An activation's part of the image: modulated 1×1 convolution without demodulation, bias, clamp; linear.

    Args:
        inputs, outputs: units and image channels.
        style_size: size of w.
        clamp: bound of the output's magnitude; None for none.
    """

    def __init__(self, inputs: int, outputs: int, style_size: int, clamp: float | None = None) -> None:
        super().__init__()
        self.style = Dense(style_size, inputs)
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.clamp = clamp

    def operations(self, size: int) -> int:
        """Operations of one sample of height and width ``size``, 2 per multiply-add."""
        return 2 * (self.style.weight.numel() + self.weight.numel() * size**2)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(N, outputs, height, width) of x (N, inputs, height, width) and the style (N, inputs)."""
        weights = self.weight * style[:, None, :]
        image = torch.baddbmm(self.bias[:, None], weights, x.flatten(2)).unflatten(2, x.shape[2:])
        return image if self.clamp is None else image.clamp(-self.clamp, self.clamp)
