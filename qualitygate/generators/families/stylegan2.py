"""StyleGAN2 (Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN"), whatever code trained it.

Layers: 4×4, then two for every further size. Weights are held ready for use (scaling of equalized layers, learning-rate multipliers, the
style bias' +1 and the noise strength folded in), so that one class serves every source. StyleGAN3 trains with the discriminator too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from itertools import pairwise
from typing import Literal, NamedTuple, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualitygate.errors import LatentsError
from qualitygate.generators.base import Presets, State, numbered
from qualitygate.generators.convolutions import blurred, downsampled, runs_by_positions, upsampled
from qualitygate.generators.network import Discriminator, at_least_float32, minibatch_deviation, one_hot, settings_of
from qualitygate.generators.styles import GAIN, SLOPE, Dense, Mapping, Normalisation, StyledConvolution, StyleGenerator, ToRGB, without_fp16
from qualitygate.latents import Latents

Architecture = Literal["skip", "resnet", "orig"]


class Carry(NamedTuple):
    """What the chain needs besides the activation."""

    ws: Tensor
    """Style inputs (N, layers + 1, style size), truncated: input i feeds layer i, to-RGB shares the next layer's."""
    noise: bool
    image: Tensor | None = None
    """So far, at the size of the block before (skip)."""
    shortcut: Tensor | None = None
    """What the block's output is added to (resnet)."""


