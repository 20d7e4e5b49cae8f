"""StyleGAN2 as its four sources store it: they differ in names, and in what is scaled at run time, which is folded in here.

NVIDIA's torch code (stylegan2-ada-pytorch, stylegan3)
    ``synthesis.b4.conv1 …``, the generator's 3×3 weights used as they are, style biases with their +1, outputs clamped. Its discriminator
    is the one of StyleGAN3 too.
NVIDIA's TensorFlow code
    variables such as ``8x8/Conv0_up/weight``, kernels as (height, width, inputs, outputs), all weights equalized, style biases without
    their +1, up-sampling kernels flipped.
genforce
    ``synthesis.layer0 …``, all weights equalized, style biases without their +1, up-sampling kernels flipped.
rosinality's stylegan2-pytorch
    ``conv1``, ``convs.0 …``, all weights equalized, style biases with their +1. The mean w stands beside the generator as ``latent_avg``,
    and only in converted checkpoints; training writes none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from qualitygate.checkpoints.contents import TensorGroup
from qualitygate.checkpoints.layout import Built, DoesNotFit, Layout, declared
from qualitygate.checkpoints.layouts.reading import (
    LEARNING_RATE,
    SHORTCUT,
    Part,
    StyleGANReader,
    constructor_arguments,
    equalized,
    number,
    numbered,
    optional_number,
    prefixed,
    settings_in,
    whole_number,
)
from qualitygate.generators.convolutions import binomial
from qualitygate.generators.families.stylegan2 import StyleGAN2, StyleGAN2Discriminator

LAYOUTS: list[Layout] = []
_layout = partial(declared, LAYOUTS, "stylegan2")


# The network that the parts are of


def _generator(
    *,
    mapping: Sequence[Part],
    embedding: Part | None,
    average: Tensor | None,
    constant: Tensor,
    synthesis: Sequence[Part],
    to_rgb: Sequence[Part],
    shortcuts: Sequence[Tensor] = (),
    ignored: tuple[str, ...],
    normalisation: Literal["joint", "apart"],
    clamp: float | None = None,
    num_fp16_res: int = 0,
) -> Built:
    """The generator with its settings read off its parts, which come ready for use.

    ``average`` is the mean w, ``constant`` is (units, 4, 4), ``to_rgb`` has one part for each block or the last one only, ``shortcuts`` are
    the weights (outputs, inputs, 1, 1) of residual blocks, ``normalisation`` is that of latent and embedded label.
    """
    label_features, label_size = embedding["weight"].shape if embedding else (0, 0)
    inputs = mapping[0]["weight"].shape[1] if mapping else synthesis[0]["style.weight"].shape[1]
    with torch.device("meta"):
        module = StyleGAN2(
            latent_size=inputs - label_features,
            mapping=[layer["weight"].shape[0] for layer in mapping],
            units=[layer["weight"].shape[0] for layer in synthesis[::2]],
            image_channels=to_rgb[-1]["weight"].shape[0],
            architecture="resnet" if shortcuts else "skip" if len(to_rgb) > 1 or len(synthesis) == 1 else "orig",
            label_size=label_size,
            label_features=label_features,
            normalisation=normalisation,
            average=average is not None,
            clamp=clamp,
            num_fp16_res=num_fp16_res,
        )
    matrices = [{**part, "weight": part["weight"].flatten(1)} for part in to_rgb]  # from 1×1 kernels
    tensors = {"constant": constant, **({} if average is None else {"mapping.average": average})}
    tensors |= prefixed("mapping.embedding", embedding or {})
    tensors |= numbered("mapping.layers", mapping) | numbered("synthesis", synthesis) | numbered("to_rgb", matrices)
    tensors |= {f"shortcuts.{index}": weight for index, weight in enumerate(shortcuts)}
    return Built(module, tensors, ignored)


def _discriminator(
    *,
    from_rgb: Sequence[Part],
    blocks: Sequence[Part],
    ends: tuple[Part, Part, Part],
    mapping: Sequence[Part] = (),
    embedding: Part | None = None,
    ignored: tuple[str, ...],
    group: int | None = 4,
    clamp: float | None = None,
) -> Built:
    """The discriminator with its settings read off its parts, from the image's size down.

    ``from_rgb`` has one part for each size or the first one only. The ``ends`` are the convolution after the minibatch standard deviation,
    over ``group`` samples, and two dense layers; ``mapping`` and ``embedding`` are the label's.
    """
    last, dense, output = ends
    label_features, label_size = embedding["weight"].shape if embedding else (0, 0)
    outputs = output["weight"].shape[0]
    units = [*(block["first.weight"].shape[0] for block in blocks), last["weight"].shape[0]]
    residual = bool(blocks) and "shortcut" in blocks[0]
    with torch.device("meta"):
        module = StyleGAN2Discriminator(
            units=units,
            image_channels=from_rgb[0]["weight"].shape[1],
            architecture="resnet" if residual else "skip" if len(from_rgb) > 1 else "orig",
            label_size=label_size if embedding else (outputs if outputs > 1 else 0),
            label_features=label_features,
            mapping=[layer["weight"].shape[0] for layer in mapping],
            group=group,
            deviations=last["weight"].shape[1] - units[-1],
            clamp=clamp,
        )
    tensors = numbered("from_rgb", from_rgb) | numbered("blocks", blocks) | numbered("mapping.layers", mapping)
    tensors |= prefixed("last", last) | prefixed("dense", dense) | prefixed("output", output)
    tensors |= prefixed("mapping.embedding", embedding or {})
    return Built(module, tensors, ignored)


# What sources have in common


def _ignored(reader: StyleGANReader, unused: str = "") -> tuple[str, ...]:
    """Names left over: copies of the low-pass filter, or matching ``unused``; raises `DoesNotFit` otherwise."""
    rest = reader.unread(rf"(.*\.)?(resample_filter|kernel)|{unused}")
    for name in rest:
        if name.rpartition(".")[2] in ("resample_filter", "kernel"):
            kernel = reader.take_any(name, 1, 2, 4)
            taps = binomial(kernel.device, kernel.dtype)
            kernel = kernel.squeeze()
            if kernel.shape != (4, 4) or not torch.allclose(kernel / kernel.sum(), taps[:, None] * taps):
                raise DoesNotFit(f"the filter {name} is not [1, 3, 3, 1]")
    return rest


def _block(reader: StyleGANReader, first: Part, second: Part, shortcut: str) -> Part:
    """A block of the discriminator; residual, where there is a shortcut of that name."""
    block = prefixed("first", first) | prefixed("second", second)
    return block | ({"shortcut": reader.shortcut(shortcut)} if f"{shortcut}.weight" in reader else {})


# NVIDIA, torch

_CLAMP = 256.0
_GENERATOR_ARGUMENTS = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "mapping_kwargs", "synthesis_kwargs")


@_layout(
    "generator",
    "NVIDIA StyleGAN2",
    r"synthesis\.b4\.const synthesis\.b4\.conv1\.affine\.weight synthesis\.b\d+\.torgb\.weight",
    asks="conv_clamp lr_multiplier num_fp16_res",
)
def _nvidia_generator(group: TensorGroup) -> Built:
    reader = StyleGANReader(group.tensors)
    arguments = constructor_arguments(group, _GENERATOR_ARGUMENTS)
    # the first torch version nests the synthesis network's arguments, and clamps only where they say so
    synthesis = settings_in(arguments, "synthesis_kwargs") or {"conv_clamp": _CLAMP, **arguments}
    synthesis = {**synthesis, **group.given}
    if synthesis.get("activation", "lrelu") != "lrelu":
        raise DoesNotFit(f"layers with {synthesis['activation']!r}, not with LeakyReLU")
    sizes = reader.sizes("synthesis.b{}.conv1.weight", first=4)
    layers = [f"synthesis.b{size}.conv{index}" for size in sizes for index in (0, 1) if size > 4 or index]
    painters = [f"synthesis.b{size}.torgb" for size in sizes]
    shortcuts = [f"synthesis.b{size}.skip" for size in sizes]
    return _generator(
        mapping=reader.nvidia_mapping(arguments),
        embedding=reader.dense("mapping.embed") if "mapping.embed.weight" in reader else None,
        average=reader.take_any("mapping.w_avg", 1) if "mapping.w_avg" in reader else None,
        constant=reader.take_any("synthesis.b4.const", 3),
        synthesis=[
            reader.style(f"{name}.affine")
            | {"weight": reader.take_any(f"{name}.weight", 4), "bias": reader.take_any(f"{name}.bias", 1)}
            | reader.noise(f"{name}.noise_const", f"{name}.noise_strength")
            for name in layers
        ],
        to_rgb=[reader.style(f"{name}.affine") | reader.convolution(name) for name in painters if f"{name}.weight" in reader],
        shortcuts=[reader.shortcut(name) for name in shortcuts if f"{name}.weight" in reader],
        ignored=_ignored(reader),
        normalisation="apart",
        clamp=optional_number(synthesis, "conv_clamp", None),
        num_fp16_res=whole_number(synthesis, "num_fp16_res"),
    )


@_layout(
    "discriminator",
    "NVIDIA StyleGAN2",
    r"b4\.conv\.weight b4\.fc\.weight b4\.out\.weight b\d+\.fromrgb\.weight",
    asks="conv_clamp lr_multiplier mbstd_group_size",
)
def _nvidia_discriminator(group: TensorGroup) -> Built:
    reader = StyleGANReader(group.tensors)
    arguments = constructor_arguments(group, ("c_dim", "img_resolution", "img_channels"))
    epilogue = {**settings_in(arguments, "epilogue_kwargs"), **group.given}
    group_size = optional_number(epilogue, "mbstd_group_size", 4)
    sizes = reader.sizes("b{}.conv0.weight", first=8)[::-1]
    return _discriminator(
        from_rgb=[reader.convolution(f"b{size}.fromrgb") for size in (*sizes, 4) if f"b{size}.fromrgb.weight" in reader],
        blocks=[
            _block(reader, reader.convolution(f"b{size}.conv0"), reader.convolution(f"b{size}.conv1"), f"b{size}.skip") for size in sizes
        ],
        ends=(reader.convolution("b4.conv"), reader.dense("b4.fc"), reader.dense("b4.out")),
        mapping=reader.nvidia_mapping(arguments),
        embedding=reader.dense("mapping.embed") if "mapping.embed.weight" in reader else None,
        ignored=_ignored(reader),
        group=None if group_size is None else int(group_size),
        clamp=optional_number(arguments, "conv_clamp", _CLAMP),
    )


# NVIDIA, TensorFlow

_FILTER = [1, 3, 3, 1]
_TENSORFLOW_UNUSED = r"lod|ToRGB_lod\d+/.*|.*/ToRGB_lod\d+/.*"
"""Variables of progressive growing, at rest in a finished network."""


@_layout(
    "generator",
    "NVIDIA StyleGAN2 (TensorFlow)",
    "(synthesis/)?4x4/Const/const (synthesis/)?4x4/Conv/mod_weight mapping/Dense0/weight",
    asks="mapping_lrmul conv_clamp",
)
def _tensorflow_generator(group: TensorGroup) -> Built:
    reader = StyleGANReader({name.removeprefix("synthesis/"): tensor for name, tensor in group.tensors.items()})
    settings = group.settings
    _check_tensorflow(settings)
    sizes = [4, *reader.sizes("{0}x{0}/Conv0_up/weight", first=8)]
    rate = number(settings, "mapping_lrmul", LEARNING_RATE)
    layers = ["4x4/Conv", *(f"{size}x{size}/{name}" for size in sizes[1:] for name in ("Conv0_up", "Conv1"))]
    # the to-RGBs in use: one for each size, or the last only, which progressive growing calls level of detail 0
    every = [f"{size}x{size}/ToRGB" for size in sizes if f"{size}x{size}/ToRGB/weight" in reader]
    grown = [name for name in (f"{sizes[-1]}x{sizes[-1]}/ToRGB_lod0", "ToRGB_lod0") if f"{name}/weight" in reader]
    if not every + grown:
        raise DoesNotFit("no ToRGB")
    embedding, normalisation = _tensorflow_embedding(reader)
    return _generator(
        mapping=[_tensorflow_dense(reader, f"mapping/Dense{index}", rate) for index in reader.run("mapping/Dense{}/weight")],
        embedding=embedding,
        average=reader.take_any("dlatent_avg", 1) if "dlatent_avg" in reader else None,
        constant=reader.take_any("4x4/Const/const", 4)[0],
        synthesis=[
            _tensorflow_layer(reader, name) | reader.noise(f"noise{index}", f"{name}/noise_strength") for index, name in enumerate(layers)
        ],
        to_rgb=[_tensorflow_layer(reader, name) for name in every or grown[:1]],
        shortcuts=[
            _tensorflow_kernel(reader, f"{size}x{size}/Skip") * SHORTCUT for size in sizes if f"{size}x{size}/Skip/weight" in reader
        ],
        ignored=_ignored(reader, _TENSORFLOW_UNUSED),
        normalisation=normalisation,
        clamp=optional_number(settings, "conv_clamp", None),
    )


def _check_tensorflow(settings: Mapping[str, Any]) -> None:
    """Refuse settings that cannot be seen in the variables and that we do not have."""
    for name, ours in (("nonlinearity", "lrelu"), ("mapping_nonlinearity", "lrelu"), ("normalize_latents", True)):
        if settings.get(name, ours) != ours:
            raise DoesNotFit(f"{name} is {settings[name]!r}, not {ours!r}")
    kernel = settings.get("resample_kernel")
    if kernel is not None and (not isinstance(kernel, (list, tuple)) or list(kernel) != _FILTER):
        raise DoesNotFit(f"resample_kernel is {kernel!r}, not {_FILTER}")


def _tensorflow_embedding(reader: StyleGANReader) -> tuple[Part | None, Literal["joint", "apart"]]:
    """The label's embedding, and how it is normalised: the first code joins first, the later one normalises first."""
    if "mapping/LabelEmbed/weight" in reader:
        return _tensorflow_dense(reader, "mapping/LabelEmbed"), "apart"
    if "mapping/LabelConcat/weight" in reader:
        return _embedding_without_bias(reader.take_any("mapping/LabelConcat/weight", 2)), "joint"
    return None, "apart"


