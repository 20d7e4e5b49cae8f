"""StyleGAN2 of NVIDIA's torch code (stylegan2-ada-pytorch, stylegan3): ``synthesis.b4.conv1 …``, the generator's 3×3
weights used as they are, style biases with their +1, outputs clamped. The discriminator is the one of StyleGAN3 too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from qualitygate.checkpoints.contents import TensorGroup
from qualitygate.checkpoints.layout import Built, DoesNotFit, Layout
from qualitygate.checkpoints.layouts.stylegan2.parts import DiscriminatorParts, GeneratorParts, discriminator, generator
from qualitygate.checkpoints.layouts.stylegan2.taken import (
    LEARNING_RATE,
    Part,
    Taken,
    convolution,
    dense,
    equalized,
    number,
    optional_number,
    prefixed,
    settings_in,
)

_CLAMP = 256.0
_GENERATOR_ARGUMENTS = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "mapping_kwargs", "synthesis_kwargs")
_DISCRIMINATOR_ARGUMENTS = ("c_dim", "img_resolution", "img_channels")


def constructor_arguments(group: TensorGroup, positional: tuple[str, ...]) -> dict[str, Any]:
    """Constructor arguments by name, stored or given; nothing where only the tensors were stored."""
    values = group.settings.get("init_args")
    arguments = dict(zip(positional, values if isinstance(values, (list, tuple)) else (), strict=False))
    return arguments | dict(settings_in(group.settings, "init_kwargs")) | dict(group.given)


def _generator(group: TensorGroup) -> Built:
    take = Taken(group.tensors)
    arguments = constructor_arguments(group, _GENERATOR_ARGUMENTS)
    # the first torch version nests the synthesis network's arguments, and clamps only where they say so
    synthesis = settings_in(arguments, "synthesis_kwargs") or {"conv_clamp": _CLAMP, **arguments}
    synthesis = {**synthesis, **group.given}
    if synthesis.get("activation", "lrelu") != "lrelu":
        raise DoesNotFit(f"layers with {synthesis['activation']!r}, not with LeakyReLU")
    sizes = take.sizes("synthesis.b{}.conv1.weight", first=4)
    layers = [f"synthesis.b{size}.conv{index}" for size in sizes for index in (0, 1) if size > 4 or index]
    painters = [f"synthesis.b{size}.torgb" for size in sizes]
    shortcuts = [f"synthesis.b{size}.skip" for size in sizes]
    parts = GeneratorParts(
        mapping=_mapping(take, arguments),
        embedding=dense(take, "mapping.embed") if "mapping.embed.weight" in take else None,
        average=take("mapping.w_avg", 1) if "mapping.w_avg" in take else None,
        constant=take("synthesis.b4.const", 3),
        synthesis=[_layer(take, name) for name in layers],
        to_rgb=[_to_rgb(take, name) for name in painters if f"{name}.weight" in take],
        shortcuts=[_shortcut(take, name) for name in shortcuts if f"{name}.weight" in take],
    )
    return generator(parts, take.ignored(unused=""), normalisation="apart", clamp=optional_number(synthesis, "conv_clamp", None))


def _mapping(take: Taken, arguments: Mapping[str, Any]) -> list[Part]:
    rate = number({**settings_in(arguments, "mapping_kwargs"), **arguments}, "lr_multiplier", LEARNING_RATE)
    return [dense(take, f"mapping.fc{index}", rate) for index in take.run("mapping.fc{}.weight")]


def _style(take: Taken, name: str) -> Part:
    return prefixed("style", dense(take, f"{name}.affine"))


def _layer(take: Taken, name: str) -> Part:
    weight = take(f"{name}.weight", 4)
    noise = take(f"{name}.noise_const", 2) * take(f"{name}.noise_strength", 0)
    return {**_style(take, name), "weight": weight, "bias": take(f"{name}.bias", 1), "noise": noise}


def _to_rgb(take: Taken, name: str) -> Part:
    part = _convolution(take, name)
    return {**_style(take, name), **part, "weight": part["weight"].flatten(1)}


def _shortcut(take: Taken, name: str) -> Tensor:
    return equalized(take(f"{name}.weight", 4), 0.5**0.5)


def _discriminator(group: TensorGroup) -> Built:
    take = Taken(group.tensors)
    arguments = constructor_arguments(group, _DISCRIMINATOR_ARGUMENTS)
    sizes = take.sizes("b{}.conv0.weight", first=8)[::-1]
    parts = DiscriminatorParts(
        from_rgb=[_convolution(take, f"b{size}.fromrgb") for size in (*sizes, 4) if f"b{size}.fromrgb.weight" in take],
        blocks=[_block(take, f"b{size}") for size in sizes],
        last=_convolution(take, "b4.conv"),
        dense=dense(take, "b4.fc"),
        output=dense(take, "b4.out"),
        mapping=_mapping(take, arguments),
        embedding=dense(take, "mapping.embed") if "mapping.embed.weight" in take else None,
    )
    epilogue = {**settings_in(arguments, "epilogue_kwargs"), **group.given}
    group_size = optional_number(epilogue, "mbstd_group_size", 4)
    clamp = optional_number(arguments, "conv_clamp", _CLAMP)
    return discriminator(parts, take.ignored(unused=""), None if group_size is None else int(group_size), clamp)


def _convolution(take: Taken, name: str) -> Part:
    return convolution(take, f"{name}.weight", f"{name}.bias")


def _block(take: Taken, name: str) -> Part:
    first, second = (_convolution(take, f"{name}.conv{index}") for index in (0, 1))
    block = prefixed("first", first) | prefixed("second", second)
    if f"{name}.skip.weight" in take:
        block["shortcut"] = _shortcut(take, f"{name}.skip")
    return block


LAYOUTS = (
    Layout(
        "NVIDIA StyleGAN2",
        "stylegan2",
        "generator",
        (r"synthesis\.b4\.const", r"synthesis\.b4\.conv1\.affine\.weight", r"synthesis\.b\d+\.torgb\.weight"),
        _generator,
        ("conv_clamp", "lr_multiplier"),
    ),
    Layout(
        "NVIDIA StyleGAN2",
        "stylegan2",
        "discriminator",
        (r"b4\.conv\.weight", r"b4\.fc\.weight", r"b4\.out\.weight", r"b\d+\.fromrgb\.weight"),
        _discriminator,
        ("conv_clamp", "lr_multiplier", "mbstd_group_size"),
    ),
)
