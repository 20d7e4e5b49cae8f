"""Projection discriminator of BigGAN (Brock et al. 2019; Miyato and Koyama 2018) as in ajbrock/BigGAN-PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualitygate.errors import LatentsError
from qualitygate.generators.discriminator import Discriminator
from qualitygate.generators.network import one_hot
from qualitygate.generators.residual import DownBlock, SelfAttention


class BigGANDiscriminator(Discriminator):
    """Residual blocks, ReLU, sum over positions, and a linear layer plus the product with the embedded label.

    Args:
        resolution: height and width of the images.
        units: outputs of every block.
        halves: whether each block halves the size.
        wide: whether a block's inner units are its output's (else its input's).
        attention: numbers of the blocks that are followed by self-attention.
        label_size: number of classes; 0 where unconditional.
        image_channels: channels of the images.
    """

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
        self.settings = {
            "resolution": resolution,
            "units": list(units),
            "halves": list(halves),
            "wide": wide,
            "attention": list(attention),
            "label_size": label_size,
            "image_channels": image_channels,
        }
        self.image_shape = (image_channels, resolution, resolution)
        self.label_size = label_size
        inputs = [image_channels, *units[:-1]]
        self.blocks = nn.ModuleList(
            DownBlock(before, after if wide else before, after, preactivation=index > 0, halves=down)
            for index, (before, after, down) in enumerate(zip(inputs, units, halves, strict=True))
        )
        self.attention = nn.ModuleDict({str(block): SelfAttention(units[block]) for block in attention})
        self.head = ProjectionHead(units[-1], label_size)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        x = images
        for index, block in enumerate(self.blocks):
            x = block(x)
            if str(index) in self.attention:
                x = self.attention[str(index)](x)
        x = self.tap("features", F.relu(x))
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
