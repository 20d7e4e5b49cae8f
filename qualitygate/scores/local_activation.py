"""Curvature of local activation, exact (Jeong, Han, Choi, AAAI 2022, section 3.1).

Walk from a latent z along each of its axes. For a neuron, the *change points* are where the sign of its activation first changes on
either side (the bound of the search where it does not); the curvature on the axis is the difference of the two secant slopes over the
distance between them, and the curvature of local activation (CLA) is its mean over the axes. Neurons behind artifacts fire only in
a narrow range around the sample, so theirs is strongly concave.

The search is a grid. All axes of one or more samples are one batch, and the grid points are walked from the bound inwards: whatever
sign change was seen last is the nearest, so the running state is one value and one distance a side, and the activations of the grid
never exist all at once. One walk serves all layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qualitygate.errors import InputError
from qualitygate.generators.base import Generator, LayerLike
from qualitygate.generators.execution import Progress, read_layers, scored_pass, silent
from qualitygate.latents import Latents
from qualitygate.scores.precision import Passes, Precision

BOUND = 30.0
"""Half the length of the search range on each axis (the paper's R)."""
DIVISIONS = 20
"""Equal steps over the whole range; half of them on each side. Our reading of "dividing the search range by 20"."""

_LIVE = 10  # float32 copies of a layer's activation that a walk holds at its peak, the pass's own buffers included
_MEMORY = 2**28  # bytes a walk on the CPU may use unless told otherwise


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
    latents: Latents,
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
        latents: N samples.
        layers: layers to score, all in one walk over the grid.
        bound: half the search range, in units of the latent; the paper's R = 30.
        divisions: equal steps over the whole range, an even number; the paper's 20.
        axes: latent axes to average over; by default all. A subset is an estimate, not the exact score.
        points: grid steps from the sample that are walked on either side, in ``1 … divisions / 2``, the last of them included; by
            default all. A subset is an estimate: the change point is the first of these points with another sign.
        precision: numbers in which the passes over the grid run; those at the samples themselves are in float32 always.
        memory: bytes that the walk may use, at least one ray at a time; by default a share of what is free on the generator's device.
            Where it runs out nevertheless, the batch is halved.
        progress: called with the number of samples finished.

    Raises:
        InputError: parameters out of range, or latents in w.
        LayerError: no such layer.
    """
    indices = generator.layer_indices(layers)
    chosen = _checked_axes(generator, axes)
    if latents.space != "z":
        raise InputError("CLA walks along the axes of z", "latents in w", "latents in z")
    grid = _grid(bound, divisions, points)
    passes = Passes(generator, precision)
    memory = _share_of_free(generator.device) if memory is None else memory
    rays = max(1, memory // (4 * _LIVE * max(layer.neurons for layer in generator.layers[: max(indices) + 1])))
    parts: list[LocalActivation] = []
    for rows in _split(len(latents), max(1, rays // len(chosen))):
        samples = generator.checked(latents[rows]).to(generator.device)
        parts.append(_walk(generator, passes, samples, indices, chosen, grid, rays))
        progress(len(samples))
    return LocalActivation(
        {index: torch.cat([part.curvature[index] for part in parts]) for index in indices},
        {index: torch.cat([part.activation[index] for part in parts]) for index in indices},
        precision,
    )


def _walk(generator: Generator, passes: Passes, latents: Latents, indices: Sequence[int], axes: Tensor, grid: Sequence[float], rays: int
          ) -> LocalActivation:  # fmt: skip
    """CLA of a few samples: the axes of all of them in batches of at most ``rays``. Axes that cannot reach a layer add exactly 0 there:
    they are not walked, and still counted in the mean."""
    samples = len(latents)
    reaching = torch.tensor(generator.axes_reaching(max(indices)), device=axes.device)
    walked = axes[torch.isin(axes, reaching)]
    with scored_pass():
        at_sample = dict(read_layers(generator, latents, indices))
    total = {index: torch.zeros_like(activation) for index, activation in at_sample.items()}
    with passes.running():
        for part in _split(len(walked), max(1, rays // samples)):
            for index, curvature in _curvature(generator, passes, latents, at_sample, walked[part], grid).items():
                total[index] += curvature.unflatten(0, (samples, -1)).sum(dim=1)
    return LocalActivation(
        {index: (curvature / len(axes)).cpu().contiguous() for index, curvature in total.items()},
        {index: activation.cpu().contiguous() for index, activation in at_sample.items()},
        passes.precision,
    )


def _curvature(generator: Generator, passes: Passes, latents: Latents, at_sample: dict[int, Tensor], axes: Tensor, grid: Sequence[float]
               ) -> dict[int, Tensor]:  # fmt: skip
    """Curvature on each axis by layer: (samples · axes, units, height, width)."""
    start = {index: activation.repeat_interleave(len(axes), dim=0) for index, activation in at_sample.items()}
    positive = {index: activation > 0 for index, activation in start.items()}
    sides = [{index: _Side(positive[index]) for index in start} for _ in range(2)]
    for turn, distance in enumerate(grid):
        for side, sign in zip(sides, (1.0, -1.0), strict=True):
            moved = generator.begin_moved(latents, axes, torch.tensor([sign * distance], device=axes.device))
            for state in passes.states(moved, max(start)):
                if state.layer in start:
                    side[state.layer].see(state.activation.float(), turn)
    right, left = sides
    at = torch.tensor(grid, device=axes.device)
    return {
        index: _secants(start[index], right[index].value, right[index].distance(at),
                        left[index].value, -left[index].distance(at))
        for index in start
    }  # fmt: skip


def _grid(bound: float, divisions: int, points: Sequence[int] | None) -> tuple[float, ...]:
    """Distances that are walked on either side, from the bound inwards."""
    if not bound > 0 or divisions < 2 or divisions % 2:
        raise InputError("The search range cannot be divided so", f"bound {bound}, divisions {divisions}",
                         "a positive bound and an even number of divisions, at least 2")  # fmt: skip
    steps = divisions // 2
    walked = sorted(range(1, steps + 1) if points is None else points, reverse=True)
    if len({*walked}) != len(walked) or not walked or walked[0] != steps or walked[-1] < 1:
        raise InputError(
            "Not a choice of grid points", str(list(points or ())), f"different steps in [1, {steps}], {steps} included"
        )
    return tuple(bound * step / steps for step in walked)


def _share_of_free(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else _MEMORY


class _Side:
    """The nearest change point seen so far on one side of the samples, while the grid is walked from the bound inwards."""

    value: Tensor
    _turn: Tensor

    def __init__(self, positive: Tensor) -> None:
        self._positive = positive

    def see(self, activation: Tensor, turn: int) -> None:
        if turn == 0:  # the bound stands where no sign changes
            self.value, self._turn = activation, torch.zeros_like(activation, dtype=torch.int16)
            return
        changed = (activation > 0).bitwise_xor_(self._positive)
        torch.where(changed, activation, self.value, out=self.value)
        # later turns are nearer: a maximum of small integers in place of a second choice between floats
        torch.maximum(self._turn, changed.to(torch.int16).mul_(turn), out=self._turn)

    def distance(self, grid: Tensor) -> Tensor:
        """Distance from the sample to the change point, of the distances in the order they were walked."""
        return grid[self._turn.int()]


def _secants(start: Tensor, right: Tensor, right_at: Tensor, left: Tensor, left_at: Tensor) -> Tensor:
    # in place: at this size allocating costs as much as computing
    right_slope = right.sub_(start).div_(right_at)
    left_slope = left.sub_(start).div_(left_at)
    return right_slope.sub_(left_slope).div_(right_at.sub_(left_at))


def _checked_axes(generator: Generator, axes: Sequence[int] | None) -> Tensor:
    chosen = torch.arange(generator.latent_size) if axes is None else torch.tensor(list(axes), dtype=torch.int64)
    if (
        not len(chosen)
        or len(chosen.unique()) != len(chosen)
        or not (0 <= int(chosen.min()) <= int(chosen.max()) < generator.latent_size)
    ):
        raise InputError(
            "Not a choice of latent axes", str(chosen.tolist()[:8]), f"different axes in [0, {generator.latent_size})"
        )
    return chosen.to(generator.device)


def _split(length: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, length)) for start in range(0, length, size))
