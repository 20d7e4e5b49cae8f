"""PGGAN as stored by genforce, GAN Dissection, the torch hub (PGAN) and NVIDIA's TensorFlow networks.

Where each source keeps the tensors, and how it shapes them, is brought to one form first, not yet scaled: every layer is
``convolution(x, scale · weight) + bias`` with scale ``√2 / √fan_in``, the last one (to-RGB; the discriminator's values) with
``1 / √fan_in``. Level of detail and blending are reproduced as stored. What no tensor shows (a final tanh, the classes of genforce) is
taken from settings stored beside the tensors, from the other network in the file, or else is the source's default.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count, takewhile
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qualitygate.checkpoints.contents import TensorGroup
from qualitygate.checkpoints.layout import Built, DoesNotFit, Layout
from qualitygate.checkpoints.layouts.reading import StateDictReader
from qualitygate.generators.families.pggan import PGGAN, PGGANDiscriminator

_GENFORCE_GROUP, _NVIDIA_GROUP, _HUB_GROUP = 16, 4, 4
"""Samples over which each source's discriminator measures variation, unless told otherwise."""

_NVIDIA_SETTINGS = {"use_wscale": True, "use_pixelnorm": True, "use_leakyrelu": True, "normalize_latents": True, "pixelnorm_epsilon": 1e-8}
_HUB_SETTINGS = {"equalizedlR": True, "perChannelNormalization": True, "leakyReluLeak": 0.2}
_HUB_TANH = ("MSE", "DCGAN")
"""Losses for which the hub ends the generator with tanh."""


_NOT_NEEDED = r"lod|.*\.wscale\.scale"
"""The level of detail is read elsewhere; the scale in old GAN Dissection files follows from the shapes."""

Pair = tuple[Tensor, Tensor]
"""Weight and bias of one layer, float32."""


@dataclass(frozen=True)
class Stored:
    """The layers of a generator or discriminator.

    Attributes:
        layers: in the order in which they run. The generator's first is (inputs, units, 4, 4); convolutions are
            (outputs, inputs, 3, 3), or (inputs, outputs, 3, 3) where a fused generator doubles the size;
            dense layers are (outputs, inputs).
        images: to-RGB or from-RGB by level of detail, the full size first.
        fused: convolution and resampling are one step.
    """

    layers: list[Pair]
    images: list[Pair]
    fused: bool = False


def _genforce_generator(group: TensorGroup) -> Built:
    label_size = group.settings.get("label_size", _genforce_classes(group))
    return _generator(
        _genforce_generator_layers(StateDictReader(group.tensors)),
        _lod(group.tensors),
        label_size=label_size,
        label_after_norm=label_size > 0,
        final_tanh=group.settings.get("final_tanh", False),
    )


def _genforce_discriminator(group: TensorGroup) -> Built:
    stored = _genforce_discriminator_layers(StateDictReader(group.tensors))
    fused = group.settings.get("fused_scale")
    if fused is None:
        generator = _beside(group, "output0.weight")
        fused = generator is not None and _genforce_generator_layers(StateDictReader(generator.tensors)).fused
    group_size = group.settings.get("minibatch_std_group_size", _GENFORCE_GROUP)
    return _discriminator(Stored(stored.layers, stored.images, fused), _lod(group.tensors), group_size=group_size)


def _genforce_classes(group: TensorGroup) -> int:
    """The discriminator has one output more than there are classes. Without a sound one, there are taken to be none."""
    judge = _beside(group, "input0.weight")
    try:
        return 0 if judge is None else len(_genforce_discriminator_layers(StateDictReader(judge.tensors)).layers[-1][1]) - 1
    except DoesNotFit:
        return 0


def _gan_dissection_generator(group: TensorGroup) -> Built:
    return _generator(_gan_dissection_generator_layers(StateDictReader(group.tensors)), lod=0.0)


def _hub_generator(group: TensorGroup) -> Built:
    config = _hub_config(group)
    _check_settings(config, _HUB_SETTINGS)
    return _generator(
        _hub_generator_layers(StateDictReader(group.tensors)),
        float(config.get("alpha", 0.0)),
        label_size=config.get("categoryVectorDim", 0),
        final_tanh=config.get("lossCriterion") in _HUB_TANH,
    )


def _hub_discriminator(group: TensorGroup) -> Built:
    alpha = float(_hub_config(group).get("alpha", 0.0))
    return _discriminator(_hub_discriminator_layers(StateDictReader(group.tensors)), alpha, group_size=_HUB_GROUP, consecutive_groups=True)


