"""The published weights of VGG16 and LPIPS, in the files that people have.

- ``vgg16.pt`` of NVIDIA's StyleGAN2-ADA (TorchScript): convolutions, fully connected layers and LPIPS weights.
- ``vgg16-397923af.pth`` of torchvision (a state dict): convolutions and fully connected layers.
- ``vgg.pth`` of richzhang/PerceptualSimilarity (a state dict): LPIPS weights, to go with the former; or the state dict of
  the whole ``lpips.LPIPS(net="vgg")``, which holds the convolutions too.
"""

from __future__ import annotations

import re

from torch import Tensor

from qualitygate.features.vgg16 import DENSE, STAGES, VGG16, Convolutions
from qualitygate.features.weights import Weights, fill

_FORMS = "vgg16.pt of NVIDIA, or vgg16-397923af.pth of torchvision"
_LPIPS_FORMS = "vgg16.pt of NVIDIA, or torchvision's file and the vgg.pth of PerceptualSimilarity together"
_BY_INDEX = re.compile(r"(?:features|net\.slice\d)\.(\d+)\.weight")
"""torchvision's convolutions, whose numbers count ReLUs and maxima too; lpips keeps them in slices."""


def vgg16_of(weights: Weights) -> VGG16:
    """The network up to fc2, on the CPU.

    Raises:
        CheckpointError: these are no weights of a VGG16, or without its fully connected layers.
    """
    network = VGG16()
    network.convolutions = convolutions_of(weights)
    names = ("layers.fc1", "layers.fc2") if "layers.fc1.weight" in weights.tensors else ("classifier.0", "classifier.3")
    inputs = STAGES[-1][-1] * (network.size // 2 ** len(STAGES)) ** 2
    for layer, name, size in zip(network.dense, names, (inputs, DENSE), strict=True):
        fill(layer, weights.take(f"{name}.weight", DENSE, size), weights.take(f"{name}.bias", DENSE))
    return network


def convolutions_of(weights: Weights) -> Convolutions:
    """The convolutions alone, on the CPU.

    Raises:
        CheckpointError: these are no weights of a VGG16.
    """
    network = Convolutions()
    names = _convolution_names(weights)
    inputs = [3, *(units for stage in STAGES for units in stage)]
    for index, (layer, name) in enumerate(zip(network.layers, names, strict=True)):
        outputs = inputs[index + 1]
        fill(layer, weights.take(f"{name}.weight", outputs, inputs[index], 3, 3), weights.take(f"{name}.bias", outputs))
    return network


def lpips_weights_of(weights: Weights) -> list[Tensor]:
    """Weight of each unit, one tensor a stage.

    Raises:
        CheckpointError: there are none.
    """
    found = []
    for index, stage in enumerate(STAGES):
        units = stage[-1]
        if f"lpips{index}" in weights.tensors:
            found.append(weights.take(f"lpips{index}", units, 1, 1).flatten())
        elif f"lin{index}.model.1.weight" in weights.tensors:
            found.append(weights.take(f"lin{index}.model.1.weight", 1, units, 1, 1).flatten())
        else:
            raise weights.wrong("no LPIPS weights", _LPIPS_FORMS)
    return found


def _convolution_names(weights: Weights) -> list[str]:
    count = sum(map(len, STAGES))
    if "layers.conv1.weight" in weights.tensors:
        return [f"layers.conv{index + 1}" for index in range(count)]
    numbered = {int(found[1]): name.removesuffix(".weight") for name in weights.tensors if (found := _BY_INDEX.fullmatch(name))}
    if len(numbered) != count:
        raise weights.wrong(f"tensors {', '.join(list(weights.tensors)[:4])} …", _FORMS)
    return [numbered[index] for index in sorted(numbered)]
