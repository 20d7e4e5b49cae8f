"""Weight files as others write them: state dicts, and TorchScript archives."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn


class Part(nn.Module):
    """A module with whatever tensors and parts it is given."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def save_script(tensors: Mapping[str, Tensor], path: Path) -> Path:
    """A TorchScript archive of modules with these tensors in them: batch norm's running values as buffers."""
    root = Part()
    for name, tensor in tensors.items():
        *parts, last = name.split(".")
        module: nn.Module = root
        for part in parts:
            if part not in dict(module.named_children()):
                module.add_module(part, Part())
            module = module.get_submodule(part)
        if last in ("mean", "var"):
            module.register_buffer(last, tensor)
        else:
            module.register_parameter(last, nn.Parameter(tensor, requires_grad=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.script(root).save(str(path))
    return path


def save_plain(tensors: Mapping[str, Tensor], path: Path) -> Path:
    torch.save(dict(tensors), path)
    return path


def random_tensors(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Weights under which activations keep their size; scales and variances around 1."""
    random = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in shapes.items():
        tensor = torch.randn(shape, generator=random)
        if len(shape) > 1:
            tensor *= (2.0 / tensor[0].numel()) ** 0.5
        elif name.endswith(("var", "bn.weight")):
            tensor = 1.0 + 0.3 * tensor.tanh()
        else:
            tensor *= 0.1
        found[name] = tensor
    return found
