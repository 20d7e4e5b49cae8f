"""State dicts of ajbrock/BigGAN-PyTorch and of boschresearch/unetgan, which is built on it.

Spectral normalisation is folded in with one step of power iteration from the stored ``u0``: the original runs that step in every
evaluation and does not keep it. Statistics of batch norm are used as they are stored, as the original does unless it is told to
accumulate standing statistics. The conditional generator of U-Net GAN is stored as BigGAN's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from qualitygate.checkpoints.contents import TensorGroup
from qualitygate.checkpoints.layout import Built, DoesNotFit, Layout, declared
from qualitygate.checkpoints.layouts.reading import StateDictReader, spectrally_normalised
from qualitygate.generators.convolutions import nearest_then_3x3
from qualitygate.generators.families.biggan import BigGAN, BigGANDiscriminator, UNetDiscriminator

LAYOUTS: list[Layout] = []
_layout = partial(declared, LAYOUTS, "biggan")

_BATCH_NORM_EPS = 1e-5  # the default and what the released scripts use; not stored in a state dict
_UNUSED = r"(.*\.)?(u[1-9]\d*|sv\d+|accumulation_counter|num_batches_tracked)"
"""Logged singular values, further singular vectors (which do not enter the weight) and counters."""


class SpectralReader(StateDictReader):
    """Reads the modules of a BigGAN, in float64, into float32 ``tensors`` under our names."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__(tensors, torch.float64)
        self.tensors: dict[str, Tensor] = {}

    def put(self, name: str, tensor: Tensor) -> None:
        self.tensors[name] = tensor.float()

    def weight(self, module: str, *shape: int) -> Tensor:
        """Weight of a module, spectrally normalised if it keeps a ``u0``."""
        weight = self.take(f"{module}.weight", *shape)
        return spectrally_normalised(weight, self.take(f"{module}.u0", 1, shape[0])) if f"{module}.u0" in self else weight

    def convolution(self, ours: str, theirs: str, *shape: int, upsampling: bool = False) -> None:
        """A convolution or linear layer with a bias; ``upsampling`` folds the nearest ×2 before it in."""
        weight = self.weight(theirs, *shape)
        self.put(f"{ours}.weight", nearest_then_3x3(weight) if upsampling else weight)
        self.put(f"{ours}.bias", self.take(f"{theirs}.bias", shape[0]))

    def attention(self, ours: str, units: int, gamma: Tensor, query: str, key: str, value: str, output: str) -> None:
        """Self-attention, from the modules of these names."""
        eighth, half = units // 8, units // 2
        for name, theirs, outputs in (("query", query, eighth), ("key", key, eighth), ("value", value, half)):
            self.put(f"{ours}.{name}.weight", self.weight(theirs, outputs, units, 1, 1))
        self.put(f"{ours}.output.weight", self.weight(output, units, half, 1, 1) * gamma)