class StyleGAN2(StyleGenerator):
    """An edit of an activation reaches the next convolution and to-RGB. In the ``resnet`` architecture a layer is the LeakyReLU before the
    residual sum (in a block's second layer including the factor √½), and the shortcut, which starts at the block's input, passes edits of
    the block's own two layers by: its part of the sum stays as it was.

    Args:
        units: of the layers at 4×4, 8×8, …, the image's size.
        architecture: how the image is made: the sum of every block's to-RGB (``skip``), the last one's alone (``orig``), or that with
            residual blocks (``resnet``).
        clamp: bound of every layer's and to-RGB's output; None for none (NVIDIA's torch code: 256).
        num_fp16_res: sizes that run in float16 where that is asked for, the largest ones, none below 8×8; 0 for all (NVIDIA's code: 4).
        latent_size, mapping, label_size, label_features, normalisation, average: as of `Mapping`.
    """

    family = "stylegan2"

    def __init__(
        self,
        latent_size: int,
        mapping: list[int],
        units: list[int],
        image_channels: int,
        architecture: Architecture,
        label_size: int = 0,
        label_features: int = 0,
        normalisation: Normalisation = "apart",
        average: bool = True,
        clamp: float | None = None,
        num_fp16_res: int = 0,
    ) -> None:
        super().__init__()
        self.settings = without_fp16(settings_of(locals()))
        self.latent_size, self.label_size, self.architecture = latent_size, label_size, architecture
        size = 4 * 2 ** (len(units) - 1)
        self.image_shape = (image_channels, size, size)
        self.mapping = Mapping(latent_size, mapping, label_size, label_features, normalisation, average)
        self.constant = nn.Parameter(torch.zeros(units[0], 4, 4))
        synthesis = []
        for index in range(2 * len(units) - 1):
            block, up = (index + 1) // 2, index % 2 == 1
            gain = 0.5**0.5 if architecture == "resnet" and index and not up else 1.0
            inputs, outputs = units[block - up], units[block]
            synthesis.append(StyledConvolution(inputs, outputs, self.mapping.size, 4 * 2**block, up=up, gain=gain, clamp=clamp))
        self.synthesis = nn.ModuleList(synthesis)
        painted = units if architecture == "skip" else units[-1:]
        self.to_rgb = nn.ModuleList(ToRGB(inputs, image_channels, self.mapping.size, clamp) for inputs in painted)
        self.shortcuts = nn.ParameterList(
            nn.Parameter(torch.zeros(outputs, inputs, 1, 1)) for inputs, outputs in pairwise(units) if architecture == "resnet"
        )
        costs = (layer.operations + self._operations_before(index) for index, layer in enumerate(synthesis))
        self.layers = numbered(
            (f"layer{index}", len(layer.bias), layer.size, cost) for index, (layer, cost) in enumerate(zip(synthesis, costs, strict=True))
        )
        self.operations = self.layers[-1].operations + self._painting(len(self.to_rgb) - 1, size)
        self.presets = Presets.within(self.layers, (0, 1, 3), curvature=2, stop=4)

    def begin(self, latents: Latents) -> State:
        ws = self._style_inputs(latents, len(self.layers) + 1)
        return State(-1, self.constant.expand(len(ws), -1, -1, -1), Carry(ws, latents.sampling.noise == "const"))

    def advance(self, state: State) -> State:
        index = state.layer + 1
        x, carry = state.activation, state.carry
        if index % 2:  # a block opens: first everything else that reads the block before
            x, image = self._closed(state)
            shortcut = None
            if self.architecture == "resnet":
                weight = self.shortcuts[index // 2]
                shortcut = self.tap(f"shortcut/{(index + 1) // 2}", upsampled(F.conv2d(x.to(weight.dtype), weight)))
            carry = carry._replace(image=image, shortcut=shortcut)
        layer = cast(StyledConvolution, self.synthesis[index])
        style = self.tap(f"style/layer{index}", layer.style(carry.ws[:, index]))
        return State(index, self.tap(f"activation/layer{index}", layer(x, style, carry.noise)), carry)

    def begin_moved(self, latents: Latents, axes: Tensor, distances: Tensor) -> State:
        """After the first layer: its input is one constant for all, so it is a single product of the style."""
        state = super().begin_moved(latents, axes, distances)
        layer = cast(StyledConvolution, self.synthesis[0])
        activation = layer.from_constant(self.constant, layer.style(state.carry.ws[:, 0]), state.carry.noise)
        return State(0, activation, state.carry)

    def lowered(self, dtype: torch.dtype) -> torch.dtype:
        sizes = self.settings.get("num_fp16_res", 0)
        if dtype != torch.float16 or not sizes:
            return super().lowered(dtype)
        blocks = (len(self.layers) + 1) // 2
        first = max(blocks - sizes, 1)  # the first block in float16
        for module in self.synthesis[2 * first - 1 :]:
            module.to(dtype)
        for painter in self.to_rgb[max(first - blocks + len(self.to_rgb), 0) :]:
            painter.to(dtype)
        for shortcut in list(self.shortcuts)[first - 1 :]:
            shortcut.data = shortcut.data.to(dtype)
        return torch.float32

    def by_position(self, layer: int) -> Callable[[State], Iterator[Tensor]] | None:
        convolution = cast(StyledConvolution, self.synthesis[layer])
        if layer == 0 or convolution.up or not runs_by_positions(convolution.size**2, convolution.weight):
            return None
        return lambda state: convolution.by_position(state.activation, convolution.style(state.carry.ws[:, layer]), state.carry.noise)

    def finish(self, state: State) -> Tensor:
        _, image = self._closed(state)
        assert image is not None, "only the state after the last layer has an image"
        return image

    def _closed(self, state: State) -> tuple[Tensor, Tensor | None]:
        """Output of the block that ends with this state, and the image so far (None where only the end makes one)."""
        block, carry = state.layer // 2, state.carry
        x = state.activation if carry.shortcut is None else state.activation + carry.shortcut
        self.tap(f"block/{block}", x)
        if self.architecture != "skip" and state.layer < self.layers[-1].index:
            return x, None
        to_rgb = cast(ToRGB, self.to_rgb[block if self.architecture == "skip" else 0])
        style = self.tap(f"style/rgb{block}", to_rgb.style(carry.ws[:, state.layer + 1]))
        rgb = self.tap(f"rgb/{block}", at_least_float32(to_rgb(x, style)))  # the sum is in float32 always, as in NVIDIA's code
        return x, self.tap(f"image/{block}", rgb if carry.image is None else upsampled(carry.image) + rgb)

    def _operations_before(self, index: int) -> int:
        """Of what `begin` or `advance` runs before a layer: the mapping, or what stands between two blocks."""
        if index % 2 == 0:
            return 0 if index else self.mapping.operations
        block, size = index // 2, 4 * 2 ** (index // 2)
        if self.architecture == "skip":
            return self._painting(block, size)
        if self.architecture == "resnet":
            outputs, inputs = self.shortcuts[block].shape[:2]
            return 2 * (inputs * outputs * size**2 + 4 * outputs * (2 * size) ** 2)
        return 0

    def _painting(self, painter: int, size: int) -> int:
        """Operations of a to-RGB and, from the second on, of doubling the image so far (4 of 16 taps meet a sample)."""
        doubling = 2 * 4 * self.image_shape[0] * size**2 if painter else 0
        return cast(ToRGB, self.to_rgb[painter]).operations(size) + doubling


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
    """From the image's size down to 4×4 blocks of two 3×3 convolutions; then the standard deviation over the minibatch as further units, a
    convolution and two fully connected layers. A conditional one either has a mapping network for the label and multiplies its output with
    that (NVIDIA's torch code), or has one output for each class (genforce, NVIDIA's TensorFlow code).

    Args:
        units: at the image's size, half of it, …, 4×4.
        architecture: ``skip`` reads the image again at every size, ``resnet`` has residual blocks, ``orig`` neither.
        mapping: widths of the label's mapping network; empty where there is none.
        group, deviations: see `minibatch_deviation`; 0 deviations for no such input.
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
        self.settings = settings_of(locals())
        size = 4 * 2 ** (len(units) - 1)
        self.image_shape = (image_channels, size, size)
        self.label_size, self.group, self.deviations = label_size, group, deviations
        readers = units if architecture == "skip" else units[:1]
        bounds = [*[clamp] * (len(units) - 1), None]  # at 4×4 NVIDIA's code leaves the reader without one
        pairs = zip(readers, bounds, strict=False)
        self.from_rgb = nn.ModuleList(Convolution(image_channels, count, 1, clamp=bound) for count, bound in pairs)
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
