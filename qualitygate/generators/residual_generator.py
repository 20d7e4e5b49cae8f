"""The chain that BigGAN and BigGAN-deep share: residual blocks whose ReLUs are the layers."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualitygate.generators.base import Generator, Layer, Presets, State
from qualitygate.generators.residual import ResidualBlock, SelfAttention, UpsamplingConv, operations


class ResidualGenerator(Generator, abc.ABC):
    """A chain of residual blocks with ``steps`` normalisations each; every ReLU after a normalisation is a layer.

    **The shortcut passes an edit by.** A block adds its input to what its convolutions make of the last ReLU. An edit
    of a layer changes what the convolutions read, not the block's input, which travels in ``State.carry`` as
    ``shortcut``; so ablating a unit at a layer removes it from the block's branch, not from the sum.

    A family has the modules ``blocks`` (each with ``convs``, one before every ReLU but the first, and ``close``),
    ``norms`` (one a layer), ``attention`` (by the number of the block it follows) and ``to_rgb``; its carry is a named
    tuple of tensors whose first axis is the sample.

    Presets (our choice, the papers say "early blocks"): low-rate neurons at the first 4×4, 8×8 and 16×16 layers,
    curvature at the last 8×8 one, sequential correction up to the last 16×16 one; where there is none of a size, the
    last layer.
    """

    steps: ClassVar[int]

    blocks: nn.ModuleList
    norms: nn.ModuleList
    attention: nn.ModuleDict
    to_rgb: nn.Conv2d

    @abc.abstractmethod
    def _normalised(self, index: int, x: Tensor, carry: Any) -> Tensor:
        """What the ReLU of layer ``index`` reads; a new tensor."""

    @abc.abstractmethod
    def _norm_operations(self, index: int) -> int:
        """Operations that `_normalised` spends on one sample's scale and shift."""

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
        """Sets layers, presets, operations and image shape.

        Args:
            start: operations before the first block.
            size: height and width of its input.
            units: units of every layer.
        """
        layers: list[Layer] = []
        spent = start
        for index, count in enumerate(units):
            block, step = divmod(index, self.steps)
            if step:
                conv = self._block(block).convs[step - 1]
                spent += operations(conv, size)
                size *= 2 if isinstance(conv, UpsamplingConv) else 1
            elif block:
                spent += self._close_operations(block - 1, size)
            spent += self._norm_operations(index)
            name = f"block{block}.relu{step + 1}" if block < len(self.blocks) else "output.relu"
            layers.append(Layer(index, name, count, size, size, spent))
        self.layers = tuple(layers)
        self.operations = spent + operations(self.to_rgb, size)
        self.presets = _early(self.layers)
        self.image_shape = (self.to_rgb.out_channels, size, size)

    def _close_operations(self, block: int, size: int) -> int:
        spent = self._block(block).close_operations(size)
        if str(block) in self.attention:
            spent += cast(SelfAttention, self.attention[str(block)]).operations(size)
        return spent

    def _block(self, block: int) -> ResidualBlock:
        return cast(ResidualBlock, self.blocks[block])


def _early(layers: Sequence[Layer]) -> Presets:
    """The presets of `ResidualGenerator`."""
    by_size = {size: [layer.index for layer in layers if layer.height == size] or [layers[-1].index] for size in (4, 8, 16)}
    low_rate = sorted({indices[0] for indices in by_size.values()})
    return Presets(low_rate=tuple(low_rate), curvature=(by_size[8][-1],), stop=by_size[16][-1])
