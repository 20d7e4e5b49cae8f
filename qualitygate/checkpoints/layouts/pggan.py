"""PGGAN as stored by genforce, GAN Dissection, the torch hub (PGAN) and NVIDIA's TensorFlow networks.

Where each source keeps the tensors, and how it shapes them, is brought to one form first, not yet scaled: every layer is
``convolution(x, scale · weight) + bias`` with scale ``√2 / √fan_in``, the last one (to-RGB; the discriminator's values) with
``1 / √fan_in``. Level of detail and blending are reproduced as stored. What no tensor shows (a final tanh, the classes of genforce) is
taken from settings stored beside the tensors, from the other network in the file, or else is the source's default.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qualitygate.checkpoints.contents import TensorGroup
from qualitygate.checkpoints.layout import Built, DoesNotFit, Layout, declared
from qualitygate.checkpoints.layouts.reading import StateDictReader, settings_in
from qualitygate.generators.families.pggan import PGGAN, PGGANDiscriminator

LAYOUTS: list[Layout] = []
_layout = partial(declared, LAYOUTS, "pggan")

_NVIDIA_SETTINGS = {"use_wscale": True, "use_pixelnorm": True, "use_leakyrelu": True, "normalize_latents": True, "pixelnorm_epsilon": 1e-8}
_HUB_SETTINGS = {"equalizedlR": True, "perChannelNormalization": True, "leakyReluLeak": 0.2}

_NOT_NEEDED = r"lod|.*\.wscale\.scale"
"""The level of detail is read elsewhere; the scale in old GAN Dissection files follows from the shapes."""

Pair = tuple[Tensor, Tensor]  # weight and bias of one layer, float32


# The networks that the layers are of


def _generator(
    layers: list[Pair],
    images: list[Pair],
    lod: float,
    *,
    fused: bool = False,
    label_size: int = 0,
    label_after_norm: bool = False,
    final_tanh: bool = False,
) -> Built:
    """The generator of such layers, in the order in which they run, and of such to-RGBs, the full size first.

    The first layer is (inputs, units, 4, 4), the others are (outputs, inputs, 3, 3), or (inputs, outputs, 3, 3) where a ``fused`` one
    doubles the size in one step. Of the inputs, ``label_size`` are classes.
    """
    if len(layers) % 2:
        raise DoesNotFit(f"{len(layers)} layers, the last without its second of the same size")
    dropped = _dropped(lod, len(layers) // 2, len(images))
    layers, images = layers[: len(layers) - 2 * dropped], images[dropped : math.ceil(lod) + 1][::-1]
    dense, bias = layers[0]
    inputs = dense.shape[0]
    if not 0 <= label_size < inputs:
        raise DoesNotFit(f"{inputs} inputs, of which {label_size} would be classes")
    with torch.device("meta"):
        generator = PGGAN(
            latent_size=inputs - label_size,
            units=[len(bias) for _, bias in layers],
            image_channels=len(images[-1][1]),
            label_size=label_size,
            label_after_norm=label_after_norm,
            lod=lod,
            final_tanh=final_tanh,
        )
    tensors = {"weight.0": _scaled(dense, 16 * inputs), "bias.0": bias if bias.ndim == 3 else bias[:, None, None].repeat(1, 4, 4)}
    for index, (weight, bias) in enumerate(layers[1:], start=1):
        _check_kernel(weight, f"layer {index}")
        if index % 2 == 0:
            weight = weight if fused else weight.flip(2, 3).transpose(0, 1)
            weight = _scaled(_four_shifts(weight).permute(2, 3, 0, 1), 9 * weight.shape[0])
        else:
            weight = _scaled(weight, 9 * weight.shape[1])
        tensors[f"weight.{index}"], tensors[f"bias.{index}"] = weight, bias
    for index, (weight, bias) in enumerate(images):
        tensors[f"rgb_weight.{index}"], tensors[f"rgb_bias.{index}"] = _scaled(weight, weight.shape[1], gain=1.0), bias
    return Built(generator, tensors)


def _discriminator(
    layers: list[Pair], images: list[Pair], lod: float, *, fused: bool = False, group_size: int, consecutive_groups: bool = False
) -> Built:
    """The discriminator of such layers: convolutions (outputs, inputs, 3, 3) and dense ones (outputs, inputs); ``images`` are its
    from-RGB. It measures variation over ``group_size`` samples."""
    dropped = _dropped(lod, len(images), len(images))
    layers, images = layers[2 * dropped :], images[dropped : math.ceil(lod) + 1]
    units = [len(bias) for _, bias in (images[0], *layers)]
    sees_variation = layers[-3][0].shape[1] == units[-4] + 1
    with torch.device("meta"):
        discriminator = PGGANDiscriminator(
            units=units[:-1],
            image_channels=images[0][0].shape[1],
            outputs=units[-1],
            fused=fused,
            group_size=group_size if sees_variation else 0,
            consecutive_groups=consecutive_groups,
            lod=lod,
        )
    tensors: dict[str, Tensor] = {}
    for index, (weight, bias) in enumerate(images):
        tensors[f"rgb_weight.{index}"], tensors[f"rgb_bias.{index}"] = _scaled(weight, weight.shape[1]), bias
    last = len(layers) - 1
    for index, (weight, bias) in enumerate(layers):
        fan_in = weight[0].numel()
        if fused and index % 2 and index < last - 2:
            _check_kernel(weight, f"layer {index} of the discriminator")
            weight = _four_shifts(weight) / 4.0
        gain = 1.0 if index == last else math.sqrt(2.0)
        tensors[f"weight.{index}"], tensors[f"bias.{index}"] = _scaled(weight, fan_in, gain), bias
    return Built(discriminator, tensors)


def _dropped(lod: float, resolutions: int, images: int) -> int:
    """How many of the finest resolutions are not in use at this level of detail."""
    if not 0.0 <= lod <= resolutions - 1 or math.ceil(lod) >= images:
        raise DoesNotFit(f"level of detail {lod:g} with {resolutions} resolutions and {images} layers to or from RGB")
    return math.floor(lod)


def _scaled(weight: Tensor, fan_in: int, gain: float = math.sqrt(2.0)) -> Tensor:
    return (weight * (gain / math.sqrt(fan_in))).contiguous()


def _four_shifts(weight: Tensor) -> Tensor:
    """The 4×4 kernel that does a 3×3 kernel and a doubling (or, divided by 4, a halving) of the size in one step."""
    padded = F.pad(weight, (1, 1, 1, 1))
    return padded[..., 1:, 1:] + padded[..., :-1, 1:] + padded[..., 1:, :-1] + padded[..., :-1, :-1]


def _check_kernel(weight: Tensor, what: str) -> None:
    if weight.ndim != 4 or weight.shape[2:] != (3, 3):
        raise DoesNotFit(f"{what} is {tuple(weight.shape)}, not a 3×3 convolution")


# What sources have in common


def _names(reader: StateDictReader, pattern: str, suffix: str = ".weight", start: int = 0) -> list[str]:
    """The layers of such names, numbered from ``start`` on, as far as there are any."""
    return [pattern.format(index) for index in reader.run(pattern + suffix, start)]


def _read(
    reader: StateDictReader, layers: list[str], images: list[str], weight: str = ".weight", bias: str = ".bias"
) -> tuple[list[Pair], list[Pair]]:
    """The layers, and those to or from RGB, of these names, which are all that there are."""
    found = [[(reader.take_any(name + weight, 4, 2), reader.take_any(name + bias, 1)) for name in names] for names in (layers, images)]
    reader.unread(_NOT_NEEDED)
    return found[0], found[1]


def _check_settings(stored: Mapping[str, Any], needed: Mapping[str, Any]) -> None:
    for name, value in needed.items():
        if stored.get(name, value) != value:
            raise DoesNotFit(f"it was built with {name} = {stored[name]!r}, and only {value!r} is known")


def _check_dense(weight: Tensor, outputs: int) -> None:
    if weight.ndim != 2 or outputs % 16:
        raise DoesNotFit(f"the first layer is {tuple(weight.shape)}, not a dense layer with a multiple of 16 outputs")


def _dense_from_convolution(layer: Pair) -> Pair:
    """A 4×4 convolution over one position with padding 3 puts tap (3 − y, 3 − x) at (y, x)."""
    weight, bias = layer
    if weight.ndim != 4:
        raise DoesNotFit(f"the first layer is {tuple(weight.shape)}, not a 4×4 convolution")
    return weight.flip(2, 3).transpose(0, 1), bias


def _lod(group: TensorGroup) -> float:
    return float(group.tensors["lod"]) if "lod" in group.tensors else 0.0


# genforce; each network shows something of the other, the first group of the file that has such a tensor


@_layout("generator", "genforce PGGAN", r"layer0\.weight layer1\.bias output0\.weight lod", asks="label_size final_tanh")
def _genforce_generator(group: TensorGroup) -> Built:
    layers, images, fused = _genforce_generator_layers(group)
    judge = next((other for other in group.others if "input0.weight" in other.tensors), None)
    try:  # the discriminator has one output more than there are classes; without a sound one, there are taken to be none
        classes = len(_genforce_discriminator_layers(judge)[0][-1][1]) - 1 if judge else 0
    except DoesNotFit:
        classes = 0
    label_size, final_tanh = group.settings.get("label_size", classes), group.settings.get("final_tanh", False)
    return _generator(
        layers, images, _lod(group), fused=fused, label_size=label_size, label_after_norm=label_size > 0, final_tanh=final_tanh
    )


@_layout("discriminator", "genforce PGGAN", r"layer0\.weight input0\.weight lod", asks="fused_scale minibatch_std_group_size")
def _genforce_discriminator(group: TensorGroup) -> Built:
    layers, images = _genforce_discriminator_layers(group)
    fused = group.settings.get("fused_scale")
    if fused is None:  # it cannot be told from these tensors
        generator = next((other for other in group.others if "output0.weight" in other.tensors), None)
        fused = generator is not None and _genforce_generator_layers(generator)[2]
    group_size = group.settings.get("minibatch_std_group_size", 16)
    return _discriminator(layers, images, _lod(group), fused=fused, group_size=group_size)


def _genforce_generator_layers(group: TensorGroup) -> tuple[list[Pair], list[Pair], bool]:
    reader = StateDictReader(group.tensors)
    layers, images = _read(reader, _names(reader, "layer{}"), _names(reader, "output{}")[::-1])
    # a fused weight is (inputs, outputs, 3, 3), which shows wherever the number of units changes
    shapes = [(weight.shape[0], weight.shape[1], len(bias)) for weight, bias in layers[2::2]]
    fused = all(second == units for _, second, units in shapes) and any(first != units for first, _, units in shapes)
    return [_dense_from_convolution(layers[0]), *layers[1:]], images, fused


def _genforce_discriminator_layers(group: TensorGroup) -> tuple[list[Pair], list[Pair]]:
    reader = StateDictReader(group.tensors)
    layers, images = _read(reader, _names(reader, "layer{}"), _names(reader, "input{}"))
    if len(layers) != 2 * len(images) + 1:
        raise DoesNotFit(f"{len(layers)} layers for {len(images)} from-RGB layers, which need {2 * len(images) + 1}")
    return layers, images


# GAN Dissection; the newer of its two namings counts layers from 1 and names the output by its size


@_layout(
    "generator",
    "GAN Dissection PGGAN",
    r"(layer1|features\.0)\.conv\.weight (layer1|features\.0)\.wscale\.b output(_\d+x\d+)?\.conv\.weight",
)
def _gan_dissection_generator(group: TensorGroup) -> Built:
    reader = StateDictReader(group.tensors)
    if "features.0.conv.weight" in reader:
        names, output = _names(reader, "features.{}", ".conv.weight"), "output"
    else:
        names = _names(reader, "layer{}", ".conv.weight", start=1)
        size = 2 ** (len(names) // 2 + 1)
        output = f"output_{size}x{size}"
    layers, images = _read(reader, names, [output], ".conv.weight", ".wscale.b")
    return _generator([_dense_from_convolution(layers[0]), *layers[1:]], images, lod=0.0)


# torch hub


@_layout(
    "generator",
    "torch hub PGAN",
    r"formatLayer\.module\.weight groupScale0\.0\.module\.weight toRGBLayers\.0\.module\.weight",
    asks="alpha categoryVectorDim lossCriterion",
)
def _hub_generator(group: TensorGroup) -> Built:
    config = _hub_config(group)
    _check_settings(config, _HUB_SETTINGS)
    reader = StateDictReader(group.tensors)
    blocks = _names(reader, "scaleLayers.{}", ".0.module.weight")
    names = ["formatLayer.module", "groupScale0.0.module", *(f"{block}.{index}.module" for block in blocks for index in range(2))]
    layers, images = _read(reader, names, _names(reader, "toRGBLayers.{}.module")[::-1])
    (weight, bias), *convolutions = map(_hub_scaled, layers)
    _check_dense(weight, len(weight))
    # the others count the 16 positions of the first layer into its fan-in
    first = (4.0 * weight.T.unflatten(1, (-1, 4, 4)), bias.unflatten(0, (-1, 4, 4)))
    return _generator(
        [first, *convolutions],
        [_hub_scaled(image, math.sqrt(2.0)) for image in images],
        float(config.get("alpha", 0.0)),
        label_size=config.get("categoryVectorDim", 0),
        final_tanh=config.get("lossCriterion") in ("MSE", "DCGAN"),
    )


@_layout(
    "discriminator",
    "torch hub PGAN",
    r"groupScaleZero\.0\.module\.weight decisionLayer\.module\.weight fromRGBLayers\.0\.module\.weight",
    asks="alpha",
)
def _hub_discriminator(group: TensorGroup) -> Built:
    reader = StateDictReader(group.tensors)
    image_names = _names(reader, "fromRGBLayers.{}.module")[::-1]
    names = [f"scaleLayers.{block}.{index}.module" for block in reversed(range(len(image_names) - 1)) for index in range(2)]
    names += [f"{name}.module" for name in ("groupScaleZero.0", "groupScaleZero.1", "decisionLayer")]
    (*layers, last), images = _read(reader, names, image_names)
    return _discriminator(
        [*map(_hub_scaled, layers), _hub_scaled(last, math.sqrt(2.0))],
        [_hub_scaled(image) for image in images],
        float(_hub_config(group).get("alpha", 0.0)),
        group_size=4,
        consecutive_groups=True,
    )


def _hub_config(group: TensorGroup) -> Mapping[str, Any]:
    return {**settings_in(group.settings, "config"), **group.given}


def _hub_scaled(layer: Pair, gain: float = 1.0) -> Pair:
    """The hub scales the sum of convolution and bias, and its last layers (``gain``) by √2 / √fan_in like all others."""
    weight, bias = layer
    return weight * gain, bias * math.sqrt(2.0 / weight[0].numel())


# NVIDIA, TensorFlow


@_layout("generator", "NVIDIA TensorFlow PGGAN", "4x4/Dense/weight 4x4/Conv/weight ToRGB_lod0/weight", asks="label_size")
def _nvidia_generator(group: TensorGroup) -> Built:
    _check_settings(group.settings, _NVIDIA_SETTINGS)
    reader = StateDictReader(group.tensors)
    fused = "8x8/Conv0_up/weight" in reader
    first_name = "Conv0_up" if fused else "Conv0"
    sizes = reader.sizes("{0}x{0}/" + first_name + "/weight", first=8)
    names = ["4x4/Dense", "4x4/Conv", *(f"{size}x{size}/{name}" for size in sizes for name in (first_name, "Conv1"))]
    layers, images = _read(reader, names, _names(reader, "ToRGB_lod{}", "/weight"), "/weight", "/bias")
    (weight, bias), *convolutions = layers
    _check_dense(weight, weight.shape[-1])
    first = (weight.unflatten(1, (-1, 4, 4)), bias)
    return _generator(
        [first, *map(_from_tensorflow, convolutions)],
        [_from_tensorflow(image) for image in images],
        _lod(group),
        fused=fused,
        label_size=group.settings.get("label_size", 0),
    )


@_layout("discriminator", "NVIDIA TensorFlow PGGAN", "4x4/Dense1/weight FromRGB_lod0/weight", asks="mbstd_group_size")
def _nvidia_discriminator(group: TensorGroup) -> Built:
    _check_settings(group.settings, {"use_wscale": True})
    reader = StateDictReader(group.tensors)
    image_names = _names(reader, "FromRGB_lod{}", "/weight")
    sizes = [4 * 2**block for block in reversed(range(1, len(image_names)))]
    fused = "8x8/Conv1_down/weight" in reader
    names = [f"{size}x{size}/{name}" for size in sizes for name in ("Conv0", "Conv1_down" if fused else "Conv1")]
    names += ["4x4/Conv", "4x4/Dense0", "4x4/Dense1"]
    layers, images = (list(map(_from_tensorflow, pairs)) for pairs in _read(reader, names, image_names, "/weight", "/bias"))
    group_size = group.settings.get("mbstd_group_size", 4)
    return _discriminator(layers, images, _lod(group), fused=fused, group_size=group_size)


def _from_tensorflow(layer: Pair) -> Pair:
    weight, bias = layer
    return weight.permute(3, 2, 0, 1) if weight.ndim == 4 else weight.T, bias
