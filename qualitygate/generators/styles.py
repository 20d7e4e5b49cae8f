"""What the style-based generators share (Karras et al. 2019, 2020): mapping network, truncation, demodulation.

Weights are held ready for use: learning-rate multipliers and the scaling by 1/√(fan in) of equalized layers are folded
in when a checkpoint is read.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualitygate.errors import LatentsError
from qualitygate.latents import Latents

GAIN = 2.0**0.5
"""Factor after every LeakyReLU, which keeps the variance."""
SLOPE = 0.2
"""Negative slope of every LeakyReLU."""
EPSILON = 1e-8
"""Added to mean squares and to the demodulation's sum of squares, as in all sources."""

Normalisation = Literal["apart", "joint"]
"""Latent and embedded label are normalised each for itself and then joined, or joined and then normalised."""


class Dense(nn.Module):
    """Fully connected layer, ready for use: ``x Wᵀ + b``.

    Args:
        inputs, outputs: sizes; ``weight`` is (outputs, inputs), ``bias`` (outputs,).
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class Mapping(nn.Module):
    """Latent and label to w: normalisation, then fully connected layers with LeakyReLU.

    Args:
        latent_size: D; 0 where only the label is mapped (in discriminators).
        widths: sizes after each layer; the last is the size of w. May be empty: w is then the normalised input.
        label_size: number of classes; 0 for none.
        label_features: size of the embedded label.
        normalisation: ``"apart"`` (NVIDIA's torch code) or ``"joint"`` (genforce, NVIDIA's first TensorFlow code).
        average: whether the mean w, towards which truncation goes, is known.
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
        """Operations of one latent, 2 per multiply-add; the label's embedding included."""
        dense = [*self.layers, *([self.embedding] if self.embedding else [])]
        return sum(2 * layer.weight.numel() for layer in dense)

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

    def untruncated(self, latents: Latents, labels: Tensor | None) -> Tensor:
        """w (N, size) of latents in either space.

        Raises:
            LatentsError: latents in w of another size.
        """
        if latents.space == "z":
            return self(latents.z, labels)
        if latents.z.shape[1] != self.size:
            raise LatentsError("The latents do not fit the generator", f"w of shape {tuple(latents.z.shape)}", f"(N, {self.size})")
        return latents.z

    def truncated(self, w: Tensor, count: int, psi: float, cutoff: int | None) -> Tensor:
        """Style inputs (N, count, size): w for each, the first ``cutoff`` (all if None) moved towards the mean w:
        ``w̄ + psi·(w − w̄)``.

        Raises:
            LatentsError: truncation is asked for and the mean w is not known.
        """
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


def normalised(x: Tensor) -> Tensor:
    """x (N, D) divided by the root of its mean square over D."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + EPSILON)


def demodulation(weight: Tensor, style: Tensor) -> Tensor:
    """Factors (N, outputs) that bring each output unit of a modulated convolution back to unit variance:
    ``1/√(Σ (weight·style)² + ε)``, the sum over inputs and taps (Karras et al. 2020, equation 3).

    Args:
        weight: (outputs, inputs, k, k).
        style: (N, inputs).
    """
    energy = torch.linalg.vector_norm(weight, dim=(2, 3)).square()
    return torch.rsqrt(style.square() @ energy.T + EPSILON)
