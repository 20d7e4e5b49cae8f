"""Unit scores: each a function of a scene that gives every unit of some layers a number, higher = more suspect."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from planted_rows.scene import Scene
from qualitygate.generators.execution import micro_batches, read_layers, scored_pass

UnitScore = Callable[[Scene], dict[int, Tensor]]
"""float64 (units,) by layer."""


def low_rate_activity(rate: float, scene: Scene) -> dict[int, Tensor]:
    """Low-rate activity over all latents, from the rates alone."""
    rates = scene.profile.rates
    return {layer: (rates.rates[layer] * rates.low_rate(layer, rate)).mean(dim=(1, 2)) for layer in scene.layers}


def low_rate_activity_of_defective(rate: float, scene: Scene) -> dict[int, Tensor]:
    """Low-rate activity over samples that someone has found to be defective."""
    latents = scene.samples[scene.fires]
    masks = {layer: scene.profile.rates.low_rate(layer, rate).to(scene.generator.device) for layer in scene.layers}
    total = {layer: torch.zeros(len(mask), dtype=torch.float64) for layer, mask in masks.items()}
    with scored_pass():
        for rows, batch in micro_batches(latents):
            for layer, activation in read_layers(scene.generator, batch, scene.layers):
                active = (activation[: rows.stop - rows.start] > 0) & masks[layer]
                total[layer] += active.double().mean(dim=(2, 3)).sum(dim=0).cpu()
    return {layer: sums / len(latents) for layer, sums in total.items()}


def cla(scene: Scene) -> dict[int, Tensor]:
    """CLA unit score over all latents: the exact samples, each group weighted by its share of all latents."""
    fires = torch.from_numpy(scene.fires[scene.exact_rows])
    return {
        layer: scene.share * scores[fires].mean(dim=0) + (1.0 - scene.share) * scores[~fires].mean(dim=0)
        for layer, scores in scene.exact.unit_score.items()
    }


def cla_of_defective(scene: Scene) -> dict[int, Tensor]:
    """CLA unit score over samples that someone has found to be defective."""
    fires = torch.from_numpy(scene.fires[scene.exact_rows])
    return {layer: scores[fires].mean(dim=0) for layer, scores in scene.exact.unit_score.items()}


UNIT_SCORES: dict[str, UnitScore] = {
    **{f"low-rate activity, R = {rate}, all samples": partial(low_rate_activity, rate) for rate in (0.02, 0.1, 0.3)},
    **{
        f"low-rate activity, R = {rate}, defective samples": partial(low_rate_activity_of_defective, rate)
        for rate in (0.02, 0.1, 0.3)
    },
    "CLA, all samples": cla,
    "CLA, defective samples": cla_of_defective,
}