class Ajbrock(SpectralReader):
    """The modules that ajbrock's state dicts are made of."""

    def attention_after(self, units: list[int]) -> list[int]:
        """Self-attention after the blocks that are followed by it, given the units of all; the numbers of those blocks."""
        blocks = [number for number in self.numbered(r"blocks\.(\d+)\.1\.theta\.weight") if number < len(units)]
        for block in blocks:
            names = [f"blocks.{block}.1.{name}" for name in ("theta", "phi", "g", "o")]
            self.attention(f"attention.{block}", units[block], self.take(f"blocks.{block}.1.gamma"), *names)
        return blocks

    def statistics(self, norm: str, units: int) -> tuple[Tensor, Tensor]:
        """Mean and 1/√(variance + ε) of a batch norm, by any of the names that its three implementations use."""
        stem = next((stem for stem in ("stored", "bn.stored", "bn.running") if f"{norm}.{stem}_mean" in self), "stored")
        variance = self.take(f"{norm}.{stem}_var", units)
        return self.take(f"{norm}.{stem}_mean", units), torch.rsqrt(variance + _BATCH_NORM_EPS)

    def block(self, ours: str, number: int, inputs: int, hidden: int, outputs: int, *, up: bool = False, shortcut: bool = True) -> None:
        theirs = f"blocks.{number}.0"
        self.convolution(f"{ours}.convs.0" if up else f"{ours}.first", f"{theirs}.conv1", hidden, inputs, 3, 3, upsampling=up)
        self.convolution(f"{ours}.last", f"{theirs}.conv2", outputs, hidden, 3, 3)
        if shortcut:
            self.convolution(f"{ours}.shortcut", f"{theirs}.conv_sc", outputs, inputs, 1, 1)

    def projection_head(self, ours: str, linear: str, embedding: str, units: int, label_size: int, kernel: tuple[int, ...] = ()) -> None:
        """A linear layer (or 1×1 convolution: ``kernel``) to one value, and the embedding of the classes it is
        projected on."""
        self.put(f"{ours}.direction", self.weight(linear, 1, units, *kernel).flatten())
        self.put(f"{ours}.bias", self.take(f"{linear}.bias", 1)[0])
        if label_size:
            self.put(f"{ours}.embedding.weight", self.weight(embedding, label_size, units).T)

    def generator_around_norms(self) -> tuple[int, list[int], list[int], dict[str, int]]:
        """Everything of a generator but its conditional norms and the class embedding; gives the inputs of the first layer, units of the
        chain, blocks with attention, and what the constructor needs to know of both ends."""
        count = len(self.numbered(r"blocks\.(\d+)\.0\.conv1\.weight"))
        shapes = [self.shape(f"blocks.{index}.0.conv1.weight", 4) for index in range(count)]
        units = [shapes[0][1], *(shape[0] for shape in shapes)]
        outputs, inputs = self.shape("linear.weight", 2)
        bottom_width, image_channels = math.isqrt(outputs // units[0]), self.shape("output_layer.2.weight", 4)[0]
        self.convolution("linear", "linear", units[0] * bottom_width**2, inputs)
        for index, (before, after) in enumerate(pairwise(units)):
            self.block(f"blocks.{index}", index, before, after, after, up=True)
        attention = self.attention_after(units[1:])
        last = units[-1]
        mean, inverse_deviation = self.statistics("output_layer.0", last)
        scale = self.take("output_layer.0.gain", last) * inverse_deviation
        self.put(f"norms.{2 * (len(units) - 1)}.scale", scale)
        self.put(f"norms.{2 * (len(units) - 1)}.shift", self.take("output_layer.0.bias", last) - mean * scale)
        self.convolution("to_rgb", "output_layer.2", image_channels, last, 3, 3)
        return inputs, units, attention, {"bottom_width": bottom_width, "image_channels": image_channels}

    def conditional_norm(self, number: int, theirs: str, gain: Tensor, offset: Tensor, stage: str = "") -> None:
        """A norm with the weights (units, inputs) of its last linear layers, which are ours under ``stage``."""
        mean, inverse_deviation = self.statistics(theirs, len(gain))
        self.put(f"norms.{number}.scale{stage}.weight", gain * inverse_deviation[:, None])
        self.put(f"norms.{number}.scale{stage}.bias", inverse_deviation)
        self.put(f"norms.{number}.offset{stage}.weight", offset)
        self.put(f"norms.{number}.mean", mean)

    def norms(self, units: list[int]) -> list[tuple[int, str, int]]:
        """Number, name and units of every conditional norm of a generator."""
        return [
            (2 * block + which, f"blocks.{block}.0.bn{which + 1}", count)
            for block, pair in enumerate(pairwise(units))
            for which, count in enumerate(pair)
        ]


@_layout(
    "generator", "ajbrock BigGAN", r"linear\.weight blocks\.0\.0\.bn1\.gain\.weight blocks\.0\.0\.conv1\.weight output_layer\.2\.weight"
)
def _generator(group: TensorGroup) -> Built:
    file = Ajbrock(group.tensors)
    inputs, units, attention, ends = file.generator_around_norms()
    label_size, label_features, block_latent = _conditioning(file, inputs)
    condition = (label_features or label_size) + (inputs if block_latent == "chunk" else 0)
    if label_features:
        file.put("embedding.weight", file.take("shared.weight", label_size, label_features).T)
    for number, name, count in file.norms(units):
        gain, offset = (
            file.weight(f"{name}.{head}", count, condition) if label_features else file.take(f"{name}.{head}.weight", label_size, count).T
            for head in ("gain", "bias")
        )
        file.conditional_norm(number, name, gain, offset)
    latent_size = inputs * len(units) if block_latent == "chunk" else inputs
    with torch.device("meta"):
        generator = BigGAN(latent_size, label_size, label_features, units, attention, block_latent, **ends)
    return Built(generator, file.tensors, file.unread(_UNUSED))


def _conditioning(file: Ajbrock, inputs: int) -> tuple[int, int, Literal["none", "chunk"]]:
    """Classes, size of their shared embedding (0: a table by class in each norm), and what of z blocks read."""
    gain = file.shape("blocks.0.0.bn1.gain.weight", 2)
    if "shared.weight" not in file:
        return gain[0], 0, "none"
    label_size, label_features = file.shape("shared.weight", 2)
    if gain[1] == label_features:
        return label_size, label_features, "none"
    if gain[1] == label_features + inputs:
        return label_size, label_features, "chunk"
    raise DoesNotFit(f"norms read {gain[1]} values: neither the embedded label ({label_features}) nor that and a chunk of z ({inputs})")


@_layout(
    "discriminator", "ajbrock BigGAN discriminator", r"linear\.weight blocks\.0\.0\.conv1\.weight blocks\.0\.0\.conv2\.weight embed\.weight"
)
def _discriminator(group: TensorGroup) -> Built:
    file = Ajbrock(group.tensors)
    count = len(file.numbered(r"blocks\.(\d+)\.0\.conv2\.weight"))
    seconds = [file.shape(f"blocks.{index}.0.conv2.weight", 4) for index in range(count)]
    units, hidden = [shape[0] for shape in seconds], [shape[1] for shape in seconds]
    image_channels = file.shape("blocks.0.0.conv1.weight", 4)[1]
    inputs = [image_channels, *units[:-1]]
    shortcuts = [f"blocks.{index}.0.conv_sc.weight" in file for index in range(count)]
    # the last block never halves the size; any other does if its shortcut has a convolution
    halves = [*shortcuts[:-1], False]
    for index, (before, inner, after, shortcut) in enumerate(zip(inputs, hidden, units, shortcuts, strict=True)):
        file.block(f"blocks.{index}", index, before, inner, after, shortcut=shortcut)
    attention = file.attention_after(units)
    label_size = file.shape("embed.weight", 2)[0]
    file.projection_head("head", "linear", "embed", units[-1], label_size)
    # the one arrangement with several blocks at its smallest size is the one for 32×32, which stays at 8×8
    resolution = (4 if sum(halves) == count - 1 else 8) * 2 ** sum(halves)
    with torch.device("meta"):
        discriminator = BigGANDiscriminator(resolution, units, halves, hidden == units, attention, label_size, image_channels)
    return Built(discriminator, file.tensors, file.unread(_UNUSED))


@_layout("generator", "U-Net GAN", r"linear\.weight blocks\.0\.0\.bn1\.gain\.0\.weight blocks\.0\.0\.conv1\.weight output_layer\.2\.weight")
def _unconditional_generator(group: TensorGroup) -> Built:
    file = Ajbrock(group.tensors)
    latent_size, units, attention, ends = file.generator_around_norms()
    for number, name, count in file.norms(units):
        for ours, theirs in (("scale", "gain"), ("offset", "bias")):
            file.convolution(f"norms.{number}.{ours}.0", f"{name}.{theirs}.0", latent_size, latent_size)
        gain, offset = (file.weight(f"{name}.{head}.2", count, latent_size) for head in ("gain", "bias"))
        file.conditional_norm(number, name, gain, offset, stage=".2")
    with torch.device("meta"):
        generator = BigGAN(latent_size, 0, 0, units, attention, "whole", hidden=latent_size, **ends)
    return Built(generator, file.tensors, file.unread(_UNUSED))


@_layout("discriminator", "U-Net GAN discriminator", r"linear_middle\.weight blocks\.0\.0\.conv1\.weight blocks\.0\.0\.conv_sc\.weight")
def _unet_discriminator(group: TensorGroup) -> Built:
    file = Ajbrock(group.tensors)
    numbers = file.numbered(r"blocks\.(\d+)\.0\.conv1\.weight")
    count = len(numbers) // 2
    if numbers != list(range(2 * count)) or not count:
        raise DoesNotFit(f"blocks {numbers} are not an encoder and a decoder of the same length")
    outputs = [file.shape(f"blocks.{number}.0.conv1.weight", 4)[0] for number in numbers]
    encoder, decoder = outputs[:count], outputs[count:]
    image_channels = file.shape("blocks.0.0.conv1.weight", 4)[1]
    for index, (before, after) in enumerate(zip([image_channels, *encoder[:-1]], encoder, strict=True)):
        file.block(f"encoder.{index}", index, before, after, after)
    for index, (before, skip, after) in enumerate(zip([encoder[-1], *decoder[:-1]], [0, *encoder[-2::-1]], decoder, strict=True)):
        file.block(f"decoder.{index}", count + index, before + skip, after, after, up=True)
    attention = file.attention_after(encoder)
    label_size = file.shape("embed.weight", 2)[0] if "embed.weight" in file else 0
    file.projection_head("head", "linear_middle", "embed_middle", encoder[-1], label_size)
    file.projection_head("pixel_head", f"blocks.{2 * count}", "embed", decoder[-1], label_size, kernel=(1, 1))
    with torch.device("meta"):
        discriminator = UNetDiscriminator(encoder, decoder, attention, label_size, image_channels)
    # `linear` is stored and never used
    return Built(discriminator, file.tensors, file.unread(rf"linear\..*|{_UNUSED}"))
