"""The residual families: blocks of BigGAN, BigGAN-deep and U-Net GAN, and the chain that the generators of the first two are.

Spectral normalisation is not here: it is folded into the weights when a checkpoint is read.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualitygate.generators.base import Generator, Presets, State, numbered
from qualitygate.generators.convolutions import conv_transpose_4x4_stride_2


def operations(module: nn.Module, size: int = 1) -> int:
    """Of one sample, 2 per multiply-add, in convolutions or linear layers over size×size positions: each weight meets each position that is
    read once, also in `UpsamplingConv`, whose 16 taps an input position are 4 an output position."""
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
    """A block whose caller puts a nonlinearity before each of its convolutions, of which ``convs`` are all but the last."""

    convs: nn.ModuleList

    @abc.abstractmethod
    def close(self, activation: Tensor, block_input: Tensor) -> Tensor:
        """The block's output (N, out, height, width): the last convolution, of the activation, and the shortcut, of the block's input."""

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
    """Residual block of the discriminators: two 3×3 convolutions with ``hidden`` units between them, and 2×2 means where it halves the
    size. With ``preactivation`` a ReLU comes before the first convolution: not in the first block, which reads the image. The shortcut has
    a 1×1 convolution where the size or the units change."""

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


class ResidualGenerator(Generator, abc.ABC):
    """A chain of residual blocks with ``steps`` normalisations each; every ReLU after a normalisation is a layer.

    **The shortcut passes an edit by.** A block adds its input to what its convolutions make of the last ReLU. An edit of a layer changes
    what the convolutions read, not the block's input, which travels in ``State.carry`` as ``shortcut``; so ablating a unit at a layer
    removes it from the block's branch, not from the sum.

    A family has the modules below, ``norms`` one a layer and ``attention`` by the number of the block it follows.

    Presets (our choice, the papers say "early blocks"): low-rate neurons at the first 4×4, 8×8 and 16×16 layers, curvature at the
    last 8×8 one, sequential correction up to the last 16×16 one; where there is none of a size, the last layer.
    """

    steps: ClassVar[int]

    blocks: nn.ModuleList
    norms: nn.ModuleList
    attention: nn.ModuleDict
    to_rgb: nn.Conv2d

    @abc.abstractmethod
    def _normalised(self, index: int, x: Tensor, carry: Any) -> Tensor:
        """What the ReLU of layer ``index`` reads; a new tensor."""

    def advance(self, state: State) -> State:
        index, carry = state.layer + 1, state.carry
        block, step = divmod(index, self.steps)
        if step:
            x = self._block(block).convs[step - 1](state.activation)
        else:
            x = self._block_input(state)
            carry = carry._replace(shortcut=x)
        activation = F.relu_(self._normalised(index, x, carry))
        return State(index, self.tap(f"activation/{self.layers[index].name}", activation), carry)

    def finish(self, state: State) -> Tensor:
        return torch.tanh(self.to_rgb(state.activation))

    def _block_input(self, state: State) -> Tensor:
        """Output of the block that ``state`` stands at the end of, after its attention."""
        if state.layer < 0:
            return state.activation
        block = state.layer // self.steps
        x = self.tap(f"block{block}.sum", self._block(block).close(state.activation, state.carry.shortcut))
        if str(block) in self.attention:
            x = self.tap(f"block{block}.attention", self.attention[str(block)](x))
        return x

    def _describe(self, start: int, size: int, units: Sequence[int]) -> None:
        """Sets layers, presets, operations and image shape, from the operations before the first block, the size of its input and the
        units of every layer."""
        rows, cost = [], start
        for index, count in enumerate(units):
            block, step = divmod(index, self.steps)
            if step:
                conv = self._block(block).convs[step - 1]
                cost += operations(conv, size)
                size *= 2 if isinstance(conv, UpsamplingConv) else 1
            elif block:
                cost += self._block(block - 1).close_operations(size)
                if str(block - 1) in self.attention:
                    cost += cast(SelfAttention, self.attention[str(block - 1)]).operations(size)
            name = f"block{block}.relu{step + 1}" if block < len(self.blocks) else "output.relu"
            rows.append((name, count, size, cost + operations(self.norms[index])))
            cost = 0
        self.layers = numbered(rows)
        self.operations = self.layers[-1].operations + operations(self.to_rgb, size)
        self.image_shape = (self.to_rgb.out_channels, size, size)
        of_size = {height: [layer.index for layer in self.layers if layer.height == height] or [len(rows) - 1] for height in (4, 8, 16)}
        low_rate = sorted({indices[0] for indices in of_size.values()})
        self.presets = Presets(tuple(low_rate), curvature=(of_size[8][-1],), stop=of_size[16][-1])

    def _block(self, block: int) -> ResidualBlock:
        return cast(ResidualBlock, self.blocks[block])
