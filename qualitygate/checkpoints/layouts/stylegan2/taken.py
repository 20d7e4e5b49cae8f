"""Taking a source's tensors one by one, in the form in which they are used."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import count, takewhile
from typing import Any

import torch
from torch import Tensor

from qualitygate.checkpoints.layout import DoesNotFit, listed
from qualitygate.generators.resampling import binomial

LEARNING_RATE = 0.01
"""Learning-rate multiplier of the mapping network in all sources, unless their settings say otherwise."""

Part = dict[str, Tensor]
"""A layer's tensors by our names, e.g. ``weight``, ``bias``, ``style.weight``."""


class Taken:
    """The tensors of a group, taken one by one, so that what is missing or left over is noticed."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.left = dict(tensors)
        self._problems: list[str] = []

    def __contains__(self, name: str) -> bool:
        return name in self.left

    def run(self, pattern: str, start: int = 0) -> list[int]:
        """The numbers from ``start`` on for which ``pattern`` names a tensor, up to the first gap."""
        return list(takewhile(lambda index: pattern.format(index) in self.left, count(start)))

    def sizes(self, pattern: str, first: int) -> list[int]:
        """The sizes ``first``, 2·``first``, … for which ``pattern`` names a tensor, up to the first gap."""
        return [first * 2**power for power in takewhile(lambda n: pattern.format(first * 2**n) in self.left, count())]

    def __call__(self, name: str, dimensions: int) -> Tensor:
        """The tensor of that name as float32.

        If there is none with that number of dimensions, it is noted for `check`, and a single number stands in for it.
        """
        tensor = self.left.pop(name, None)
        if tensor is not None and tensor.ndim == dimensions:
            return tensor.float()
        self._problems.append(
            f"no tensor {name}" if tensor is None else f"{name} {tuple(tensor.shape)} does not have {dimensions} dimensions"
        )
        return torch.ones((1,) * dimensions)

    def check(self) -> None:
        """Raises `DoesNotFit` with everything that was not there when it was to be taken."""
        if self._problems:
            raise DoesNotFit(listed(self._problems))

    def ignored(self, unused: str) -> tuple[str, ...]:
        """Names left over: copies of the low-pass filter, or matching ``unused``; raises `DoesNotFit` otherwise."""
        self.check()
        for name, tensor in self.left.items():
            if re.fullmatch(r"(.*\.)?(resample_filter|kernel)", name):
                taps = binomial(tensor.float())
                kernel = tensor.float().squeeze()
                if kernel.shape != (4, 4) or not torch.allclose(kernel / kernel.sum(), taps[:, None] * taps):
                    raise DoesNotFit(f"the filter {name} is not [1, 3, 3, 1]")
            elif not re.fullmatch(unused, name):
                raise DoesNotFit(f"the tensor {name} has no place in a StyleGAN2")
        return tuple(self.left)


def equalized(weight: Tensor, rate: float = 1.0) -> Tensor:
    """An equalized layer's weight (outputs, inputs, …) as it is used: times ``rate``/√(fan in)."""
    return weight * (rate / weight[0].numel() ** 0.5)


def dense(take: Taken, name: str, rate: float = 1.0) -> Part:
    """A fully connected layer ``name.weight`` (outputs, inputs) and ``name.bias``."""
    return {"weight": equalized(take(f"{name}.weight", 2), rate), "bias": take(f"{name}.bias", 1) * rate}


def convolution(take: Taken, weight: str, bias: str) -> Part:
    """A convolution with its weight and bias under these names."""
    return {"weight": equalized(take(weight, 4)), "bias": take(bias, 1)}


def prefixed(prefix: str, part: Part) -> Part:
    """The part's tensors as those of something inside another part."""
    return {f"{prefix}.{name}": tensor for name, tensor in part.items()}


def settings_in(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The nested settings of that name; empty where there are none."""
    inner = settings.get(name)
    return inner if isinstance(inner, Mapping) else {}


def number(settings: Mapping[str, Any], name: str, default: float) -> float:
    """A setting that is a positive number; raises `DoesNotFit` if it is something else."""
    value = settings.get(name, default)
    if isinstance(value, (int, float)) and value > 0:
        return value
    raise DoesNotFit(f"{name} is {value!r}, not a positive number")


def optional_number(settings: Mapping[str, Any], name: str, default: float | None) -> float | None:
    """A setting that is a positive number or None; raises `DoesNotFit` if it is something else."""
    if (value := settings.get(name, default)) is None:
        return None
    return number(settings, name, value)
