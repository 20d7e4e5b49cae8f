"""StyleGAN2 of NVIDIA's TensorFlow code: variables such as ``8x8/Conv0_up/weight``, kernels as (height, width, inputs,
outputs), all weights equalized, style biases without their +1, up-sampling kernels flipped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from qualitygate.checkpoints.contents import TensorGroup
from qualitygate.checkpoints.layout import Built, DoesNotFit, Layout
from qualitygate.checkpoints.layouts.stylegan2.parts import GeneratorParts, generator
from qualitygate.checkpoints.layouts.stylegan2.taken import LEARNING_RATE, Part, Taken, equalized, number, optional_number

_FILTER = [1, 3, 3, 1]
_UNUSED = r"lod|ToRGB_lod\d+/.*|.*/ToRGB_lod\d+/.*"
"""Variables of progressive growing, at rest in a finished network."""


def _generator(group: TensorGroup) -> Built:
    take = Taken({name.removeprefix("synthesis/"): tensor for name, tensor in group.tensors.items()})
    settings = group.settings
    _check(settings)
    sizes = [4, *take.sizes("{0}x{0}/Conv0_up/weight", first=8)]
    rate = number(settings, "mapping_lrmul", LEARNING_RATE)
    layers = [(0, "4x4/Conv", False)]
    for block, size in enumerate(sizes[1:], start=1):
        layers += [(2 * block - 1, f"{size}x{size}/Conv0_up", True), (2 * block, f"{size}x{size}/Conv1", False)]
    embedding, normalisation = _embedding(take)
    parts = GeneratorParts(
        mapping=[_dense(take, f"mapping/Dense{index}", rate) for index in take.run("mapping/Dense{}/weight")],
        embedding=embedding,
        average=take("dlatent_avg", 1) if "dlatent_avg" in take else None,
        constant=take("4x4/Const/const", 4)[0],
        synthesis=[_layer(take, name, f"noise{index}", up) for index, name, up in layers],
        to_rgb=[_to_rgb(take, name) for name in _painters(take, sizes)],
        shortcuts=[_shortcut(take, size) for size in sizes if f"{size}x{size}/Skip/weight" in take],
    )
    return generator(parts, take.ignored(_UNUSED), normalisation, optional_number(settings, "conv_clamp", None))


def _check(settings: Mapping[str, Any]) -> None:
    """Refuse settings that cannot be seen in the variables and that we do not have."""
    for name, ours in (("nonlinearity", "lrelu"), ("mapping_nonlinearity", "lrelu"), ("normalize_latents", True)):
        if settings.get(name, ours) != ours:
            raise DoesNotFit(f"{name} is {settings[name]!r}, not {ours!r}")
    kernel = settings.get("resample_kernel")
    if kernel is not None and (not isinstance(kernel, (list, tuple)) or list(kernel) != _FILTER):
        raise DoesNotFit(f"resample_kernel is {kernel!r}, not {_FILTER}")


def _painters(take: Taken, sizes: list[int]) -> list[str]:
    """The to-RGBs in use: one for each size, or the last only, which progressive growing calls level of detail 0."""
    every = [f"{size}x{size}/ToRGB" for size in sizes if f"{size}x{size}/ToRGB/weight" in take]
    grown = [name for name in (f"{sizes[-1]}x{sizes[-1]}/ToRGB_lod0", "ToRGB_lod0") if f"{name}/weight" in take]
    if not every + grown:
        raise DoesNotFit("no ToRGB")
    return every or grown[:1]


def _embedding(take: Taken) -> tuple[Part | None, str]:
    """The label's embedding, and how it is normalised: the first code joins first, the later one normalises first."""
    if "mapping/LabelEmbed/weight" in take:
        return _dense(take, "mapping/LabelEmbed"), "apart"
    if "mapping/LabelConcat/weight" in take:
        weight = take("mapping/LabelConcat/weight", 2).T
        return {"weight": weight, "bias": weight.new_zeros(len(weight))}, "joint"
    return None, "apart"


def _dense(take: Taken, name: str, rate: float = 1.0) -> Part:
    return {"weight": equalized(take(f"{name}/weight", 2).T, rate), "bias": take(f"{name}/bias", 1) * rate}


def _kernel(take: Taken, name: str) -> Tensor:
    return equalized(take(f"{name}/weight", 4).permute(3, 2, 0, 1))


def _style(take: Taken, name: str) -> Part:
    return {"style.weight": equalized(take(f"{name}/mod_weight", 2).T), "style.bias": take(f"{name}/mod_bias", 1) + 1.0}


def _layer(take: Taken, name: str, noise: str, up: bool) -> Part:
    weight = _kernel(take, name)
    return {
        **_style(take, name),
        "weight": torch.flip(weight, (2, 3)) if up else weight,
        "bias": take(f"{name}/bias", 1),
        "noise": take(noise, 4)[0, 0] * take(f"{name}/noise_strength", 0),
    }


def _to_rgb(take: Taken, name: str) -> Part:
    return {**_style(take, name), "weight": _kernel(take, name).flatten(1), "bias": take(f"{name}/bias", 1)}


def _shortcut(take: Taken, size: int) -> Tensor:
    return _kernel(take, f"{size}x{size}/Skip") * 0.5**0.5


LAYOUTS = (
    Layout(
        "NVIDIA StyleGAN2 (TensorFlow)",
        "stylegan2",
        "generator",
        (r"(synthesis/)?4x4/Const/const", r"(synthesis/)?4x4/Conv/mod_weight", r"mapping/Dense0/weight"),
        _generator,
        ("mapping_lrmul", "conv_clamp"),
    ),
)
