"""StyleGAN2 of genforce: ``synthesis.layer0 …``, all weights equalized, style biases without their +1, up-sampling
kernels flipped."""

from __future__ import annotations

import torch
from torch import Tensor

from qualitygate.checkpoints.contents import TensorGroup
from qualitygate.checkpoints.layout import Built, Layout
from qualitygate.checkpoints.layouts.stylegan2.parts import DiscriminatorParts, GeneratorParts, discriminator, generator
from qualitygate.checkpoints.layouts.stylegan2.taken import LEARNING_RATE, Part, Taken, convolution, dense, equalized, prefixed


def _generator(group: TensorGroup) -> Built:
    take = Taken(group.tensors)
    layers = take.run("synthesis.layer{}.weight")
    painters = [f"synthesis.output{index // 2}" for index in layers[::2]]
    embedding = _embedding(take("mapping.label_weight", 2)) if "mapping.label_weight" in take else None
    parts = GeneratorParts(
        mapping=[dense(take, f"mapping.dense{i}", LEARNING_RATE) for i in take.run("mapping.dense{}.weight")],
        embedding=embedding,
        average=take("truncation.w_avg", 1) if "truncation.w_avg" in take else None,
        constant=take("synthesis.early_layer.const", 4)[0],
        synthesis=[_layer(take, f"synthesis.layer{index}", up=index % 2 == 1) for index in layers],
        to_rgb=[_to_rgb(take, name) for name in painters if f"{name}.weight" in take],
    )
    return generator(parts, take.ignored(unused=""), normalisation="joint")


def _embedding(weight: Tensor) -> Part:
    return {"weight": weight.T, "bias": weight.new_zeros(weight.shape[1])}


def _style(take: Taken, name: str) -> Part:
    return {"style.weight": equalized(take(f"{name}.style.weight", 2)), "style.bias": take(f"{name}.style.bias", 1) + 1.0}


def _layer(take: Taken, name: str, up: bool) -> Part:
    part = _convolution(take, name)
    weight = torch.flip(part["weight"], (2, 3)) if up else part["weight"]
    noise = take(f"{name}.noise", 4)[0, 0] * take(f"{name}.noise_strength", 0)
    return {**_style(take, name), **part, "weight": weight, "noise": noise}


def _to_rgb(take: Taken, name: str) -> Part:
    part = _convolution(take, name)
    return {**_style(take, name), **part, "weight": part["weight"].flatten(1)}


def _discriminator(group: TensorGroup) -> Built:
    take = Taken(group.tensors)
    last = len(take.run("layer{}.weight")) - 3
    parts = DiscriminatorParts(
        from_rgb=[_convolution(take, f"input{index}") for index in take.run("input{}.weight")],
        blocks=[_block(take, index) for index in range(last // 2)],
        last=_convolution(take, f"layer{last}"),
        dense=dense(take, f"layer{last + 1}"),
        output=dense(take, f"layer{last + 2}"),
    )
    return discriminator(parts, take.ignored(unused=""))


def _convolution(take: Taken, name: str) -> Part:
    return convolution(take, f"{name}.weight", f"{name}.bias")


def _block(take: Taken, index: int) -> Part:
    first, second = (_convolution(take, f"layer{layer}") for layer in (2 * index, 2 * index + 1))
    block = prefixed("first", first) | prefixed("second", second)
    if (shortcut := f"skip_layer{index}.weight") in take:
        block["shortcut"] = equalized(take(shortcut, 4), 0.5**0.5)
    return block


LAYOUTS = (
    Layout(
        "genforce StyleGAN2",
        "stylegan2",
        "generator",
        (r"synthesis\.early_layer\.const", r"synthesis\.layer0\.noise_strength", r"synthesis\.layer0\.style\.weight"),
        _generator,
    ),
    Layout(
        "genforce StyleGAN2",
        "stylegan2",
        "discriminator",
        (r"input0\.weight", r"layer0\.weight", r"layer1\.filter\.kernel"),
        _discriminator,
    ),
)
