"""Reading a state dict by names and shapes, keeping count of what was read; and what several sources have in common."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import count, takewhile
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from qualitygate.checkpoints.contents import TensorGroup
from qualitygate.checkpoints.layout import DoesNotFit, listed


class StateDictReader:
    """Takes the tensors of a state dict one by one, so that all that is missing, misshapen or left over is noticed.

    A tensor that is not as it should be is noted, and ones stand in for it, until `check` or `unread` raises `DoesNotFit` with all of them.
    All are given in the same ``dtype``.
    """

    def __init__(self, tensors: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> None:
        self._tensors, self._dtype = tensors, dtype
        self._problems: list[str] = []
        self._read: set[str] = set()
        self._room = sum(tensor.numel() for tensor in tensors.values())  # for values that stand in for missing ones

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def shape(self, name: str, dimensions: int) -> tuple[int, ...]:
        """Shape of a tensor that settings are read off; `DoesNotFit` where there is none of so many dimensions."""
        if name not in self._tensors:
            raise DoesNotFit(f"no tensor {name}")
        shape = tuple(self._tensors[name].shape)
        if len(shape) != dimensions:
            raise DoesNotFit(f"{name} is {shape}, not of {dimensions} dimensions")
        return shape

    def take(self, name: str, *shape: int) -> Tensor:
        """The tensor of that name and shape; `DoesNotFit` where it is not there, and what stands in would be larger than the whole file."""
        if (tensor := self._found(name)) is not None and tuple(tensor.shape) == shape:
            return tensor.to(self._dtype)
        self._problems.append(f"no tensor {name}" if tensor is None else f"{name} is {tuple(tensor.shape)}, not {shape}")
        self._room -= math.prod(shape)
        if self._room < 0:
            self.check()
        return torch.ones(shape, dtype=self._dtype)

    def take_any(self, name: str, *dimensions: int) -> Tensor:
        """The tensor of that name, of any size; it has one of these numbers of dimensions, and values."""
        if (tensor := self._found(name)) is not None and tensor.ndim in dimensions and tensor.numel():
            return tensor.to(self._dtype)
        needed = f"{' or '.join(map(str, dimensions))} dimensions, and values"
        self._problems.append(f"no tensor {name}" if tensor is None else f"{name} {tuple(tensor.shape)} does not have {needed}")
        return torch.ones((1,) * dimensions[0], dtype=self._dtype)

    def _found(self, name: str) -> Tensor | None:
        self._read.add(name)
        tensor = self._tensors.get(name)
        if tensor is not None and not tensor.is_floating_point():
            raise DoesNotFit(f"{name} holds {tensor.dtype}, and no weights")
        return tensor

    def numbered(self, pattern: str) -> list[int]:
        """The numbers that the one group of the regular expression takes over all names it matches whole, in rising order."""
        return sorted({int(found[1]) for name in self._tensors if (found := re.fullmatch(pattern, name))})

    def run(self, pattern: str, start: int = 0) -> list[int]:
        """The numbers from ``start`` on for which ``pattern`` names a tensor, up to the first gap."""
        return list(takewhile(lambda index: pattern.format(index) in self._tensors, count(start)))

    def sizes(self, pattern: str, first: int) -> list[int]:
        """The sizes ``first``, 2·``first``, … for which ``pattern`` names a tensor, up to the first gap."""
        return [first * 2**power for power in takewhile(lambda n: pattern.format(first * 2**n) in self._tensors, count())]

    def check(self) -> None:
        """Raises `DoesNotFit` with everything that was not there when it was to be taken."""
        if self._problems:
            raise DoesNotFit(listed(self._problems))

    def unread(self, ignorable: str = "") -> tuple[str, ...]:
        """Names that were not taken; `DoesNotFit` if one does not match the pattern whole: the file holds more than this layout knows."""
        self.check()
        rest = tuple(name for name in self._tensors if name not in self._read)
        if unknown := [name for name in rest if not re.fullmatch(ignorable, name)]:
            raise DoesNotFit(f"nothing reads {listed(unknown)}")
        return rest


def spectrally_normalised(weight: Tensor, u: Tensor, v: Tensor | None = None) -> Tensor:
    """Weight (rows, …) over its largest singular value as estimated from stored vectors, the left ``u`` (rows) and the right ``v``
    (Miyato et al. 2018). Without a ``v``, one step of power iteration gives both, as ajbrock's code does also in evaluation."""
    matrix, u = weight.flatten(1), u.flatten()
    if v is None:
        v = F.normalize(u @ matrix, dim=0)
        u = F.normalize(matrix @ v, dim=0)
    return weight / (u @ matrix @ v)


