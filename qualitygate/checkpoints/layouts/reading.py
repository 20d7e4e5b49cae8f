"""Reading a state dict by exact names and shapes, and keeping count of what was read."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from qualitygate.checkpoints.layout import DoesNotFit, listed


class Reader:
    """Tensors of a state dict, each taken by name and expected shape, in float64 for folding."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self._values = sum(tensor.numel() for tensor in tensors.values())
        self._problems: list[str] = []
        self._read: set[str] = set()

    def has(self, name: str) -> bool:
        return name in self._tensors

    def shape(self, name: str, dimensions: int) -> tuple[int, ...]:
        """Shape of a tensor that settings are read off.

        Raises:
            DoesNotFit: there is none of that name, or it has another number of dimensions.
        """
        shape = self._shape(name)
        if len(shape) != dimensions:
            raise DoesNotFit(f"{name} is {shape}, not of {dimensions} dimensions")
        return shape

    def take(self, name: str, *shape: int) -> Tensor:
        """The tensor of that name, in float64.

        If there is none, or it has another shape, that is noted for `unread`, and ones stand in for it.

        Raises:
            DoesNotFit: so, and it would be larger than the whole file.
        """
        self._read.add(name)
        if name in self._tensors and tuple(self._tensors[name].shape) == shape:
            return self._tensors[name].double()
        found = f"{name} is {tuple(self._tensors[name].shape)}, not {shape}" if name in self._tensors else f"there is no {name}"
        self._problems.append(found)
        if math.prod(shape) > self._values:
            raise DoesNotFit(listed(self._problems))
        return torch.ones(shape, dtype=torch.float64)

    def numbered(self, pattern: str) -> list[int]:
        """The numbers that the one group of the pattern takes over all names it matches whole, in rising order."""
        return sorted({int(found[1]) for name in self._tensors if (found := re.fullmatch(pattern, name))})

    def unread(self, ignorable: str) -> tuple[str, ...]:
        """Names that were not taken, all of which must match the pattern whole.

        Raises:
            DoesNotFit: some do not: the file holds more than this layout knows; or some that were to be taken are not there.
        """
        if self._problems:
            raise DoesNotFit(listed(self._problems))
        rest = [name for name in self._tensors if name not in self._read]
        if unknown := [name for name in rest if not re.fullmatch(ignorable, name)]:
            raise DoesNotFit(f"nothing reads {_some(unknown)}")
        return tuple(rest)

    def _shape(self, name: str) -> tuple[int, ...]:
        if name not in self._tensors:
            raise DoesNotFit(f"there is no {name}")
        return tuple(self._tensors[name].shape)


def spectrally_normalised(weight: Tensor, u: Tensor, v: Tensor | None = None) -> Tensor:
    """Weight over its largest singular value as estimated from stored vectors (Miyato et al. 2018).

    Args:
        weight: (rows, …), used as a matrix of its rows.
        u: left vector, of as many values as there are rows.
        v: right vector; if None, one step of power iteration gives both, as ajbrock's code does also in evaluation.
    """
    matrix, u = weight.flatten(1), u.flatten()
    if v is None:
        v = F.normalize(u @ matrix, dim=0)
        u = F.normalize(matrix @ v, dim=0)
    return weight / (u @ matrix @ v)


def _some(names: Iterable[str], limit: int = 4) -> str:
    names = list(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
