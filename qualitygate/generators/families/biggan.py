"""BigGAN (Brock, Donahue, Simonyan 2019) as in ajbrock/BigGAN-PyTorch, and U-Net GAN (Schönfeld, Schiele, Khoreva 2020).

A layer is the ReLU after a batch norm: two in each block (``block0.relu1``, at the size the block reads, and ``block0.relu2``, at the
doubled size), and ``output.relu`` before the output convolution. The shortcut around a block passes an edit by: see `ResidualGenerator`.
U-Net GAN changes what its unconditional generator makes gain and bias of: all of z, by a small network. Its conditional one is BigGAN's.
When a checkpoint is read, spectral normalisation and the variance of batch norm are folded into the weights.

BigGAN's discriminator is a projection discriminator (Miyato and Koyama 2018); U-Net GAN's has a decoder too, as in boschresearch/unetgan.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualitygate.errors import LatentsError
from qualitygate.generators.base import State
from qualitygate.generators.network import Discriminator, one_hot, settings_of
from qualitygate.generators.residual import DownBlock, ResidualGenerator, SelfAttention, UpBlock, operations
from qualitygate.latents import Latents


class _Carry(NamedTuple):
    """Input of the current block, label vectors (N, features; none where unconditional), z (N, D)."""

    shortcut: Tensor
    label: Tensor
    z: Tensor


class _ConditionalNorm(nn.Module):
    """Batch norm whose gain and bias are functions of the condition: (x − mean)·scale + offset, with scale = (1 + gain)/√(variance + ε).

    With ``hidden`` units, both are a linear layer, a ReLU and a linear layer (self-modulation).
    """

    def __init__(self, units: int, condition: int, hidden: int) -> None:
        super().__init__()
        self.scale, self.offset = (
            nn.Sequential(nn.Linear(condition, hidden), nn.ReLU(), nn.Linear(hidden, units, bias=bias))
            if hidden
            else nn.Linear(condition, units, bias=bias)
            for bias in (True, False)
        )
        self.register_buffer("mean", torch.zeros(units))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale = self.scale(condition)
        shift = self.offset(condition) - self.mean * scale
        return torch.addcmul(shift[:, :, None, None], x, scale[:, :, None, None])


class _Affine(nn.Module):
    """Unconditional batch norm, as one scale and shift a unit."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(units))
        self.shift = nn.Parameter(torch.zeros(units))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return torch.addcmul(self.shift[:, None, None], x, self.scale[:, None, None])