def _embedding_without_bias(weight: Tensor) -> Part:
    return {"weight": weight.T, "bias": weight.new_zeros(weight.shape[1])}


def _tensorflow_dense(reader: StyleGANReader, name: str, rate: float = 1.0) -> Part:
    return {"weight": equalized(reader.take_any(f"{name}/weight", 2).T, rate), "bias": reader.take_any(f"{name}/bias", 1) * rate}


def _tensorflow_kernel(reader: StyleGANReader, name: str) -> Tensor:
    return equalized(reader.take_any(f"{name}/weight", 4).permute(3, 2, 0, 1))


def _tensorflow_layer(reader: StyleGANReader, name: str) -> Part:
    weight = _tensorflow_kernel(reader, name)
    return {
        "style.weight": equalized(reader.take_any(f"{name}/mod_weight", 2).T),
        "style.bias": reader.take_any(f"{name}/mod_bias", 1) + 1.0,
        "weight": weight.flip(2, 3) if name.endswith("_up") else weight,
        "bias": reader.take_any(f"{name}/bias", 1),
    }


# genforce


@_layout(
    "generator", "genforce StyleGAN2", r"synthesis\.early_layer\.const synthesis\.layer0\.noise_strength synthesis\.layer0\.style\.weight"
)
def _genforce_generator(group: TensorGroup) -> Built:
    reader = StyleGANReader(group.tensors)
    layers = [(f"synthesis.layer{index}", index % 2 == 1) for index in reader.run("synthesis.layer{}.weight")]
    painters = [f"synthesis.output{index}" for index in range(len(layers[::2]))]
    has_label = "mapping.label_weight" in reader
    return _generator(
        mapping=[reader.dense(f"mapping.dense{index}", LEARNING_RATE) for index in reader.run("mapping.dense{}.weight")],
        embedding=_embedding_without_bias(reader.take_any("mapping.label_weight", 2)) if has_label else None,
        average=reader.take_any("truncation.w_avg", 1) if "truncation.w_avg" in reader else None,
        constant=reader.take_any("synthesis.early_layer.const", 4)[0],
        synthesis=[
            reader.style(f"{name}.style", 1.0)
            | reader.convolution(name, flipped=up)
            | reader.noise(f"{name}.noise", f"{name}.noise_strength")
            for name, up in layers
        ],
        to_rgb=[reader.style(f"{name}.style", 1.0) | reader.convolution(name) for name in painters if f"{name}.weight" in reader],
        ignored=_ignored(reader),
        normalisation="joint",
    )


