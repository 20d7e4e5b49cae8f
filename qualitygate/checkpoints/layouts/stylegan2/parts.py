"""The parts of a StyleGAN2, ready for use, as every source hands them over, and the network they are of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from qualitygate.checkpoints.layout import Built
from qualitygate.checkpoints.layouts.stylegan2.taken import Part
from qualitygate.generators.families.stylegan2 import StyleGAN2, StyleGAN2Discriminator


@dataclass(frozen=True)
class GeneratorParts:
    """Parts of a generator.

    Attributes:
        mapping: layers of the mapping network.
        embedding: of the label.
        average: mean w.
        constant: (units, 4, 4).
        synthesis: the layers of the chain.
        to_rgb: one for each block, or the last one only.
        shortcuts: weights (outputs, inputs, 1, 1) of residual blocks.
    """

    mapping: list[Part]
    embedding: Part | None
    average: Tensor | None
    constant: Tensor
    synthesis: list[Part]
    to_rgb: list[Part]
    shortcuts: list[Tensor] = field(default_factory=list)

    @property
    def architecture(self) -> str:
        if self.shortcuts:
            return "resnet"
        return "skip" if len(self.to_rgb) > 1 or len(self.synthesis) == 1 else "orig"


def generator(parts: GeneratorParts, ignored: tuple[str, ...], normalisation: str, clamp: float | None = None) -> Built:
    """The generator with its settings read off the parts."""
    label_features, label_size = _sizes(parts.embedding)
    style_size = parts.synthesis[0]["style.weight"].shape[1]
    inputs = parts.mapping[0]["weight"].shape[1] if parts.mapping else style_size
    settings: dict[str, Any] = {
        "latent_size": inputs - label_features,
        "mapping": [layer["weight"].shape[0] for layer in parts.mapping],
        "units": [layer["weight"].shape[0] for layer in parts.synthesis[::2]],
        "image_channels": parts.to_rgb[-1]["weight"].shape[0],
        "architecture": parts.architecture,
        "label_size": label_size,
        "label_features": label_features,
        "normalisation": normalisation,
        "average": parts.average is not None,
        "clamp": clamp,
    }
    with torch.device("meta"):
        module = StyleGAN2(**settings)
    tensors = {"constant": parts.constant}
    if parts.average is not None:
        tensors["mapping.average"] = parts.average
    _place(tensors, "mapping.embedding", [] if parts.embedding is None else [parts.embedding], numbered=False)
    _place(tensors, "mapping.layers", parts.mapping)
    _place(tensors, "synthesis", parts.synthesis)
    _place(tensors, "to_rgb", parts.to_rgb)
    tensors |= {f"shortcuts.{index}": weight for index, weight in enumerate(parts.shortcuts)}
    return Built(module, tensors, ignored)


@dataclass(frozen=True)
class DiscriminatorParts:
    """Parts of a discriminator, from the image's size down.

    Attributes:
        from_rgb: one for each size, or the first one only.
        blocks: ``first.*``, ``second.*`` and, in residual ones, ``shortcut``.
        last: convolution after the minibatch standard deviation.
        dense, output: fully connected layers.
        mapping, embedding: of the label.
    """

    from_rgb: list[Part]
    blocks: list[Part]
    last: Part
    dense: Part
    output: Part
    mapping: list[Part] = field(default_factory=list)
    embedding: Part | None = None

    @property
    def architecture(self) -> str:
        if self.blocks and "shortcut" in self.blocks[0]:
            return "resnet"
        return "skip" if len(self.from_rgb) > 1 else "orig"


def discriminator(parts: DiscriminatorParts, ignored: tuple[str, ...], group: int | None = 4, clamp: float | None = None) -> Built:
    """The discriminator with its settings read off the parts."""
    label_features, label_size = _sizes(parts.embedding)
    outputs = parts.output["weight"].shape[0]
    units = [*(block["first.weight"].shape[0] for block in parts.blocks), parts.last["weight"].shape[0]]
    settings: dict[str, Any] = {
        "units": units,
        "image_channels": parts.from_rgb[0]["weight"].shape[1],
        "architecture": parts.architecture,
        "label_size": label_size if parts.embedding else (outputs if outputs > 1 else 0),
        "label_features": label_features,
        "mapping": [layer["weight"].shape[0] for layer in parts.mapping],
        "group": group,
        "deviations": parts.last["weight"].shape[1] - units[-1],
        "clamp": clamp,
    }
    with torch.device("meta"):
        module = StyleGAN2Discriminator(**settings)
    tensors: dict[str, Tensor] = {}
    _place(tensors, "from_rgb", parts.from_rgb)
    _place(tensors, "blocks", parts.blocks)
    _place(tensors, "mapping.layers", parts.mapping)
    for name, part in (("last", parts.last), ("dense", parts.dense), ("output", parts.output), ("mapping.embedding", parts.embedding)):
        _place(tensors, name, [] if part is None else [part], numbered=False)
    return Built(module, tensors, ignored)


def _sizes(embedding: Part | None) -> tuple[int, int]:
    """Features and classes of a label's embedding."""
    if embedding is None:
        return 0, 0
    features, classes = embedding["weight"].shape
    return features, classes


def _place(tensors: dict[str, Tensor], name: str, parts: list[Part], numbered: bool = True) -> None:
    for index, part in enumerate(parts):
        prefix = f"{name}.{index}" if numbered else name
        tensors |= {f"{prefix}.{attribute}": tensor for attribute, tensor in part.items()}