def _hub_config(group: TensorGroup) -> Mapping[str, Any]:
    config = group.settings.get("config")
    return {**(config if isinstance(config, Mapping) else {}), **group.given}


def _nvidia_generator(group: TensorGroup) -> Built:
    _check_settings(group.settings, _NVIDIA_SETTINGS)
    label_size = group.settings.get("label_size", 0)
    return _generator(_tensorflow_generator_layers(StateDictReader(group.tensors)), _lod(group.tensors), label_size=label_size)


def _nvidia_discriminator(group: TensorGroup) -> Built:
    _check_settings(group.settings, {"use_wscale": True})
    group_size = group.settings.get("mbstd_group_size", _NVIDIA_GROUP)
    return _discriminator(_tensorflow_discriminator_layers(StateDictReader(group.tensors)), _lod(group.tensors), group_size=group_size)


def _generator(stored: Stored, lod: float, *, label_size: int = 0, label_after_norm: bool = False, final_tanh: bool = False) -> Built:
    if len(stored.layers) % 2:
        raise DoesNotFit(f"{len(stored.layers)} layers, the last without its second of the same size")
    dropped = _dropped(stored, lod, len(stored.layers) // 2)
    layers = stored.layers[: len(stored.layers) - 2 * dropped]
    images = stored.images[dropped : math.ceil(lod) + 1][::-1]
    inputs = layers[0][0].shape[0]
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
    return Built(generator, _generator_tensors(layers, images, stored.fused))


def _generator_tensors(layers: list[Pair], images: list[Pair], fused: bool) -> dict[str, Tensor]:
    dense, bias = layers[0]
    tensors = {"weight.0": _scaled(dense, 16 * dense.shape[0]), "bias.0": bias if bias.ndim == 3 else bias[:, None, None].repeat(1, 4, 4)}
    for index, (weight, bias) in enumerate(layers[1:], start=1):
        _check_kernel(weight, f"layer {index}")
        if index % 2 == 0:
            weight = weight if fused else weight.flip(2, 3).transpose(0, 1)
            weight = _scaled(_four_shifts(weight).permute(2, 3, 0, 1), 9 * weight.shape[0])
        else:
            weight = _scaled(weight, 9 * weight.shape[1])
        tensors[f"weight.{index}"], tensors[f"bias.{index}"] = weight, bias
    for index, (weight, bias) in enumerate(images):
        tensors[f"rgb_weight.{index}"] = _scaled(weight, weight.shape[1], gain=1.0)
        tensors[f"rgb_bias.{index}"] = bias
    return tensors


def _discriminator(stored: Stored, lod: float, *, group_size: int, consecutive_groups: bool = False) -> Built:
    dropped = _dropped(stored, lod, len(stored.images))
    layers = stored.layers[2 * dropped :]
    images = stored.images[dropped : math.ceil(lod) + 1]
    units = [len(bias) for _, bias in (images[0], *layers)]
    sees_variation = layers[-3][0].shape[1] == units[-4] + 1
    with torch.device("meta"):
        discriminator = PGGANDiscriminator(
            units=units[:-1],
            image_channels=images[0][0].shape[1],
            outputs=units[-1],
            fused=stored.fused,
            group_size=group_size if sees_variation else 0,
            consecutive_groups=consecutive_groups,
            lod=lod,
        )
    return Built(discriminator, _discriminator_tensors(layers, images, stored.fused))


def _discriminator_tensors(layers: list[Pair], images: list[Pair], fused: bool) -> dict[str, Tensor]:
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
    return tensors


def _dropped(stored: Stored, lod: float, resolutions: int) -> int:
    """How many of the finest resolutions are not in use at this level of detail."""
    if not 0.0 <= lod <= resolutions - 1 or math.ceil(lod) >= len(stored.images):
        raise DoesNotFit(f"level of detail {lod:g} with {resolutions} resolutions and {len(stored.images)} layers to or from RGB")
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


def _check_settings(stored: Mapping[str, Any], needed: Mapping[str, Any]) -> None:
    for name, value in needed.items():
        if stored.get(name, value) != value:
            raise DoesNotFit(f"it was built with {name} = {stored[name]!r}, and only {value!r} is known")


def _lod(tensors: Mapping[str, Tensor]) -> float:
    return float(tensors["lod"]) if "lod" in tensors else 0.0


def _beside(group: TensorGroup, name: str) -> TensorGroup | None:
    """The other network of the file: the first group that has such a tensor."""
    return next((other for other in group.others if name in other.tensors), None)


def _genforce_generator_layers(reader: StateDictReader) -> Stored:
    layers = _run(reader, lambda index: f"layer{index}")
    images = _run(reader, lambda index: f"output{index}")[::-1]
    reader.unread(_NOT_NEEDED)
    # a fused weight is (inputs, outputs, 3, 3), which shows wherever the number of units changes
    shapes = [(weight.shape[0], weight.shape[1], len(bias)) for weight, bias in layers[2::2]]
    fused = all(second == units for _, second, units in shapes) and any(first != units for first, _, units in shapes)
    return Stored([_dense_from_convolution(layers[0]), *layers[1:]], images, fused)


def _genforce_discriminator_layers(reader: StateDictReader) -> Stored:
    """``fused`` cannot be told from these tensors."""
    layers = _run(reader, lambda index: f"layer{index}")
    images = _run(reader, lambda index: f"input{index}")
    reader.unread(_NOT_NEEDED)
    if len(layers) != 2 * len(images) + 1:
        raise DoesNotFit(f"{len(layers)} layers for {len(images)} from-RGB layers, which need {2 * len(images) + 1}")
    return Stored(layers, images)


def _gan_dissection_generator_layers(reader: StateDictReader) -> Stored:
    """Both namings of GAN Dissection: the newer counts layers from 1 and names the output by its size."""
    suffixes = (".conv.weight", ".wscale.b")
    if "features.0.conv.weight" in reader:
        layers = _run(reader, lambda index: f"features.{index}", suffixes)
        output = "output"
    else:
        layers = _run(reader, lambda index: f"layer{index + 1}", suffixes)
        size = 2 ** (len(layers) // 2 + 1)
        output = f"output_{size}x{size}"
    images = _pairs(reader, [output], suffixes)
    reader.unread(_NOT_NEEDED)
    return Stored([_dense_from_convolution(layers[0]), *layers[1:]], images)


def _hub_generator_layers(reader: StateDictReader) -> Stored:
    early = ("formatLayer", "groupScale0.0")
    layers = _run(reader, lambda index: f"{early[index] if index < 2 else f'scaleLayers.{index // 2 - 1}.{index % 2}'}.module")
    images = _run(reader, lambda index: f"toRGBLayers.{index}.module")[::-1]
    reader.unread(_NOT_NEEDED)
    (weight, bias), *convolutions = [_bias_scaled(layer) for layer in layers]
    _check_dense(weight, len(weight))
    # the others count the 16 positions of the first layer into its fan-in
    first = (4.0 * weight.T.unflatten(1, (-1, 4, 4)), bias.unflatten(0, (-1, 4, 4)))
    return Stored([first, *convolutions], [_more_gain(_bias_scaled(image)) for image in images])


def _hub_discriminator_layers(reader: StateDictReader) -> Stored:
    images = _run(reader, lambda index: f"fromRGBLayers.{index}.module")[::-1]
    blocks = len(images) - 1
    late = ("groupScaleZero.0", "groupScaleZero.1", "decisionLayer")
    names = [f"scaleLayers.{block}.{index}.module" for block in reversed(range(blocks)) for index in range(2)]
    names += [f"{name}.module" for name in late]
    layers = [_bias_scaled(layer) for layer in _pairs(reader, names)]
    reader.unread(_NOT_NEEDED)
    return Stored([*layers[:-1], _more_gain(layers[-1])], [_bias_scaled(image) for image in images])


def _tensorflow_generator_layers(reader: StateDictReader) -> Stored:
    fused = "8x8/Conv0_up/weight" in reader
    suffixes = ("/weight", "/bias")

    def name(index: int) -> str:
        size = 4 * 2 ** (index // 2)
        early = ("Dense", "Conv")
        return f"{size}x{size}/" + (early[index] if index < 2 else "Conv1" if index % 2 else "Conv0_up" if fused else "Conv0")

    (weight, bias), *convolutions = _run(reader, name, suffixes)
    images = _run(reader, lambda index: f"ToRGB_lod{index}", suffixes)
    reader.unread(_NOT_NEEDED)
    _check_dense(weight, weight.shape[-1])
    first = (weight.unflatten(1, (-1, 4, 4)), bias)
    return Stored([first, *map(_from_tensorflow, convolutions)], [_from_tensorflow(image) for image in images], fused)


def _tensorflow_discriminator_layers(reader: StateDictReader) -> Stored:
    suffixes = ("/weight", "/bias")
    images = _run(reader, lambda index: f"FromRGB_lod{index}", suffixes)
    sizes = [4 * 2**block for block in reversed(range(1, len(images)))]
    fused = "8x8/Conv1_down/weight" in reader
    names = [f"{size}x{size}/{name}" for size in sizes for name in ("Conv0", "Conv1_down" if fused else "Conv1")]
    layers = _pairs(reader, [*names, "4x4/Conv", "4x4/Dense0", "4x4/Dense1"], suffixes)
    reader.unread(_NOT_NEEDED)
    return Stored([_from_tensorflow(layer) for layer in layers], [_from_tensorflow(image) for image in images], fused)


def _run(reader: StateDictReader, name: Callable[[int], str], suffixes: tuple[str, str] = (".weight", ".bias")) -> list[Pair]:
    """The layers ``name(0)``, ``name(1)``, … as far as there are any."""
    names = list(takewhile(lambda name: name + suffixes[0] in reader, map(name, count())))
    if not names:
        raise DoesNotFit(f"no tensor {name(0)}{suffixes[0]}")
    return _pairs(reader, names, suffixes)


def _pairs(reader: StateDictReader, names: list[str], suffixes: tuple[str, str] = (".weight", ".bias")) -> list[Pair]:
    return [(reader.take_any(name + suffixes[0], 4, 2), reader.take_any(name + suffixes[1], 1)) for name in names]


def _check_dense(weight: Tensor, outputs: int) -> None:
    if weight.ndim != 2 or outputs % 16:
        raise DoesNotFit(f"the first layer is {tuple(weight.shape)}, not a dense layer with a multiple of 16 outputs")


def _dense_from_convolution(layer: Pair) -> Pair:
    """A 4×4 convolution over one position with padding 3 puts tap (3 − y, 3 − x) at (y, x)."""
    weight, bias = layer
    if weight.ndim != 4:
        raise DoesNotFit(f"the first layer is {tuple(weight.shape)}, not a 4×4 convolution")
    return weight.flip(2, 3).transpose(0, 1), bias


def _bias_scaled(layer: Pair) -> Pair:
    """The hub scales the sum of convolution and bias."""
    weight, bias = layer
    return weight, bias * math.sqrt(2.0 / weight[0].numel())


def _more_gain(layer: Pair) -> Pair:
    """The hub scales its last layers by √2 / √fan_in like all others."""
    weight, bias = layer
    return weight * math.sqrt(2.0), bias


def _from_tensorflow(layer: Pair) -> Pair:
    weight, bias = layer
    return weight.permute(3, 2, 0, 1) if weight.ndim == 4 else weight.T, bias


LAYOUTS = (
    Layout(
        "genforce PGGAN",
        "pggan",
        "generator",
        (r"layer0\.weight", r"layer1\.bias", r"output0\.weight", "lod"),
        _genforce_generator,
        ("label_size", "final_tanh"),
    ),
    Layout(
        "genforce PGGAN",
        "pggan",
        "discriminator",
        (r"layer0\.weight", r"input0\.weight", "lod"),
        _genforce_discriminator,
        ("fused_scale", "minibatch_std_group_size"),
    ),
    Layout(
        "GAN Dissection PGGAN",
        "pggan",
        "generator",
        (r"(layer1|features\.0)\.conv\.weight", r"(layer1|features\.0)\.wscale\.b", r"output(_\d+x\d+)?\.conv\.weight"),
        _gan_dissection_generator,
    ),
    Layout(
        "torch hub PGAN",
        "pggan",
        "generator",
        (r"formatLayer\.module\.weight", r"groupScale0\.0\.module\.weight", r"toRGBLayers\.0\.module\.weight"),
        _hub_generator,
        ("alpha", "categoryVectorDim", "lossCriterion"),
    ),
    Layout(
        "torch hub PGAN",
        "pggan",
        "discriminator",
        (r"groupScaleZero\.0\.module\.weight", r"decisionLayer\.module\.weight", r"fromRGBLayers\.0\.module\.weight"),
        _hub_discriminator,
        ("alpha",),
    ),
    Layout(
        "NVIDIA TensorFlow PGGAN",
        "pggan",
        "generator",
        ("4x4/Dense/weight", "4x4/Conv/weight", "ToRGB_lod0/weight"),
        _nvidia_generator,
        ("label_size",),
    ),
    Layout(
        "NVIDIA TensorFlow PGGAN",
        "pggan",
        "discriminator",
        ("4x4/Dense1/weight", "FromRGB_lod0/weight"),
        _nvidia_discriminator,
        ("mbstd_group_size",),
    ),
)
