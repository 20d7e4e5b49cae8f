"""In which numbers the passes of a walk run: a named choice, recorded with the result."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from qualitygate.errors import InputError
from qualitygate.generators.base import Generator, Part, State
from qualitygate.generators.passes import scored_pass

Precision = Literal["float32", "tf32", "bfloat16"]
"""``float32``: full float32. ``tf32``: products in TensorFloat32 on a GPU that has it; the same as float32 on the CPU.
``bfloat16``: weights and activations in bfloat16, after whatever comes before the first layer. What is read off them is computed
in float32 always."""


class Passes:
    """A generator's layers at a precision.

    Args:
        generator: the generator; its weights are copied for bfloat16, so a change of them later does not show.
        precision: the choice.
    """

    def __init__(self, generator: Generator, precision: Precision) -> None:
        if precision not in get_args(Precision):
            raise InputError("No such precision", repr(precision), f"one of {', '.join(get_args(Precision))}")
        self.precision = precision
        self._layers = copy.deepcopy(generator).to(torch.bfloat16) if precision == "bfloat16" else generator

    @property
    def bytes(self) -> int:
        """Of one activation."""
        return 2 if self.precision == "bfloat16" else 4

    def parts(self, state: State, upto: int) -> Iterator[Part]:
        """The activations from the given state's to that of layer ``upto``, still in the passes' numbers."""
        state = self._converted(state)
        yield Part.whole(state)
        yield from self._layers.parts(state, upto)

    def states(self, state: State, upto: int) -> Iterator[State]:
        """The states after the given one up to layer ``upto``, in the passes' numbers."""
        return self._layers.states(self._converted(state), upto)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """No gradients, and products in the numbers that were chosen."""
        with scored_pass(tf32=self.precision != "float32"):
            yield

    def _converted(self, state: State) -> State:
        if self.precision != "bfloat16":
            return state
        carry = tree_map_only(Tensor, lambda part: part.bfloat16() if part.is_floating_point() else part, state.carry)
        return replace(state, activation=state.activation.bfloat16(), carry=carry)
