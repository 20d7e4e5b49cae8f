"""Curvature of local activation, exact (Jeong, Han, Choi, AAAI 2022, section 3.1).

Walk from a latent z along each of its axes. For a neuron, the *change points* are where the sign of its activation first changes on
either side (the bound of the search where it does not); the curvature on the axis is the difference of the two secant slopes over the
distance between them, and the curvature of local activation (CLA) is its mean over the axes. Neurons behind artifacts fire only in
a narrow range around the sample, so theirs is strongly concave.

The search is a grid. A pass takes some axes of some samples with all their grid points. What it gives is folded part by part as it comes,
so the activations of the grid never exist all at once. How many axes and samples go together follows from the memory; where that runs out
all the same, half as many do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from qualitygate.errors import InputError
from qualitygate.generators.base import Generator, LayerLike
from qualitygate.generators.passes import LIVE, Progress, free_memory, on_host, scored_pass, silent
from qualitygate.latents import Latents

BOUND = 30.0
"""Half the length of the search range on each axis (the paper's R)."""
DIVISIONS = 20
"""Equal steps over the whole range; half of them on each side. Our reading of "dividing the search range by 20"."""

Precision = Literal["float32", "tf32", "bfloat16"]
"""``float32``: full float32. ``tf32``: products in TensorFloat32 on a GPU that has it; the same as float32 on the CPU.
``bfloat16``: weights and activations in bfloat16, after whatever comes before the first layer. What is read off them is computed
in float32 always."""


@dataclass(frozen=True)
class LocalActivation:
    """Curvature of local activation of some samples.

    Attributes:
        curvature: by layer, float32 (N, units, height, width): CLA of each neuron, negative = concave.
        activation: by layer, float32 (N, units, height, width): the activation at the sample itself.
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

    Raises:
        InputError: parameters out of range, or latents in w.
        LayerError: no such layer.
    """
    walked = walked_in(generator, precision)
    generator = walked.full
    indices = generator.layer_indices(layers)
    chosen = torch.arange(generator.latent_size) if axes is None else torch.tensor(list(axes), dtype=torch.int64)
    if not len(chosen) or len(chosen.unique()) != len(chosen) or not 0 <= chosen.min() <= chosen.max() < generator.latent_size:
        raise InputError("Not a choice of latent axes", str(chosen.tolist()[:8]), f"different axes in [0, {generator.latent_size})")
    latents = generator.checked(latents)
    if latents.space != "z":
        raise InputError("CLA walks along the axes of z", "latents in w", "latents in z")
    walk = Walk(walked, indices, chosen, grid(bound, divisions, points, generator.device))
    parts = []
    for few in walk.over(latents, memory):
        parts.append(few)
        progress(len(few[0][indices[0]]))
    curvatures, activations = ({index: torch.cat([few[index] for few in side]) for index in indices} for side in zip(*parts, strict=True))
    return LocalActivation(curvatures, activations, precision)


def in_parts(
    generator: Generator, latents: Latents, layers: Iterable[LayerLike], *, precision: Precision = "float32", progress: Progress = silent
) -> Iterator[LocalActivation]:
    """`local_activation` of some samples after the others: the curvature of every neuron of many, (N, …), would not fit in memory."""
    walked = walked_in(generator, precision)
    for start in range(0, len(latents), size := generator.micro_batch):
        yield local_activation(walked, latents[start : start + size], layers, precision=precision, progress=progress)


def walked_in(generator: Generator, precision: Precision) -> Generator:
    """The generator as `local_activation` walks it: the grid in this precision, whichever its images are made in. Whoever calls that more
    than once gives it this one, so that weights are copied once. Raises `InputError` if there is no such precision, or the network does not
    run in it."""
    if precision not in get_args(Precision):
        raise InputError("No such precision", repr(precision), f"one of {', '.join(get_args(Precision))}")
    return generator.at(precision)


def grid(bound: float, divisions: int, points: Sequence[int] | None, device: torch.device) -> Tensor:
    """Where an axis is walked, of ``divisions`` steps over ``[−bound, bound]``, or some of its points, counted in steps from the sample:
    float32 (2, points), distances from the sample on one side, then the other, from the bound inwards."""
    if not bound > 0 or divisions < 2 or divisions % 2:
        raise InputError(
            "The search range cannot be divided so",
            f"bound {bound}, divisions {divisions}",
            "a positive bound and an even number of divisions, at least 2",
        )
    steps = divisions // 2
    walked = sorted(range(1, steps + 1) if points is None else points, reverse=True)
    if not walked or walked[0] != steps or walked[-1] < 1 or len({*walked}) != len(walked):
        raise InputError("Not a choice of grid points", str(list(points or ())), f"different steps in [1, {steps}], {steps} included")
    one_side = torch.tensor([bound * step / steps for step in walked], device=device)
    return torch.stack((one_side, -one_side))


def curvature(along: Tensor, start: Tensor, distances: Tensor) -> Tensor:
    """Curvature of neurons on their axes, float32 (N, A, …): the difference of the secant slopes to the change points of either side, over
    their distance. From their activations ``along`` A axes (2, P, N, A, …), and at the samples, float32 (N, …)."""
    start = start[:, None]
    turn = _change_points(along, ~(start <= 0))
    value = along.gather(1, turn).squeeze(1).float()
    at = torch.stack([side[index] for side, index in zip(distances, turn.squeeze(1), strict=True)])
    slope = value.sub_(start).div_(at)
    return slope[0].sub_(slope[1]).div_(at[0].sub_(at[1]))


def _change_points(along: Tensor, positive: Tensor) -> Tensor:
    """Which point of each side (2, 1, N, A, …) is the nearest with another sign; the bound where there is none."""
    # NaN counts as positive. Comparing floats is not vectorised on the CPU: there two other passes are faster than the one
    changed = (along <= 0).bitwise_xor_(~positive) if along.is_cuda else F.relu(along).bool().bitwise_xor_(positive)
    # nearer points have larger numbers, so the nearest change is a maximum of small integers, and no change is the bound's 0
    smallest = torch.uint8 if along.shape[1] <= 256 else torch.int32
    numbers = torch.arange(along.shape[1], dtype=smallest, device=along.device)
    return changed.view(torch.uint8).mul(numbers.view(-1, *[1] * (along.ndim - 2))).amax(1, keepdim=True).long()


_CPU_MEMORY = 2**30  # bytes a walk on the CPU may use unless told otherwise
_CPU_ROWS, _GPU_ROWS = 2000, 2**14  # in a pass: enough for products at their full rate


@dataclass(frozen=True)
class Walk:
    """What stays the same in all passes: who runs them; the same generator in float32 gives the moved latents, and the activations at the
    samples; the mean is over ``axes``, int64 (A,), with the `grid` on each of them."""

    walked: Generator
    layers: tuple[int, ...]
    axes: Tensor
    distances: Tensor

    def over(self, latents: Latents, memory: int | None) -> Iterator[tuple[dict[int, Tensor], dict[int, Tensor]]]:
        """Mean curvature and activation of each neuron by layer, float32 (n, units, height, width) on the CPU, of a few samples at a time.
        They use so many bytes of memory, see `local_activation`."""
        rays, done = self._rays(memory), 0
        while done < len(latents):
            few = latents[done : done + max(1, rays // len(self.axes))]
            try:
                result = self._of_few(few.to(self.walked.device), rays)
            except (RuntimeError, MemoryError) as error:
                rays = min(rays, len(few) * len(self.axes)) // 2
                no_memory = isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
                if not rays or not no_memory:
                    raise
                continue
            yield result
            done += len(few)

    def _rays(self, memory: int | None) -> int:
        """How many axes, of one or more samples, go into a pass."""
        device = self.walked.device
        widest = max(layer.neurons for layer in self.walked.layers[: max(self.layers) + 1])
        each = LIVE * widest * self.walked.begun_in.itemsize
        if memory is None:
            memory = free_memory(device) // 2 if device.type == "cuda" else _CPU_MEMORY
        rows = memory // each
        return max(1, min(rows, _CPU_ROWS if device.type == "cpu" else _GPU_ROWS) // self.distances.numel())

    def _of_few(self, latents: Latents, rays: int) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """Axes that cannot reach a layer add exactly 0 there: they are not walked, and still counted in the mean."""
        generator = self.walked.full
        with scored_pass():
            states = generator.states(generator.begin(latents), max(self.layers))
            at_sample = {state.layer: state.activation for state in states if state.layer in self.layers}
        reaching = self.axes[torch.isin(self.axes, torch.tensor(generator.axes_reaching(max(self.layers))))]
        total = {index: torch.zeros_like(activation) for index, activation in at_sample.items()}
        with self.walked.scored_pass():
            for axes in reaching.to(generator.device).split(max(1, rays // len(latents))):
                for index, summed in self._one_pass(latents, at_sample, axes).items():
                    total[index] += summed
        mean = {index: on_host(summed / len(self.axes)).contiguous() for index, summed in total.items()}
        return mean, {index: on_host(activation).contiguous() for index, activation in at_sample.items()}

    def _one_pass(self, latents: Latents, at_sample: Mapping[int, Tensor], axes: Tensor) -> dict[int, Tensor]:
        """Sum over some axes of the curvature of every neuron by layer: float32 (n, units, height, width)."""
        shape = (*self.distances.shape, len(latents), len(axes))
        start = {index: activation.flatten(2).transpose(1, 2).contiguous() for index, activation in at_sample.items()}
        total = {index: torch.empty_like(activation) for index, activation in start.items()}
        begun = self.walked.begun(self.walked.full.begin_moved(latents, axes, self.distances.flatten()))
        for layer, positions, activation in self.walked.parts(begun, max(self.layers)):
            if layer in start:
                along, here = activation.unflatten(0, shape), start[layer][:, positions]
                total[layer][:, positions] = curvature(along, here, self.distances).sum(dim=1)
        return {index: summed.transpose(1, 2).view_as(at_sample[index]) for index, summed in total.items()}
