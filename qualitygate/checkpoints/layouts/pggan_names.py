"""Where each source keeps the tensors of a PGGAN, and how it shapes them. All come out in one form, not yet scaled.

In that form every layer is ``convolution(x, scale · weight) + bias`` with scale ``√2 / √fan_in``, the last one (to-RGB;
the discriminator's values) with ``1 / √fan_in``. Sources that also scale the bias, or scale the last layer like the
others, are brought to it here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from qualitygate.checkpoints.layout import DoesNotFit, listed

Pair = tuple[Tensor, Tensor]
"""Weight and bias of one layer, float32."""

_NOT_NEEDED = r"lod|.*\.wscale\.scale"
"""The level of detail is read elsewhere; the scale in old GAN Dissection files follows from the shapes."""


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


def genforce_generator(tensors: Mapping[str, Tensor]) -> Stored:
    left = dict(tensors)
    layers = _take(left, lambda index: f"layer{index}")
    images = _take(left, lambda index: f"output{index}")[::-1]
    _check_all_taken(left)
    # a fused weight is (inputs, outputs, 3, 3), which shows wherever the number of units changes
    shapes = [(weight.shape[0], weight.shape[1], len(bias)) for weight, bias in layers[2::2]]
    fused = all(second == units for _, second, units in shapes) and any(first != units for first, _, units in shapes)
    return Stored([_dense_from_convolution(layers[0]), *layers[1:]], images, fused)


def genforce_discriminator(tensors: Mapping[str, Tensor]) -> Stored:
    """``fused`` cannot be told from these tensors."""
    left = dict(tensors)
    layers = _take(left, lambda index: f"layer{index}")
    images = _take(left, lambda index: f"input{index}")
    _check_all_taken(left)
    if len(layers) != 2 * len(images) + 1:
        raise DoesNotFit(f"{len(layers)} layers for {len(images)} from-RGB layers, which need {2 * len(images) + 1}")
    return Stored(layers, images)


def gan_dissection_generator(tensors: Mapping[str, Tensor]) -> Stored:
    """Both namings of GAN Dissection: the newer counts layers from 1 and names the output by its size."""
    left = dict(tensors)
    suffixes = (".conv.weight", ".wscale.b")
    if "features.0.conv.weight" in tensors:
        layers = _take(left, lambda index: f"features.{index}", suffixes)
        output = "output"
    else:
        layers = _take(left, lambda index: f"layer{index + 1}", suffixes)
        size = 2 ** (len(layers) // 2 + 1)
        output = f"output_{size}x{size}"
    images = _take(left, lambda index: output, suffixes)
    _check_all_taken(left)
    return Stored([_dense_from_convolution(layers[0]), *layers[1:]], images)


def hub_generator(tensors: Mapping[str, Tensor]) -> Stored:
    left = dict(tensors)
    early = ("formatLayer", "groupScale0.0")
    layers = _take(left, lambda index: f"{early[index] if index < 2 else f'scaleLayers.{index // 2 - 1}.{index % 2}'}.module")
    images = _take(left, lambda index: f"toRGBLayers.{index}.module")[::-1]
    _check_all_taken(left)
    (weight, bias), *convolutions = [_bias_scaled(layer) for layer in layers]
    _check_dense(weight, len(weight))
    # the others count the 16 positions of the first layer into its fan-in
    first = (4.0 * weight.T.unflatten(1, (-1, 4, 4)), bias.unflatten(0, (-1, 4, 4)))
    return Stored([first, *convolutions], [_more_gain(_bias_scaled(image)) for image in images])


def hub_discriminator(tensors: Mapping[str, Tensor]) -> Stored:
    left = dict(tensors)
    images = _take(left, lambda index: f"fromRGBLayers.{index}.module")[::-1]
    blocks = len(images) - 1
    late = ("groupScaleZero.0", "groupScaleZero.1", "decisionLayer")
    names = [f"scaleLayers.{block}.{index}.module" for block in reversed(range(blocks)) for index in range(2)]
    names += [f"{name}.module" for name in late]
    layers = [_bias_scaled(layer) for layer in _take_named(left, names)]
    _check_all_taken(left)
    return Stored([*layers[:-1], _more_gain(layers[-1])], [_bias_scaled(image) for image in images])


def tensorflow_generator(tensors: Mapping[str, Tensor]) -> Stored:
    left = dict(tensors)
    fused = "8x8/Conv0_up/weight" in tensors
    suffixes = ("/weight", "/bias")

    def name(index: int) -> str:
        size = 4 * 2 ** (index // 2)
        early = ("Dense", "Conv")
        return f"{size}x{size}/" + (early[index] if index < 2 else "Conv1" if index % 2 else "Conv0_up" if fused else "Conv0")

    (weight, bias), *convolutions = _take(left, name, suffixes)
    images = _take(left, lambda index: f"ToRGB_lod{index}", suffixes)
    _check_all_taken(left)
    _check_dense(weight, weight.shape[-1])
    first = (weight.unflatten(1, (-1, 4, 4)), bias)
    return Stored([first, *map(_from_tensorflow, convolutions)], [_from_tensorflow(image) for image in images], fused)


def tensorflow_discriminator(tensors: Mapping[str, Tensor]) -> Stored:
    left = dict(tensors)
    suffixes = ("/weight", "/bias")
    images = _take(left, lambda index: f"FromRGB_lod{index}", suffixes)
    sizes = [4 * 2**block for block in reversed(range(1, len(images)))]
    fused = "8x8/Conv1_down/weight" in tensors
    names = [f"{size}x{size}/{name}" for size in sizes for name in ("Conv0", "Conv1_down" if fused else "Conv1")]
    layers = _take_named(left, [*names, "4x4/Conv", "4x4/Dense0", "4x4/Dense1"], suffixes)
    _check_all_taken(left)
    return Stored([_from_tensorflow(layer) for layer in layers], [_from_tensorflow(image) for image in images], fused)


def _take(left: dict[str, Tensor], name: Callable[[int], str], suffixes: tuple[str, str] = (".weight", ".bias")) -> list[Pair]:
    """The layers ``name(0)``, ``name(1)``, … as far as there are any, taken out of ``left``."""
    pairs: list[Pair] = []
    while name(len(pairs)) + suffixes[0] in left:
        pairs += _take_named(left, [name(len(pairs))], suffixes)
    if not pairs:
        raise DoesNotFit(f"{name(0)}{suffixes[0]} is missing")
    return pairs


def _take_named(left: dict[str, Tensor], names: list[str], suffixes: tuple[str, str] = (".weight", ".bias")) -> list[Pair]:
    if lacking := [name + suffix for name in names for suffix in suffixes if name + suffix not in left]:
        raise DoesNotFit(listed([f"{name} is missing" for name in lacking]))
    pairs = [(left.pop(name + suffixes[0]).float(), left.pop(name + suffixes[1]).float()) for name in names]
    for name, (weight, bias) in zip(names, pairs, strict=True):
        if weight.ndim not in (2, 4) or bias.ndim != 1 or not (weight.numel() and bias.numel()):
            raise DoesNotFit(f"{name} has a weight {tuple(weight.shape)} and a bias {tuple(bias.shape)}")
    return pairs


def _check_all_taken(left: Mapping[str, Tensor]) -> None:
    """A tensor that no layer claimed stands behind a gap, or belongs to some other network."""
    if rest := [name for name in left if not re.fullmatch(_NOT_NEEDED, name)]:
        raise DoesNotFit(listed([f"{name} follows on no layer before it" for name in rest]))


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
