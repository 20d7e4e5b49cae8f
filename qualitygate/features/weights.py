"""Weight files of the published networks: read as data, whatever they are packed in (of TorchScript archives the tensors alone, never
the code), and put into our networks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qualitygate.checkpoints.contents import TensorGroup
from qualitygate.checkpoints.reader import read
from qualitygate.checkpoints.sources import resolve
from qualitygate.errors import CheckpointError
from qualitygate.storage import file_sha256

Source = str | Path


@dataclass(frozen=True)
class Weights:
    """What stands in one or more weight files: tensors by their full names. The hash is of all files' hashes where there are several."""

    name: str
    sha256: str
    tensors: Mapping[str, Tensor]

    def take(self, name: str, *shape: int) -> Tensor:
        """The tensor of this name as float32. Raises `CheckpointError` where it is not there, of another shape, or not finite."""
        if name not in self.tensors:
            raise self.wrong(f"without a tensor {name}", f"{name} {shape}")
        tensor = self.tensors[name]
        if tuple(tensor.shape) != shape:
            raise self.wrong(f"{name} of shape {tuple(tensor.shape)}", f"shape {shape}")
        if not bool(tensor.isfinite().all()):
            raise self.wrong(f"{name} with NaN or infinity", "finite weights")
        return tensor.float()

    def fill(self, layer: nn.Module, name: str) -> None:
        """Give a layer its weight and bias; errors as of `take`."""
        for part in ("weight", "bias"):
            set_parameter(layer, part, self.take(f"{name}.{part}", *getattr(layer, part).shape))

    def wrong(self, found: str, needed: str) -> CheckpointError:
        """The error for other weights than the ones needed."""
        remedy = "take the file that the documentation names, or check its SHA-256"
        return CheckpointError(f"{self.name} does not hold the weights of this network", found, needed, remedy)


def read_weights(sources: Source | Sequence[Source], sha256: str | None = None) -> Weights:
    """All tensors of a weight file, or of several files that belong together: paths, ``https://…#sha256=…`` or whatever else
    `checkpoints.sources.resolve` knows; the hash is checked where there is one file. Nothing in them is run. Raises `CheckpointError` where
    one is unreadable, of another hash, or without tensors."""
    several = [sources] if isinstance(sources, (str, Path)) else list(sources)
    paths = [resolve(source, sha256 if len(several) == 1 else None) for source in several]
    tensors: dict[str, Tensor] = {}
    for path in paths:
        found = dict(_named(read(path).tree, ""))
        if not found:
            raise CheckpointError(f"{path.name} holds no tensors", "other data", "the weights of a network")
        tensors.update(found)
    hashes = [file_sha256(path) for path in paths]
    whole = hashes[0] if len(hashes) == 1 else hashlib.sha256(" ".join(hashes).encode()).hexdigest()
    return Weights(" and ".join(path.name for path in paths), whole, tensors)


def set_parameter(layer: nn.Module, name: str, value: Tensor) -> None:
    """Put a frozen tensor in the place of a parameter of the same shape, which may be on the meta device."""
    setattr(layer, name, nn.Parameter(value.contiguous(), requires_grad=False))


def _named(node: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    """Tensors by the names of all that they are in, joined by dots."""
    if isinstance(node, torch.Tensor):
        yield path, node
    elif isinstance(node, TensorGroup):
        yield from _named(node.tensors, path)
    elif isinstance(node, Mapping):
        for name, value in node.items():
            yield from _named(value, f"{path}.{name}" if path else str(name))
