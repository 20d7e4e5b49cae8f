"""Building blocks of the residual families: BigGAN, BigGAN-deep, and the discriminators of BigGAN and U-Net GAN.

Spectral normalisation is not here: it is folded into the weights when a checkpoint is read.
"""

from __future__ import annotations

import abc

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualitygate.generators.transposed import conv_transpose_4x4_stride_2


def operations(module: nn.Module, size: int = 1) -> int:
    """Floating-point operations of one sample, 2 per multiply-add, in convolutions or linear layers over size×size positions.

    Each weight meets each position that is read once, also in `UpsamplingConv`, whose 16 taps an input position are 4 an
    output position.
    """
    return 2 * sum(parameter.numel() for parameter in module.parameters() if parameter.ndim > 1) * size * size


class UpsamplingConv(nn.Module):
    """Nearest ×2 up-sampling and a 3×3 convolution, in one (see `nearest_then_3x3`)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 4, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return conv_transpose_4x4_stride_2(x, self.weight, self.bias)


class ResidualBlock(nn.Module, abc.ABC):
    """A block whose caller puts a nonlinearity before each of its convolutions.

    Attributes:
        convs: the convolutions before the last, in order.
    """

    convs: nn.ModuleList

    @abc.abstractmethod
    def close(self, activation: Tensor, block_input: Tensor) -> Tensor:
        """The block's output: the last convolution, of the activation, and the shortcut, of the block's input."""

    @abc.abstractmethod
    def close_operations(self, size: int) -> int:
        """Operations of `close` where the output is size×size."""


class UpBlock(ResidualBlock):
    """Residual block that doubles the size: two 3×3 convolutions.

    The 1×1 convolution of the shortcut runs before the up-sampling it commutes with, at a quarter of the positions.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([UpsamplingConv(inputs, outputs)])
        self.last = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def close(self, activation: Tensor, block_input: Tensor) -> Tensor:
        return self.last(activation).add_(F.interpolate(self.shortcut(block_input), scale_factor=2.0, mode="nearest"))

    def close_operations(self, size: int) -> int:
        return operations(self.last, size) + operations(self.shortcut, size // 2)


class DownBlock(nn.Module):
    """Residual block of the discriminators: two 3×3 convolutions, and 2×2 means where it halves the size.

    Args:
        inputs, hidden, outputs: units before, between and after the convolutions.
        preactivation: whether a ReLU comes before the first convolution; not in the first block, which reads the image.
        halves: whether the size is halved. The shortcut then has a 1×1 convolution, as it has where the units change.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, preactivation: bool, halves: bool) -> None:
        super().__init__()
        self.preactivation, self.halves = preactivation, halves
        self.first = nn.Conv2d(inputs, hidden, 3, padding=1)
        self.last = nn.Conv2d(hidden, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if halves or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(F.relu(x) if self.preactivation else x)
        h = self.last(F.relu_(hidden))
        if self.halves:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        return h + self.shortcut(x)


class SelfAttention(nn.Module):
    """Self-attention (Zhang et al. 2019): every position reads a half-size map, by the softmax of unscaled products.

    The gain of the branch (γ) is folded into ``output``.
    """

    def __init__(self, units: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(units, units // 8, 1, bias=False)
        self.key = nn.Conv2d(units, units // 8, 1, bias=False)
        self.value = nn.Conv2d(units, units // 2, 1, bias=False)
        self.output = nn.Conv2d(units // 2, units, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x).flatten(2).mT
        key = F.max_pool2d(self.key(x), 2).flatten(2).mT
        value = F.max_pool2d(self.value(x), 2).flatten(2).mT
        read = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        return x + self.output(read.mT.unflatten(2, x.shape[2:]))

    def operations(self, size: int) -> int:
        """Operations where x is size×size."""
        products = size**2 * (size // 2) ** 2 * (self.query.out_channels + self.value.out_channels)
        return operations(self, size) + 2 * products
