"""StyleGAN2 of rosinality's stylegan2-pytorch: ``conv1``, ``convs.0 …``, all weights equalized, style biases with
their +1.

The mean w stands beside the generator as ``latent_avg``, and only in converted checkpoints; training writes none.
"""

from __future__ import annotations

from torch import Tensor

from qualitygate.checkpoints.contents import TensorGroup
from qualitygate.checkpoints.layout import Built, Layout
from qualitygate.checkpoints.layouts.stylegan2.parts import DiscriminatorParts, GeneratorParts, discriminator, generator
from qualitygate.checkpoints.layouts.stylegan2.taken import LEARNING_RATE, Part, Taken, convolution, dense, equalized, prefixed


def _generator(group: TensorGroup) -> Built:
    take = Taken(group.tensors)
    layers = ["conv1", *(f"convs.{index}" for index in take.run("convs.{}.conv.weight"))]
    painters = ["to_rgb1", *(f"to_rgbs.{block}" for block in range(len(layers) // 2))]
    average = group.settings.get("latent_avg")
    parts = GeneratorParts(
        mapping=[dense(take, f"style.{index}", LEARNING_RATE) for index in take.run("style.{}.weight", start=1)],
        embedding=None,
        average=average.float().flatten() if isinstance(average, Tensor) else None,
        constant=take("input.input", 4)[0],
        synthesis=[_layer(take, name, f"noises.noise_{index}") for index, name in enumerate(layers)],
        to_rgb=[_to_rgb(take, name) for name in painters],
    )
    return generator(parts, take.ignored(unused=""), normalisation="joint")


def _modulated(take: Taken, name: str) -> Part:
    return {**prefixed("style", dense(take, f"{name}.conv.modulation")), "weight": equalized(take(f"{name}.conv.weight", 5)[0])}


def _layer(take: Taken, name: str, noise: str) -> Part:
    strength = take(f"{name}.noise.weight", 1)
    return {**_modulated(take, name), "bias": take(f"{name}.activate.bias", 1), "noise": take(noise, 4)[0, 0] * strength}


def _to_rgb(take: Taken, name: str) -> Part:
    part = _modulated(take, name)
    return {**part, "weight": part["weight"].flatten(1), "bias": take(f"{name}.bias", 4).flatten()}


def _discriminator(group: TensorGroup) -> Built:
    take = Taken(group.tensors)
    parts = DiscriminatorParts(
        from_rgb=[convolution(take, "convs.0.0.weight", "convs.0.1.bias")],
        blocks=[_block(take, f"convs.{index}") for index in take.run("convs.{}.conv1.0.weight", start=1)],
        last=convolution(take, "final_conv.0.weight", "final_conv.1.bias"),
        dense=dense(take, "final_linear.0"),
        output=dense(take, "final_linear.1"),
    )
    return discriminator(parts, take.ignored(unused=""))


def _block(take: Taken, name: str) -> Part:
    first = convolution(take, f"{name}.conv1.0.weight", f"{name}.conv1.1.bias")
    second = convolution(take, f"{name}.conv2.1.weight", f"{name}.conv2.2.bias")
    shortcut = equalized(take(f"{name}.skip.1.weight", 4), 0.5**0.5)
    return {**prefixed("first", first), **prefixed("second", second), "shortcut": shortcut}


LAYOUTS = (
    Layout(
        "rosinality StyleGAN2",
        "stylegan2",
        "generator",
        (r"input\.input", r"conv1\.conv\.modulation\.weight", r"to_rgb1\.conv\.weight"),
        _generator,
    ),
    Layout(
        "rosinality StyleGAN2",
        "stylegan2",
        "discriminator",
        (r"convs\.0\.0\.weight", r"final_conv\.0\.weight", r"final_linear\.1\.weight"),
        _discriminator,
    ),
)
