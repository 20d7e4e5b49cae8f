"""A generator of rings: each layer doubles the size and takes the ReLU of a 1×1 convolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualitygate.generators.base import Generator, Layer, Presets, State
from qualitygate.latents import Latents


class Rings(Generator):
    """The family.

    Args:
        latent_size: D.
        units: units of each layer, the first of size 2×2.
    """

    family = "rings"

    def __init__(self, latent_size: int, units: list[int]) -> None:
        super().__init__()
        self.settings = {"latent_size": latent_size, "units": list(units)}
        self.latent_size = latent_size
        sizes = [2 ** (index + 1) for index in range(len(units))]
        widths = [latent_size, *units]
        self.weight = nn.ParameterList(
            nn.Parameter(torch.zeros(outputs, inputs, 1, 1)) for inputs, outputs in zip(widths, [*units, 1], strict=True)
        )
        operations, layers = 0, []
        for index, (inputs, outputs, size) in enumerate(zip(widths, units, sizes, strict=False)):
            operations += 2 * inputs * outputs * size * size
            layers.append(Layer(index, f"ring{index}", outputs, size, size, operations))
        self.layers = tuple(layers)
        self.operations = operations + 2 * units[-1] * sizes[-1] ** 2
        self.image_shape = (1, sizes[-1], sizes[-1])
        last = len(units) - 1
        self.presets = Presets(low_rate=tuple(range(last + 1)), curvature=(0,), stop=last)

    def begin(self, latents: Latents) -> State:
        return State(-1, latents.z[:, :, None, None])

    def advance(self, state: State) -> State:
        doubled = F.interpolate(state.activation, scale_factor=2)
        return State(state.layer + 1, F.relu(F.conv2d(doubled, self.weight[state.layer + 1])))

    def finish(self, state: State) -> Tensor:
        return torch.tanh(F.conv2d(state.activation, self.weight[-1]))
