"""The layers of a generator, and what stands between two of them: to be read, edited and resumed from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map, tree_map_only

from qualitygate.errors import InputError

Edit = Callable[[Tensor], Tensor]
"""A pure edit of one layer's activation (N, units, height, width); returns a new tensor."""

Edits = Mapping[int, Edit]
"""What to edit after which layer, by index."""

EditsOfRows = Callable[[np.ndarray], Edits]
"""Edits that differ from sample to sample: those of the given rows (B,) of some samples. A row may stand there more than once."""

LayerLike = int | str
"""A layer by index (``2``), by name (``"layer2"``), or by resolution (``"8x8"``: the last layer of that size)."""


@dataclass(frozen=True)
class Layer:
    """One layer of the chain.

    Attributes:
        index: position in order of synthesis, from 0.
        name: name within the family.
        units, height, width: shape of the activation, after the nonlinearity.
        operations: floating-point operations of one sample from the latent up to and including this layer, 2 per multiply-add of the
            cheapest exact form.
    """

    index: int
    name: str
    units: int
    height: int
    width: int
    operations: int

    @property
    def neurons(self) -> int:
        return self.units * self.height * self.width

    @property
    def resolution(self) -> str:
        return f"{self.height}x{self.width}"


@dataclass(frozen=True)
class State:
    """What stands between two layers.

    Attributes:
        layer: index of the layer whose output this is; -1 before the first.
        activation: (N, units, height, width), after the layer's nonlinearity. An edit of it reaches every consumer.
        carry: whatever else the rest of the chain needs (styles, the image so far, a shortcut); opaque outside the family,
            and made of tuples and dictionaries of tensors with a row for each sample.
    """

    layer: int
    activation: Tensor
    carry: Any = None

    def rows(self, rows: Tensor) -> State:
        """The state of some samples, int64 (n,). ``carry`` is nested tuples and dictionaries of tensors with a row for each sample."""
        return replace(self, activation=self.activation[rows], carry=tree_map_only(Tensor, lambda part: part[rows], self.carry))

    @staticmethod
    def concatenated(states: Sequence[State]) -> State:
        """The states of several batches at the same layer as one."""
        first = states[0]
        carry = tree_map(lambda *parts: torch.cat(parts) if isinstance(parts[0], Tensor) else parts[0], *(state.carry for state in states))
        return replace(first, activation=torch.cat([state.activation for state in states]), carry=carry)

    def edited(self, activation: Tensor) -> State:
        """The state with another activation of the same shape (N, units, height, width)."""
        if activation.shape != self.activation.shape:
            raise InputError(
                f"An edit of layer {self.layer} changed the activation's shape",
                str(tuple(activation.shape)),
                str(tuple(self.activation.shape)),
            )
        return replace(self, activation=activation)


@dataclass(frozen=True)
class Part:
    """Some positions of a layer's activation.

    Attributes:
        layer: index of the layer.
        positions: which of the positions ``y · width + x``.
        activation: (N, positions, units); overwritten when the next part is made.
    """

    layer: int
    positions: slice
    activation: Tensor

    @staticmethod
    def whole(state: State) -> Part:
        """All positions of a state."""
        return Part(state.layer, slice(None), state.activation.flatten(2).transpose(1, 2))