SHORTCUT = 0.5**0.5  # gain of the shortcut in residual blocks
LEARNING_RATE = 0.01
"""Learning-rate multiplier of StyleGAN's mapping network in all sources, unless their settings say otherwise."""

Part = dict[str, Tensor]  # a layer's tensors by our names, e.g. ``weight``, ``bias``, ``style.weight``


def equalized(weight: Tensor, rate: float = 1.0) -> Tensor:
    """An equalized layer's weight (outputs, inputs, …) as it is used: times ``rate``/√(fan in)."""
    return weight * (rate / weight[0].numel() ** 0.5)


def prefixed(prefix: str, part: Part) -> Part:
    return {f"{prefix}.{name}": tensor for name, tensor in part.items()}


def numbered(prefix: str, parts: Sequence[Part]) -> Part:
    return {f"{prefix}.{index}.{name}": tensor for index, part in enumerate(parts) for name, tensor in part.items()}


def settings_in(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The nested settings of that name; empty where there are none."""
    inner = settings.get(name)
    return inner if isinstance(inner, Mapping) else {}


def constructor_arguments(group: TensorGroup, positional: tuple[str, ...]) -> dict[str, Any]:
    """Constructor arguments of NVIDIA's networks by name, stored or given; nothing where only the tensors were stored."""
    values = group.settings.get("init_args")
    arguments = dict(zip(positional, values if isinstance(values, (list, tuple)) else (), strict=False))
    return {**arguments, **settings_in(group.settings, "init_kwargs"), **group.given}


def number(settings: Mapping[str, Any], name: str, default: float) -> float:
    """A setting that is a positive number; raises `DoesNotFit` if it is something else."""
    value = settings.get(name, default)
    if isinstance(value, (int, float)) and value > 0:
        return value
    raise DoesNotFit(f"{name} is {value!r}, not a positive number")


def optional_number(settings: Mapping[str, Any], name: str, default: float | None) -> float | None:
    """The same of a setting that may be None."""
    value = settings.get(name, default)
    return None if value is None else number(settings, name, value)


def whole_number(settings: Mapping[str, Any], name: str) -> int:
    """A setting that is a whole number, 0 where it is not there."""
    return int(number(settings, name, 0)) if settings.get(name) else 0


class StyleGANReader(StateDictReader):
    """The layers of StyleGANs, ready for use."""

    def dense(self, name: str, rate: float = 1.0, offset: float = 0.0) -> Part:
        """A fully connected layer ``name.weight`` (outputs, inputs) and ``name.bias``, to which ``offset`` is added."""
        weight, bias = self.take_any(f"{name}.weight", 2), self.take_any(f"{name}.bias", 1)
        return {"weight": equalized(weight, rate), "bias": bias * rate + offset}

    def convolution(self, name: str, bias: str | None = None, flipped: bool = False) -> Part:
        """A convolution ``name.weight``, its bias being that of ``bias`` or of the same name."""
        weight = equalized(self.take_any(f"{name}.weight", 4))
        return {"weight": weight.flip(2, 3) if flipped else weight, "bias": self.take_any(f"{bias or name}.bias", 1)}

    def style(self, name: str, offset: float = 0.0) -> Part:
        return prefixed("style", self.dense(name, offset=offset))

    def nvidia_mapping(self, arguments: Mapping[str, Any]) -> list[Part]:
        """The layers of the mapping network in NVIDIA's torch code."""
        rate = number({**settings_in(arguments, "mapping_kwargs"), **arguments}, "lr_multiplier", LEARNING_RATE)
        return [self.dense(f"mapping.fc{index}", rate) for index in self.run("mapping.fc{}.weight")]

    def shortcut(self, name: str) -> Tensor:
        return equalized(self.take_any(f"{name}.weight", 4), SHORTCUT)

    def noise(self, name: str, strength: str) -> Part:
        """The constant noise of a layer, stored as an image, or a batch of one."""
        noise = self.take_any(name, 2, 4)
        return {"noise": noise.reshape(noise.shape[-2:]) * self.take_any(strength, 0, 1)}
