"""The published weights of Inception-v3 of 2015-12-05, in the files that people have.

- ``inception-2015-12-05.pt`` of NVIDIA's StyleGAN2-ADA (TorchScript), and the pickle of StyleGAN3 with the same names.
- ``pt_inception-2015-12-05-6726825d.pth`` of pytorch-fid (a state dict under torchvision's names).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from qualitygate.features.inception import CLASSES, FEATURES, Inception, Unit
from qualitygate.features.weights import Weights, fill

_EPSILON = 1e-3  # of the batch norms
_FORMS = "inception-2015-12-05.pt of NVIDIA, or pt_inception-2015-12-05-6726825d.pth of pytorch-fid"

_STEM = {
    "conv": "Conv2d_1a_3x3",
    "conv_1": "Conv2d_2a_3x3",
    "conv_2": "Conv2d_2b_3x3",
    "conv_3": "Conv2d_3b_1x1",
    "conv_4": "Conv2d_4a_3x3",
}
_AT_35 = {
    "conv": "branch1x1",
    "tower.conv": "branch5x5_1",
    "tower.conv_1": "branch5x5_2",
    "tower_1.conv": "branch3x3dbl_1",
    "tower_1.conv_1": "branch3x3dbl_2",
    "tower_1.conv_2": "branch3x3dbl_3",
    "tower_2.conv": "branch_pool",
}
_TO_17 = {"conv": "branch3x3", "tower.conv": "branch3x3dbl_1", "tower.conv_1": "branch3x3dbl_2", "tower.conv_2": "branch3x3dbl_3"}
_AT_17 = {
    "conv": "branch1x1",
    "tower.conv": "branch7x7_1",
    "tower.conv_1": "branch7x7_2",
    "tower.conv_2": "branch7x7_3",
    "tower_1.conv": "branch7x7dbl_1",
    "tower_1.conv_1": "branch7x7dbl_2",
    "tower_1.conv_2": "branch7x7dbl_3",
    "tower_1.conv_3": "branch7x7dbl_4",
    "tower_1.conv_4": "branch7x7dbl_5",
    "tower_2.conv": "branch_pool",
}
_TO_8 = {
    "tower.conv": "branch3x3_1",
    "tower.conv_1": "branch3x3_2",
    "tower_1.conv": "branch7x7x3_1",
    "tower_1.conv_1": "branch7x7x3_2",
    "tower_1.conv_2": "branch7x7x3_3",
    "tower_1.conv_3": "branch7x7x3_4",
}
_AT_8 = {
    "conv": "branch1x1",
    "tower.conv": "branch3x3_1",
    "tower.mixed.conv": "branch3x3_2a",
    "tower.mixed.conv_1": "branch3x3_2b",
    "tower_1.conv": "branch3x3dbl_1",
    "tower_1.conv_1": "branch3x3dbl_2",
    "tower_1.mixed.conv": "branch3x3dbl_3a",
    "tower_1.mixed.conv_1": "branch3x3dbl_3b",
    "tower_2.conv": "branch_pool",
}
_BLOCKS = {
    "mixed": ("Mixed_5b", _AT_35),
    "mixed_1": ("Mixed_5c", _AT_35),
    "mixed_2": ("Mixed_5d", _AT_35),
    "mixed_3": ("Mixed_6a", _TO_17),
    "mixed_4": ("Mixed_6b", _AT_17),
    "mixed_5": ("Mixed_6c", _AT_17),
    "mixed_6": ("Mixed_6d", _AT_17),
    "mixed_7": ("Mixed_6e", _AT_17),
    "mixed_8": ("Mixed_7a", _TO_8),
    "mixed_9": ("Mixed_7b", _AT_8),
    "mixed_10": ("Mixed_7c", _AT_8),
}
"""Our names, which are the graph's, to pytorch-fid's."""
_FLAT = ("mixed_9", "mixed_10")
"""Blocks in which NVIDIA's names join what is nested by underscores."""


def inception_of(weights: Weights) -> Inception:
    """The network, on the CPU.

    Raises:
        CheckpointError: these are other weights.
    """
    network = Inception()
    of_nvidia = "layers.conv.weight" in weights.tensors
    if not of_nvidia and "Conv2d_1a_3x3.conv.weight" not in weights.tensors:
        raise weights.wrong(f"tensors {', '.join(list(weights.tensors)[:4])} …", _FORMS)
    classes = "output" if of_nvidia else "fc"
    if (rows := len(weights.tensors.get(f"{classes}.weight", ()))) != CLASSES:
        raise weights.wrong(f"{rows:,} classes: another Inception-v3, e.g. torchvision's classifier", _FORMS)
    for name, unit in units(network):
        fill(unit, *(_nvidia(weights, name, unit) if of_nvidia else _pytorch_fid(weights, name, unit)))
    fill(network.classes, weights.take(f"{classes}.weight", CLASSES, FEATURES), weights.take(f"{classes}.bias", CLASSES))
    return network


def units(network: Inception) -> Iterator[tuple[str, Unit]]:
    """All convolutions with their names within the network's layers."""
    return ((name, part) for name, part in network.layers.named_modules() if isinstance(part, Unit))


def nvidia_name(name: str) -> str:
    """What a convolution is called in NVIDIA's file."""
    block, _, part = name.partition(".")
    return f"layers.{block}.{part.replace('.', '_')}" if block in _FLAT else f"layers.{name}"


def pytorch_fid_name(name: str) -> str:
    """What a convolution is called in pytorch-fid's file."""
    block, _, part = name.partition(".")
    if not part:
        return _STEM[block]
    theirs, parts = _BLOCKS[block]
    return f"{theirs}.{parts[part]}"


def _nvidia(weights: Weights, name: str, unit: Unit) -> tuple[Tensor, Tensor]:
    name, count = nvidia_name(name), len(unit.bias)
    shift, mean, variance = (weights.take(f"{name}.{part}", count) for part in ("beta", "mean", "var"))
    return _folded(weights.take(f"{name}.weight", *unit.weight.shape), torch.ones(count), shift, mean, variance)


def _pytorch_fid(weights: Weights, name: str, unit: Unit) -> tuple[Tensor, Tensor]:
    name, count = pytorch_fid_name(name), len(unit.bias)
    parts = ("weight", "bias", "running_mean", "running_var")
    norm = [weights.take(f"{name}.bn.{part}", count) for part in parts]
    return _folded(weights.take(f"{name}.conv.weight", *unit.weight.shape), *norm)


def _folded(weight: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution with the batch norm after it."""
    factor = scale.double() / torch.sqrt(variance.double() + _EPSILON)
    return (weight.double() * factor[:, None, None, None]).float(), (shift.double() - mean.double() * factor).float()
