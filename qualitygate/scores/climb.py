"""Climbs the ladder of `qualitygate.scores.screening`: estimates of CLA over more and more axes, none walked twice on the same grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from qualitygate.generators.base import Generator
from qualitygate.generators.passes import Progress, silent
from qualitygate.latents import Latents
from qualitygate.scores.local_activation import LocalActivation, local_activation
from qualitygate.scores.precision import Precision
from qualitygate.scores.screening import Rung, axes_order


class Climb:
    """Some samples on the ladder.

    Args:
        generator: the generator.
        latents: the samples.
        layers: layers whose CLA is estimated, all by the same passes.
        precision: numbers in which the passes run.
    """

    def __init__(self, generator: Generator, latents: Latents, layers: Sequence[int], precision: Precision = "float32") -> None:
        self._generator, self._latents, self._layers, self._precision = generator, latents, tuple(layers), precision
        self._order = axes_order(generator.latent_size)
        self._below: Rung | None = None
        self._sums: dict[int, Tensor] = {}

    def to(self, rung: Rung, progress: Progress = silent) -> dict[int, np.ndarray]:
        """Sample scores over the axes of the next rung, by layer: float64 (N,). On the last rung they are exact."""
        known = self._below.axes if self._below is not None and self._below.points == rung.points else 0
        new = self._order[known : rung.axes]
        local = local_activation(
            self._generator, self._latents, self._layers, axes=new, points=rung.points, precision=self._precision, progress=progress
        )
        sums = {layer: local.curvature[layer] * len(new) for layer in self._layers}
        if known:
            sums = {layer: total + self._sums[layer] for layer, total in sums.items()}
        self._below, self._sums = rung, sums
        mean = {layer: total / rung.axes for layer, total in sums.items()}
        return {layer: score.numpy() for layer, score in LocalActivation(mean, local.activation).score.items()}

    def keep(self, rows: np.ndarray) -> None:
        """Go on with some of the samples only: indices among those that are left."""
        self._latents = self._latents[rows]
        self._sums = {layer: total[rows] for layer, total in self._sums.items()}
