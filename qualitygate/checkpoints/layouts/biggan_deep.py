"""Folders of Hugging Face's pytorch-pretrained-BigGAN: a state dict, and ``config.json`` as the group's settings.

Spectral normalisation is folded in from the stored vectors, without a step of power iteration, as torch does in
evaluation. What ``config.json`` alone can say is which blocks double the size, and ε; without it every second block
doubles and ε is 1e-4, as in all released checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qualitygate.checkpoints.contents import TensorGroup
from qualitygate.checkpoints.layout import Built, DoesNotFit, Layout, declared
from qualitygate.checkpoints.layouts.biggan import SpectralReader
from qualitygate.checkpoints.layouts.reading import spectrally_normalised
from qualitygate.generators.families.biggan_deep import BOTTOM_WIDTH, NARROWING, BigGANDeep

LAYOUTS: list[Layout] = []
_IMAGE_CHANNELS = 3  # the output convolution makes more; the original drops them
_EPS = 1e-4


class _HuggingFace(SpectralReader):
    def __init__(self, group: TensorGroup) -> None:
        super().__init__(group.tensors)
        self.eps = group.settings.get("eps", _EPS)
        if not isinstance(self.eps, (int, float)):
            raise DoesNotFit(f"config.json has the eps {self.eps!r}")

    def weight(self, module: str, *shape: int) -> Tensor:
        """Weight of a module, spectrally normalised by the stored vectors."""
        weight = self.take(f"{module}.weight_orig", *shape)
        u, v = self.take(f"{module}.weight_u", shape[0]), self.take(f"{module}.weight_v", weight[0].numel())
        return spectrally_normalised(weight, u, v)

    def statistics(self, ours: str, theirs: str, rows: int, units: int) -> None:
        self.put(f"{ours}.statistics.mean", self.take(f"{theirs}.running_means", rows, units))
        self.put(f"{ours}.statistics.variance", self.take(f"{theirs}.running_vars", rows, units) + self.eps)

    def block(self, index: int, theirs: str, inputs: int, outputs: int, doubles: bool, rows: int, condition: int) -> None:
        narrow, ours = inputs // NARROWING, f"blocks.{index}"
        self.convolution(f"{ours}.convs.0", f"{theirs}.conv_0", narrow, inputs, 1, 1)
        self.convolution(f"{ours}.convs.1", f"{theirs}.conv_1", narrow, narrow, 3, 3, upsampling=doubles)
        self.convolution(f"{ours}.convs.2", f"{theirs}.conv_2", narrow, narrow, 3, 3)
        self.convolution(f"{ours}.last", f"{theirs}.conv_3", outputs, narrow, 1, 1)
        for which, units in enumerate((inputs, narrow, narrow, narrow)):
            norm = f"norms.{4 * index + which}"
            self.statistics(norm, f"{theirs}.bn_{which}", rows, units)
            self.put(f"{norm}.gain.weight", self.weight(f"{theirs}.bn_{which}.scale", units, condition))
            self.put(f"{norm}.offset.weight", self.weight(f"{theirs}.bn_{which}.offset", units, condition))


@declared(
    LAYOUTS,
    "biggan-deep",
    "generator",
    "Hugging Face BigGAN-deep",
    r"embeddings\.weight generator\.gen_z\.weight_orig generator\.layers\.0\.conv_0\.weight_orig generator\.bn\.running_means",
    asks="layers eps",
)
def _build(group: TensorGroup) -> Built:
    file = _HuggingFace(group)
    blocks = file.numbered(r"generator\.layers\.(\d+)\.conv_0\.weight_orig")
    modules = [f"generator.layers.{number}" for number in blocks]
    units = [file.shape(f"{module}.conv_0.weight_orig", 4)[1] for module in modules]
    units.append(file.shape(f"{modules[-1]}.conv_3.weight_orig", 4)[0])
    attention = file.numbered(r"generator\.layers\.(\d+)\.gamma")
    doubles = _doubles(group, len(blocks))
    rows = file.shape("generator.bn.running_means", 2)[0]
    label_features, label_size = file.shape("embeddings.weight", 2)
    condition = file.shape("generator.gen_z.weight_orig", 2)[1]
    # the first layer's outputs are stored position by position
    first, last = units[0], units[-1]
    positions = (BOTTOM_WIDTH**2, first)
    weight = file.weight("generator.gen_z", first * BOTTOM_WIDTH**2, condition)
    bias = file.take("generator.gen_z.bias", first * BOTTOM_WIDTH**2)
    file.put("linear.weight", weight.unflatten(0, positions).transpose(0, 1).flatten(0, 1))
    file.put("linear.bias", bias.unflatten(0, positions).T.flatten())
    file.put("embedding.weight", file.take("embeddings.weight", label_features, label_size))
    norm = f"norms.{4 * (len(units) - 1)}"
    file.statistics(norm, "generator.bn", rows, last)
    file.put(f"{norm}.gain", file.take("generator.bn.weight", last))
    file.put(f"{norm}.offset", file.take("generator.bn.bias", last))
    file.put("to_rgb.weight", file.weight("generator.conv_to_rgb", last, last, 3, 3)[:_IMAGE_CHANNELS])
    file.put("to_rgb.bias", file.take("generator.conv_to_rgb.bias", last)[:_IMAGE_CHANNELS])
    for index, module in enumerate(modules):
        file.block(index, module, units[index], units[index + 1], doubles[index], rows, condition)
    # attention is numbered among the blocks
    after = [sum(block < number for block in blocks) - 1 for number in attention]
    for number, index in zip(attention, after, strict=True):
        theirs = f"generator.layers.{number}"
        names = [f"{theirs}.snconv1x1_{name}" for name in ("theta", "phi", "g", "o_conv")]
        file.attention(f"attention.{index}", units[index + 1], file.take(f"{theirs}.gamma", 1), *names)
    with torch.device("meta"):
        generator = BigGANDeep(condition - label_features, label_size, label_features, units, doubles, after, rows, _IMAGE_CHANNELS)
    # the original, too, passes over what it does not know
    return Built(generator, file.tensors, file.unread(r".*"))


def _doubles(group: TensorGroup, count: int) -> list[bool]:
    stored = group.settings.get("layers")
    if stored is None:
        return [index % 2 == 1 for index in range(count)]
    entries = stored if isinstance(stored, (list, tuple)) else []
    doubles = [bool(entry[0]) for entry in entries if isinstance(entry, (list, tuple)) and entry]
    if len(doubles) != count:
        raise DoesNotFit(f"config.json has the layers {stored!r}, the tensors are of {count} blocks")
    return doubles
