"""Exact CLA of some calibration samples: their scores, and what each unit adds to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qualitygate import names
from qualitygate.generators.base import Generator
from qualitygate.generators.passes import MICRO_BATCH, Progress, silent
from qualitygate.latents import Latents
from qualitygate.scores.local_activation import local_activation
from qualitygate.scores.precision import Precision


@dataclass(frozen=True)
class ExactCurvature:
    """CLA of some samples, without the curvature of their single neurons, which would not fit in memory.

    Attributes:
        score: score of each sample by layer, float64 (N,).
        unit_score: mean over samples of the unit scores by layer, float64 (units,).
        unit_curvature: mean over samples of the units' plain curvature by layer, float64 (units,).
    """

    score: dict[int, Tensor]
    unit_score: dict[int, Tensor]
    unit_curvature: dict[int, Tensor]

    def columns(self, count: int) -> dict[str, np.ndarray]:
        """The scores as columns of ``count`` samples, NaN for those that have none."""
        return {
            names.cla(layer): np.pad(score.numpy(), (0, count - len(score)), constant_values=np.nan) for layer, score in self.score.items()
        }

    def unit_columns(self, layers: Sequence[int], units: Sequence[int]) -> dict[str, list[Any]]:
        """The unit scores as columns of a table with these layers and units, None where there are none."""
        return {
            name: [scores[layer][unit].item() if layer in scores else None for layer, unit in zip(layers, units, strict=True)]
            for name, scores in ((names.UNIT_CLA, self.unit_score), (names.UNIT_CLA_PLAIN, self.unit_curvature))
        }


def exact_unit_curvature(
    generator: Generator, latents: Latents, layers: Sequence[int], precision: Precision = "float32", progress: Progress = silent
) -> ExactCurvature:
    """Exact CLA at these layers, a micro-batch at a time, one walk for all of them."""
    scores: list[dict[int, Tensor]] = []
    units: list[dict[int, Tensor]] = []
    plain: list[dict[int, Tensor]] = []
    for start in range(0, len(latents), MICRO_BATCH):
        local = local_activation(generator, latents[start : start + MICRO_BATCH], layers, precision=precision, progress=progress)
        scores.append(local.score)
        units.append(local.unit_score)
        plain.append(local.unit_curvature)
    return ExactCurvature(
        _together(scores),
        {layer: rows.mean(dim=0) for layer, rows in _together(units).items()},
        {layer: rows.mean(dim=0) for layer, rows in _together(plain).items()},
    )


def _together(parts: Sequence[dict[int, Tensor]]) -> dict[int, Tensor]:
    return {layer: torch.cat([part[layer] for part in parts]) for layer in parts[0]}
