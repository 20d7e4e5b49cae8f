"""Discriminator of U-Net GAN (Schönfeld, Schiele, Khoreva 2020) as in boschresearch/unetgan."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualitygate.generators.families.biggan import ProjectionHead
from qualitygate.generators.network import Discriminator, settings_of
from qualitygate.generators.residual import DownBlock, SelfAttention, UpBlock


class UNetDiscriminator(Discriminator):
    """An encoder that judges the image, and a decoder that judges every pixel.

    The value of an image is the encoder's (our choice: one number a sample, made from the whole image, in the role that
    a discriminator has elsewhere), so `forward` stops there. `pixels` goes on to the decoder.

    Args:
        encoder: outputs of the blocks that halve the size.
        decoder: outputs of the blocks that double it, as many; each but the first also reads the encoder's map of its
            size.
        attention: numbers of the encoder's blocks that are followed by self-attention.
        label_size: number of classes; 0 where unconditional.
        image_channels: channels of the images.
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
            for index, (before, after) in enumerate(zip([image_channels, *encoder[:-1]], encoder, strict=True))
        )
        self.attention = nn.ModuleDict({str(block): SelfAttention(encoder[block]) for block in attention})
        self.head = ProjectionHead(encoder[-1], label_size)
        skips = [0, *encoder[-2::-1]]
        befores = [before + skip for before, skip in zip([encoder[-1], *decoder[:-1]], skips, strict=True)]
        self.decoder = nn.ModuleList(UpBlock(before, after) for before, after in zip(befores, decoder, strict=True))
        self.pixel_head = ProjectionHead(decoder[-1], label_size)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.tap("features", F.relu(self._encoded(images)[-1]))
        return self.head(self.tap("vector", x.sum(dim=(2, 3))), labels)

    def pixels(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Value of every pixel (N, height, width), higher = more real; images and labels as in `forward`."""
        *skips, x = self._encoded(images)
        for index, block in enumerate(cast(Iterable[UpBlock], self.decoder)):
            x = torch.cat((x, skips[-index]), dim=1) if index else x
            x = block.close(F.relu_(block.convs[0](F.relu(x))), x)
        return self.pixel_head(x, labels)

    def _encoded(self, images: Tensor) -> list[Tensor]:
        """Outputs of the encoder's blocks."""
        maps: list[Tensor] = []
        x = images
        for index, block in enumerate(self.encoder):
            x = block(x)
            if str(index) in self.attention:
                x = self.attention[str(index)](x)
            maps.append(x)
        return maps
