"""A unit score: how active each unit is in the artifacts, on average."""

from __future__ import annotations

import torch

from qualitygate.units.score import UnitScores
from qualitygate.units.table import UnitInputs, UnitScore


def _compute(inputs: UnitInputs) -> UnitScores:
    parts: dict[int, list[torch.Tensor]] = {layer: [] for layer in inputs.layers}
    for _, layer, activation in inputs.generator.activations(inputs.artifacts, inputs.layers):
        parts[layer].append(activation.mean(dim=(2, 3)))
    scores = {layer: torch.cat(part).mean(dim=0) for layer, part in parts.items()}
    return UnitScores.of_layers(scores, "loudness", {"samples": len(inputs.artifacts)})


LOUDNESS = UnitScore("loudness", _compute)
