"""StyleGAN3 as NVIDIA stores it: a pickled network, or its state dict.

What names, shapes and stored filters show is read off them. What they do not show (bandwidth of the input, output
scale, bound before the down-sampling filters, learning-rate multiplier of the mapping, filter taps for each factor) is
taken from the constructor's arguments where they are stored, and is the original's default otherwise, from which no
published network differs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from qualitygate.checkpoints.contents import TensorGroup
from qualitygate.checkpoints.layout import Built, DoesNotFit, Layout, declared
from qualitygate.checkpoints.layouts.reading import (
    Part,
    StyleGANReader,
    constructor_arguments,
    equalized,
    number,
    numbered,
    optional_number,
    prefixed,
    whole_number,
)
from qualitygate.generators.families.stylegan3 import StyleGAN3

LAYOUTS: list[Layout] = []


@declared(
    LAYOUTS,
    "stylegan3",
    "generator",
    "NVIDIA StyleGAN3",
    r"mapping\.fc0\.weight synthesis\.input\.freqs synthesis\.L0_\d+_\d+\.magnitude_ema",
    asks="first_cutoff conv_clamp output_scale filter_size lr_multiplier num_fp16_res",
)
def _build(group: TensorGroup) -> Built:
    reader = StyleGANReader(group.tensors)
    arguments = constructor_arguments(group, ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "mapping_kwargs"))
    *names, last = _layer_names(group.tensors)
    parts = [_filtered_layer(reader, f"synthesis.{name}") for name in names]
    to_rgb = _layer(reader, f"synthesis.{last}")
    to_rgb["weight"] = equalized(to_rgb["weight"]).flatten(1) * to_rgb.pop("gain")
    mapping = reader.nvidia_mapping(arguments)
    embedding = reader.dense("mapping.embed") if "mapping.embed.weight" in reader else {}
    average = {"mapping.average": reader.take_any("mapping.w_avg", 1)}
    features = {
        "frequencies": reader.take_any("synthesis.input.freqs", 2),
        "phases": reader.take_any("synthesis.input.phases", 1),
        "transform": reader.take_any("synthesis.input.transform", 2),
        "weight": equalized(reader.take_any("synthesis.input.weight", 2)),
        **prefixed("affine", reader.dense("synthesis.input.affine")),
    }
    reader.check()
    filter_size = int(number(arguments, "filter_size", 6))
    layers = [_layer_settings(name, part, filter_size) for name, part in zip(names, parts, strict=True)]
    label_features, label_size = embedding["weight"].shape if embedding else (0, 0)
    with torch.device("meta"):
        generator = StyleGAN3(
            latent_size=mapping[0]["weight"].shape[1] - label_features,
            mapping=[len(layer["bias"]) for layer in mapping],
            label_size=label_size,
            label_features=label_features,
            units=len(features["phases"]),
            sampling_rate=_sampling_rate(layers),
            bandwidth=number(arguments, "first_cutoff", 2.0),
            layers=layers,
            image_channels=len(to_rgb["bias"]),
            clamp=optional_number(arguments, "conv_clamp", 256.0),
            output_scale=number(arguments, "output_scale", 0.25),
            num_fp16_res=whole_number(arguments, "num_fp16_res"),
        )
    tensors = average | numbered("mapping.layers", mapping) | prefixed("mapping.embedding", embedding)
    tensors |= prefixed("input", features) | numbered("convolutions", parts) | prefixed("to_rgb", to_rgb)
    return Built(generator, tensors, reader.unread())


def _layer_names(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names such as ``L3_52_512`` (number, size, units), in order of synthesis."""
    found = [match for name in tensors if (match := re.fullmatch(r"synthesis\.(L(\d+)_\d+_\d+)\.weight", name))]
    names = {int(match[2]): match[1] for match in found}
    if len(names) < 2 or sorted(names) != list(range(len(found))):
        raise DoesNotFit(f"the layers {', '.join(match[1] for match in found)} are not a chain from L0 on")
    return [names[index] for index in sorted(names)]


def _layer_settings(name: str, part: Part, filter_size: int) -> dict[str, Any]:
    _, size, units = name.split("_")
    up_taps, down_taps = len(part["up_filter"]), len(part["down_filter"])
    if any(taps < filter_size or taps % filter_size for taps in (up_taps, down_taps)):
        raise DoesNotFit(f"filters of {up_taps} and {down_taps} taps in {name}, which is not {filter_size} for each factor")
    return {
        "units": int(units),
        "size": int(size),
        "kernel": part["weight"].shape[-1],
        "up": up_taps // filter_size,
        "down": down_taps // filter_size,
        "up_taps": up_taps,
        "down_taps": down_taps,
        "radial": part["down_filter"].ndim == 2,
    }


def _sampling_rate(layers: Sequence[Mapping[str, Any]]) -> int:
    """Sampling rate of the input: the last layer's is its size, and every layer's filters say how it changes the rate.

    Every layer but the last has the same margin around the image, so its size tells whether the filters were
    understood.
    """
    up, down = prod(layer["up"] for layer in layers), prod(layer["down"] for layer in layers)
    rate, remainder = divmod(layers[-1]["size"] * down, up)
    margin = layers[0]["size"] - rate
    expected = rate
    for layer in layers[:-1]:
        expected = expected * layer["up"] // layer["down"]
        if remainder or layer["size"] - expected != margin:
            raise DoesNotFit(f"filters that lead to sampling rate {expected} in a layer of size {layer['size']}")
    return rate


def _layer(reader: StyleGANReader, name: str) -> Part:
    """A layer, not counting its filters; ``gain`` brings its input to unit variance, as the running mean square of the training says."""
    return {
        **reader.style(f"{name}.affine"),
        "weight": reader.take_any(f"{name}.weight", 4),
        "bias": reader.take_any(f"{name}.bias", 1),
        "gain": torch.rsqrt(reader.take_any(f"{name}.magnitude_ema", 0)),
    }


def _filtered_layer(reader: StyleGANReader, name: str) -> Part:
    layer = _layer(reader, name)
    weight = layer["weight"].double()
    layer["weight"] = (weight * torch.rsqrt(weight.square().mean(dim=(1, 2, 3), keepdim=True))).float()
    filters = {"up_filter": reader.take_any(f"{name}.up_filter", 1), "down_filter": reader.take_any(f"{name}.down_filter", 1, 2)}
    return layer | filters
