"""What the style-based generators share (Karras et al. 2019, 2020): mapping network, truncation, modulated convolutions.

The style scales the input units of a convolution, and demodulation brings its output units back to unit variance (2020, section 2.2).
Scaling activations before and after one shared convolution equals convolving every sample with weights of its own, and keeps the
convolution a plain batched one. Learning-rate multipliers and the scaling by 1/√(fan in) of equalized layers are folded into the weights
when a checkpoint is read.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualitygate.errors import LatentsError
from qualitygate.generators.base import Generator
from qualitygate.generators.convolutions import blurred, by_positions, conv_3x3, keeping
from qualitygate.generators.network import at_least_float32
from qualitygate.latents import Latents

GAIN = 2.0**0.5
"""Factor after every LeakyReLU, which keeps the variance."""
SLOPE = 0.2
"""Negative slope of every LeakyReLU."""
EPSILON = 1e-8
"""Added to mean squares and to the demodulation's sum of squares, as in all sources."""

Normalisation = Literal["apart", "joint"]
"""Latent and embedded label are normalised each for itself and then joined, or joined and then normalised."""


def without_fp16(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without a ``num_fp16_res`` of 0, so that fingerprints made before it are what they were."""
    return {name: value for name, value in settings.items() if name != "num_fp16_res" or value}


class Dense(nn.Module):
    """Fully connected layer, ``x Wᵀ + b``, that starts at 0."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)


class Mapping(nn.Module):
    """Latent and label to w: normalisation, then fully connected layers with LeakyReLU.

    Args:
        latent_size: D; 0 where only the label is mapped (in discriminators).
        widths: sizes after each layer; the last is the size of w. May be empty: w is then the normalised input.
        label_size, label_features: number of classes, and size of the embedded label; 0 for none.
        normalisation: ``"apart"`` (NVIDIA's torch code) or ``"joint"`` (genforce, NVIDIA's first TensorFlow code).
        average: whether the mean w is known; without it, truncation is refused.
    """

    average: Tensor | None

    def __init__(
        self,
        latent_size: int,
        widths: list[int],
        label_size: int = 0,
        label_features: int = 0,
        normalisation: Normalisation = "apart",
        average: bool = True,
    ) -> None:
        super().__init__()
        self.normalisation = normalisation
        self.embedding = Dense(label_size, label_features) if label_size else None
        sizes = [latent_size + (label_features if label_size else 0), *widths]
        self.layers = nn.ModuleList(Dense(inputs, outputs) for inputs, outputs in pairwise(sizes))
        self.size = sizes[-1]
        self.register_buffer("average", torch.zeros(self.size) if average else None)

    @property
    def operations(self) -> int:
        """Of one latent and its label."""
        return sum(2 * parameter.numel() for parameter in self.parameters() if parameter.ndim == 2)

    def forward(self, z: Tensor | None, labels: Tensor | None = None) -> Tensor:
        """w (N, size), untruncated, of z (N, D) and label vectors (N, label size), each None where it is no input."""
        parts = [] if z is None else [z]
        if self.embedding is not None and labels is not None:
            parts.append(self.embedding(labels))
        if self.normalisation == "apart":
            parts = [normalised(part) for part in parts]
        x = torch.cat(parts, dim=1)
        x = normalised(x) if self.normalisation == "joint" else x
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE) * GAIN
        return x

    def truncated(self, w: Tensor, count: int, psi: float, cutoff: int | None) -> Tensor:
        """Style inputs (N, count, size): w (N, size) for each, the first ``cutoff`` (all if None) moved towards the mean w:
        ``w̄ + psi·(w − w̄)``. Raises `LatentsError` if that is asked for and the mean w is not known."""
        ws = w[:, None].expand(-1, count, -1)
        if psi == 1.0 or cutoff == 0:
            return ws
        if self.average is None:
            raise LatentsError(
                f"Truncation by {psi:g} needs the mean w",
                "a checkpoint without it (a training checkpoint)",
                "the average of w over many latents, stored beside the generator",
                "convert the checkpoint with its mean w, or sample with psi = 1",
            )
        near = torch.lerp(self.average, ws[:, :cutoff], psi)
        return near if cutoff is None else torch.cat((near, ws[:, cutoff:]), dim=1)


class StyleGenerator(Generator, abc.ABC):
    """Base of generators with a mapping network, whose truncation acts on w."""

    truncates = "w"
    mapping: Mapping

    def styles(self, latents: Latents | Tensor) -> Tensor:
        return self._styles(self.checked(latents).to(self.device))

    def _styles(self, latents: Latents) -> Tensor:
        if latents.space == "z":
            return self.mapping(latents.z, self.label_vectors(latents) if self.label_size else None)
        if latents.z.shape[1] != self.mapping.size:
            raise LatentsError("The latents do not fit the generator", f"w of shape {tuple(latents.z.shape)}", f"(N, {self.mapping.size})")
        return latents.z

    def _style_inputs(self, latents: Latents, count: int) -> Tensor:
        """One w for each consumer, truncated: (N, count, size)."""
        w, sampling = self.tap("w", self._styles(latents)), latents.sampling
        return self.tap("ws", self.mapping.truncated(w, count, sampling.psi, sampling.cutoff))


