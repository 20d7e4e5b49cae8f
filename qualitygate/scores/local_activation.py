"""Curvature of local activation, exact (Jeong, Han, Choi, AAAI 2022, section 3.1).

Walk from a latent z along each of its axes. For a neuron, the *change points* are where the sign of its activation first changes on
either side (the bound of the search where it does not); the curvature on the axis is the difference of the two secant slopes over the
distance between them, and the curvature of local activation (CLA) is its mean over the axes. Neurons behind artifacts fire only in
a narrow range around the sample, so theirs is strongly concave.

The search is a grid. One walk over it serves all layers; see `qualitygate.scores.walk`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qualitygate.errors import InputError
from qualitygate.generators.base import Generator, LayerLike
from qualitygate.generators.passes import MICRO_BATCH, Progress, silent
from qualitygate.latents import Latents
from qualitygate.scores.walk import Grid, Passes, Precision, Walk

BOUND = 30.0
"""Half the length of the search range on each axis (the paper's R)."""
DIVISIONS = 20
"""Equal steps over the whole range; half of them on each side. Our reading of "dividing the search range by 20"."""


@dataclass(frozen=True)
class LocalActivation:
    """Curvature of local activation of some samples.

    Attributes:
        curvature: by layer, float32 (N, units, height, width): CLA of each neuron, negative = concave.
        activation: by layer, float32 (N, units, height, width): the activation at the sample itself.
        precision: numbers in which the passes over the grid ran.
    """

    curvature: dict[int, Tensor]
    activation: dict[int, Tensor]
    precision: Precision = "float32"

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(sorted(self.curvature))

    @property
    def score(self) -> dict[int, Tensor]:
        """Score of each sample by layer, float64 (N,), higher = worse (equation 3): concavity of positive activations plus convexity of
        negative ones, summed over neurons."""
        return {layer: self.neuron_score(layer).double().sum(dim=(1, 2, 3)) for layer in self.layers}

    @property
    def unit_score(self) -> dict[int, Tensor]:
        """Score of each unit by layer, float64 (N, units): the mean of the neurons' parts over positions. The paper says "average
        CLA"; a plain mean would rank concave units last."""
        return {layer: self.neuron_score(layer).double().mean(dim=(2, 3)) for layer in self.layers}

    @property
    def unit_curvature(self) -> dict[int, Tensor]:
        """Plain mean of the curvature over positions by layer, float64 (N, units)."""
        return {layer: self.curvature[layer].double().mean(dim=(2, 3)) for layer in self.layers}

    def neuron_score(self, layer: int) -> Tensor:
        """Each neuron's part of the sample score, float32 (N, units, height, width), at least 0."""
        curvature, activation = self.curvature[layer], self.activation[layer]
        concave = -curvature.clamp(max=0) * (activation > 0)
        convex = curvature.clamp(min=0) * (activation < 0)
        return concave + convex


def local_activation(
    generator: Generator,
    latents: Latents | Tensor,
    layers: Iterable[LayerLike],
    *,
    bound: float = BOUND,
    divisions: int = DIVISIONS,
    axes: Sequence[int] | None = None,
    points: Sequence[int] | None = None,
    precision: Precision = "float32",
    memory: int | None = None,
    progress: Progress = silent,
) -> LocalActivation:
    """Curvature of local activation of every neuron of the given layers: exact unless axes or points are left out.

    The perturbed latent goes through everything that the latent goes through (normalisation, mapping). Labels stay fixed. Where the
    generator's activations are not finite, neither are curvature and score; the gate rejects such a sample.

    Args:
        generator: the generator.
        latents: N samples, or a bare z (N, D).
        layers: layers to score, all in one walk over the grid.
        bound: half the search range, in units of the latent; the paper's R = 30.
        divisions: equal steps over the whole range, an even number; the paper's 20.
        axes: latent axes to average over; by default all. A subset is an estimate, not the exact score.
        points: grid steps from the sample that are walked on either side, in ``1 … divisions / 2``, the last of them included; by
            default all. A subset is an estimate: the change point is the first of these points with another sign.
        precision: numbers in which the passes over the grid run; those at the samples themselves are in float32 always.
        memory: bytes that the walk may use, for at least one axis of one sample; by default half of what is free on a GPU, and a
            gigabyte on the CPU. Where it runs out nevertheless, the batch is halved.
        progress: called with the number of samples finished.

    Raises:
        InputError: parameters out of range, or latents in w.
        LayerError: no such layer.
    """
    indices = generator.layer_indices(layers)
    chosen = _checked_axes(generator, axes)
    latents = generator.checked(latents)
    if latents.space != "z":
        raise InputError("CLA walks along the axes of z", "latents in w", "latents in z")
    walk = Walk(generator, Passes(generator, precision), indices, chosen, Grid.of(bound, divisions, points))
    parts = []
    for curvature, activation in walk.over(latents, memory):
        parts.append((curvature, activation))
        progress(len(curvature[indices[0]]))
    curvatures, activations = (
        {index: torch.cat([of_few[index] for of_few in side]) for index in indices} for side in zip(*parts, strict=True)
    )
    return LocalActivation(curvatures, activations, precision)


def in_parts(
    generator: Generator, latents: Latents, layers: Iterable[LayerLike], *, precision: Precision = "float32", progress: Progress = silent
) -> Iterator[LocalActivation]:
    """`local_activation` of some samples after the others: the curvature of every neuron of many, (N, …), would not fit in memory."""
    for start in range(0, len(latents), MICRO_BATCH):
        yield local_activation(generator, latents[start : start + MICRO_BATCH], layers, precision=precision, progress=progress)


def _checked_axes(generator: Generator, axes: Sequence[int] | None) -> Tensor:
    chosen = torch.arange(generator.latent_size) if axes is None else torch.tensor(list(axes), dtype=torch.int64)
    if not len(chosen) or len(chosen.unique()) != len(chosen) or not (0 <= int(chosen.min()) <= int(chosen.max()) < generator.latent_size):
        raise InputError("Not a choice of latent axes", str(chosen.tolist()[:8]), f"different axes in [0, {generator.latent_size})")
    return chosen.to(generator.device)