class BigGAN(ResidualGenerator):
    """BigGAN and U-Net GAN generator.

    Args:
        label_features: size of the shared class embedding; 0 where the blocks read the one-hot class itself.
        units: of the first block's input, then of every block's output; each block doubles the size.
        attention: numbers of the blocks that are followed by self-attention.
        block_latent: what of z a block reads beside the label: ``"none"``; ``"chunk"`` (hierarchical: z is cut into one more chunk
            than there are blocks, chunk 0 makes the first block's input, block i reads chunk i + 1); ``"whole"`` (U-Net GAN).
        hidden: units of the self-modulation of U-Net GAN; 0 where gain and bias are linear.
        bottom_width: height and width of the first block's input.
    """

    family = "biggan"
    steps = 2

    def __init__(
        self,
        latent_size: int,
        label_size: int,
        label_features: int,
        units: list[int],
        attention: list[int],
        block_latent: Literal["none", "chunk", "whole"],
        hidden: int = 0,
        bottom_width: int = 4,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        self.settings = settings_of(locals())
        self.latent_size, self.label_size = latent_size, label_size
        self._block_latent, self._bottom_width = block_latent, bottom_width
        self._chunk = latent_size // len(units) if block_latent == "chunk" else latent_size
        from_latent = {"none": 0, "chunk": self._chunk, "whole": latent_size}[block_latent]
        condition = (label_features or label_size) + from_latent

        self.embedding = nn.Linear(label_size, label_features, bias=False) if label_features else nn.Identity()
        self.linear = nn.Linear(self._chunk, units[0] * bottom_width**2)
        pairs = list(pairwise(units))
        self.blocks = nn.ModuleList(UpBlock(inputs, outputs) for inputs, outputs in pairs)
        self.attention = nn.ModuleDict({str(block): SelfAttention(units[block + 1]) for block in attention})
        normalised = [count for pair in pairs for count in pair]
        self.norms = nn.ModuleList(_ConditionalNorm(count, condition, hidden) for count in normalised)
        self.norms.append(_Affine(units[-1]))
        self.to_rgb = nn.Conv2d(units[-1], image_channels, 3, padding=1)
        self._describe(operations(self.embedding) + operations(self.linear), bottom_width, [*normalised, units[-1]])

    def begin(self, latents: Latents) -> State:
        z = latents.z
        label = self.tap("label", self.embedding(self.label_vectors(latents))) if self.label_size else z[:, :0]
        x = self.linear(z[:, : self._chunk]).unflatten(1, (-1, self._bottom_width, self._bottom_width))
        return State(-1, self.tap("linear", x), _Carry(x, label, z))

    def axes_reaching(self, layer: int) -> range:
        """Latent axes that can influence a layer: hierarchical generators have read the chunks 0 … i + 1 in block i."""
        if self._block_latent != "chunk":
            return range(self.latent_size)
        return range(min(self.latent_size, self._chunk * (layer // self.steps + 2)))

    def _normalised(self, index: int, x: Tensor, carry: _Carry) -> Tensor:
        start = self._chunk * (index // self.steps + 1)
        read = {"none": slice(0), "chunk": slice(start, start + self._chunk), "whole": slice(None)}[self._block_latent]
        return self.norms[index](x, torch.cat((carry.label, carry.z[:, read]), dim=1))


class BigGANDiscriminator(Discriminator):
    """Residual blocks (of so many output units), ReLU, sum over positions, and a linear layer plus the product with the embedded label.
    ``wide`` blocks have inner units as their output, others as their input."""

    family = "biggan-discriminator"

    def __init__(
        self,
        resolution: int,
        units: list[int],
        halves: list[bool],
        wide: bool,
        attention: list[int],
        label_size: int,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        self.settings = settings_of(locals())
        self.image_shape = (image_channels, resolution, resolution)
        self.label_size = label_size
        pairs = pairwise([image_channels, *units])
        self.blocks = nn.ModuleList(
            DownBlock(before, after if wide else before, after, preactivation=index > 0, halves=down)
            for index, ((before, after), down) in enumerate(zip(pairs, halves, strict=True))
        )
        self.attention = nn.ModuleDict({str(block): SelfAttention(units[block]) for block in attention})
        self.head = ProjectionHead(units[-1], label_size)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.tap("features", F.relu(deque(_encoded(self.blocks, self.attention, images), maxlen=1).pop()))
        return self.head(self.tap("vector", x.sum(dim=(2, 3))), labels)


class ProjectionHead(nn.Module):
    """Value of features: their product with one direction for all classes and one of the class, plus a bias."""

    def __init__(self, units: int, label_size: int) -> None:
        super().__init__()
        self.label_size = label_size
        self.direction = nn.Parameter(torch.zeros(units))
        self.bias = nn.Parameter(torch.zeros(()))
        self.embedding = nn.Linear(label_size, units, bias=False) if label_size else nn.Identity()

    def forward(self, features: Tensor, labels: Tensor | None) -> Tensor:
        """Values (N, …) of features (N, units, …)."""
        direction = self.direction.expand(len(features), -1)
        if self.label_size:
            if labels is None:
                raise LatentsError("The discriminator is conditional", "no labels", f"a class in [0, {self.label_size}) for each image")
            direction = direction + self.embedding(one_hot(labels, self.label_size))
        return torch.einsum("nc...,nc->n...", features, direction) + self.bias


class UNetDiscriminator(Discriminator):
    """An encoder that judges the image, and a decoder that judges every pixel.

    The value of an image is the encoder's (our choice: one number a sample, made from the whole image, in the role that a discriminator has
    elsewhere), so `forward` stops there. `pixels` goes on to the decoder, whose blocks but the first also read the encoder's map of their
    size.
    """

    family = "unet-discriminator"

    def __init__(self, encoder: list[int], decoder: list[int], attention: list[int], label_size: int, image_channels: int = 3) -> None:
        super().__init__()
        self.settings = settings_of(locals())
        resolution = 4 * 2 ** len(encoder)
        self.image_shape = (image_channels, resolution, resolution)
        self.label_size = label_size
        self.encoder = nn.ModuleList(
            DownBlock(before, after, after, preactivation=index > 0, halves=True)
            for index, (before, after) in enumerate(pairwise([image_channels, *encoder]))
        )
        self.attention = nn.ModuleDict({str(block): SelfAttention(encoder[block]) for block in attention})
        self.head = ProjectionHead(encoder[-1], label_size)
        skips = [0, *encoder[-2::-1]]
        befores = [before + skip for before, skip in zip([encoder[-1], *decoder[:-1]], skips, strict=True)]
        self.decoder = nn.ModuleList(UpBlock(before, after) for before, after in zip(befores, decoder, strict=True))
        self.pixel_head = ProjectionHead(decoder[-1], label_size)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.tap("features", F.relu(deque(_encoded(self.encoder, self.attention, images), maxlen=1).pop()))
        return self.head(self.tap("vector", x.sum(dim=(2, 3))), labels)

    def pixels(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Value of every pixel (N, height, width), higher = more real; images and labels as in `forward`."""
        *skips, x = _encoded(self.encoder, self.attention, images)
        for index, block in enumerate(cast(Iterable[UpBlock], self.decoder)):
            x = torch.cat((x, skips[-index]), dim=1) if index else x
            x = block.close(F.relu_(block.convs[0](F.relu(x))), x)
        return self.pixel_head(x, labels)


def _encoded(blocks: nn.ModuleList, attention: nn.ModuleDict, x: Tensor) -> Iterator[Tensor]:
    """Outputs of the blocks, after their attention."""
    for index, block in enumerate(blocks):
        x = block(x)
        if str(index) in attention:
            x = attention[str(index)](x)
        yield x