def normalised(x: Tensor) -> Tensor:
    """x (N, D) divided by the root of its mean square over D."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + EPSILON)


def demodulation(weight: Tensor, style: Tensor) -> Tensor:
    """Factors (N, outputs) that bring each output unit of a modulated convolution back to unit variance, of weight (outputs, inputs, k, k)
    and style (N, inputs): ``1/√(Σ (weight·style)² + ε)``, the sum over inputs and taps (Karras et al. 2020, equation 3). It is summed in
    float32: ε is 0 in float16."""
    energy = torch.linalg.vector_norm(at_least_float32(weight), dim=(2, 3)).square()
    return torch.rsqrt(at_least_float32(style).square() @ energy.T + EPSILON).to(style.dtype)


class StyledConvolution(nn.Module):
    """One layer: modulated 3×3 convolution, noise, bias, LeakyReLU·√2, clamp; with ``up`` it doubles the size by a transposed convolution
    of stride 2, then the low-pass filter. ``size`` is that of the output, whose factor ``gain`` also scales the clamp."""

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
        """Of one sample: style, demodulation, convolution, separable filter. A transposed convolution visits its 9 taps once for each
        *input* position: 9/4 for each output position."""
        outputs, inputs = self.weight.shape[:2]
        positions = (self.size // 2) ** 2 if self.up else self.size**2
        filtering = 8 * outputs * self.size**2 if self.up else 0
        return 2 * (self.style.weight.numel() + inputs * outputs + 9 * inputs * outputs * positions + filtering)

    def forward(self, x: Tensor, style: Tensor, noise: bool) -> Tensor:
        """Output (N, outputs, size, size) of x (N, inputs, …) and the style (N, inputs) that `style` makes of w."""
        x = x.to(self.weight.dtype) * style[:, :, None, None]
        if self.up:
            x = x.contiguous(memory_format=torch.channels_last)  # in which the transposed convolution is the fastest
            x = blurred(F.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2), padding=(1, 1), gain=4.0)
        else:
            x = conv_3x3(x, self.weight)
        offset, factor = self._offset(noise), self._factor(style)
        return self._activated(torch.addcmul(offset, x, factor[:, :, None, None]))

    def by_position(self, x: Tensor, style: Tensor, noise: bool) -> Iterator[Tensor]:
        """The same a position at a time, (N, outputs), each over the one before; only of layers that keep the size."""
        offset, factor = self._offsets_by_position(noise), self._factor(style)
        taps, none = self.weight.permute(2, 3, 1, 0), x.new_zeros(len(self.bias))
        for position, product in enumerate(by_positions(x * style[:, :, None, None], taps, none, keeping)):
            yield self._activated(product.mul_(factor).add_(offset[position]))

    def from_constant(self, constant: Tensor, style: Tensor, noise: bool) -> Tensor:
        """The same for many styles of one input (inputs, size, size): a single product, linear in the style."""
        weight = self.weight.flatten(2)
        read = F.unfold(constant[:, None], 3, padding=1)  # (inputs, taps, positions)
        response = torch.einsum("oit,itp->ipo", weight, read).flatten(1)
        x = (style @ response).unflatten(1, (self.size**2, -1))
        x = torch.addcmul(self._offsets_by_position(noise), x, self._factor(style)[:, None])
        return self._activated(x).unflatten(1, (self.size, self.size)).permute(0, 3, 1, 2)

    # LeakyReLU commutes with positive factors, so its gain goes into the small tensors

    def _offset(self, noise: bool) -> Tensor:
        offset = self.bias[:, None, None] + self.noise if noise else self.bias[:, None, None]
        return offset * (GAIN * self.gain)

    def _offsets_by_position(self, noise: bool) -> Tensor:
        return self._offset(noise).expand(-1, self.size, self.size).flatten(1).T

    def _factor(self, style: Tensor) -> Tensor:
        return demodulation(self.weight, style) * (GAIN * self.gain)

    def _activated(self, x: Tensor) -> Tensor:
        x = F.leaky_relu_(x, SLOPE)
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)


class ToRGB(nn.Module):
    """An activation's part of the image: modulated 1×1 convolution without demodulation, bias, clamp; linear."""

    def __init__(self, inputs: int, outputs: int, style_size: int, clamp: float | None = None) -> None:
        super().__init__()
        self.style = Dense(style_size, inputs)
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.clamp = clamp

    def operations(self, size: int) -> int:
        """Of one sample, size×size."""
        return 2 * (self.style.weight.numel() + self.weight.numel() * size**2)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(N, outputs, height, width) of x (N, inputs, height, width) and the style (N, inputs)."""
        weights = self.weight * style[:, None, :]
        image = torch.baddbmm(self.bias[:, None], weights, x.flatten(2)).unflatten(2, x.shape[2:])
        return image if self.clamp is None else image.clamp(-self.clamp, self.clamp)