@_layout("discriminator", "genforce StyleGAN2", r"input0\.weight layer0\.weight layer1\.filter\.kernel")
def _genforce_discriminator(group: TensorGroup) -> Built:
    reader = StyleGANReader(group.tensors)
    last = len(reader.run("layer{}.weight")) - 3
    return _discriminator(
        from_rgb=[reader.convolution(f"input{index}") for index in reader.run("input{}.weight")],
        blocks=[
            _block(reader, reader.convolution(f"layer{2 * index}"), reader.convolution(f"layer{2 * index + 1}"), f"skip_layer{index}")
            for index in range(last // 2)
        ],
        ends=(reader.convolution(f"layer{last}"), reader.dense(f"layer{last + 1}"), reader.dense(f"layer{last + 2}")),
        ignored=_ignored(reader),
    )


# rosinality


@_layout("generator", "rosinality StyleGAN2", r"input\.input conv1\.conv\.modulation\.weight to_rgb1\.conv\.weight")
def _rosinality_generator(group: TensorGroup) -> Built:
    reader = StyleGANReader(group.tensors)
    layers = ["conv1", *(f"convs.{index}" for index in reader.run("convs.{}.conv.weight"))]
    painters = ["to_rgb1", *(f"to_rgbs.{block}" for block in range(len(layers) // 2))]
    average = group.settings.get("latent_avg")
    return _generator(
        mapping=[reader.dense(f"style.{index}", LEARNING_RATE) for index in reader.run("style.{}.weight", start=1)],
        embedding=None,
        average=average.float().flatten() if isinstance(average, Tensor) else None,
        constant=reader.take_any("input.input", 4)[0],
        synthesis=[
            _rosinality_layer(reader, name, f"{name}.activate.bias", 1) | reader.noise(f"noises.noise_{index}", f"{name}.noise.weight")
            for index, name in enumerate(layers)
        ],
        to_rgb=[_rosinality_layer(reader, name, f"{name}.bias", 4) for name in painters],
        ignored=_ignored(reader),
        normalisation="joint",
    )


def _rosinality_layer(reader: StyleGANReader, name: str, bias: str, dimensions: int) -> Part:
    weight = equalized(reader.take_any(f"{name}.conv.weight", 5)[0])
    return {**reader.style(f"{name}.conv.modulation"), "weight": weight, "bias": reader.take_any(bias, dimensions).flatten()}


@_layout("discriminator", "rosinality StyleGAN2", r"convs\.0\.0\.weight final_conv\.0\.weight final_linear\.1\.weight")
def _rosinality_discriminator(group: TensorGroup) -> Built:
    reader = StyleGANReader(group.tensors)
    return _discriminator(
        from_rgb=[reader.convolution("convs.0.0", "convs.0.1")],
        blocks=[
            _block(
                reader,
                reader.convolution(f"convs.{index}.conv1.0", f"convs.{index}.conv1.1"),
                reader.convolution(f"convs.{index}.conv2.1", f"convs.{index}.conv2.2"),
                f"convs.{index}.skip.1",
            )
            for index in reader.run("convs.{}.conv1.0.weight", start=1)
        ],
        ends=(reader.convolution("final_conv.0", "final_conv.1"), reader.dense("final_linear.0"), reader.dense("final_linear.1")),
        ignored=_ignored(reader),
    )
