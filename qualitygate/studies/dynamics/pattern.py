"""The activation of one neuron around one latent: along every axis, and over a plane of two (Jeong et al. 2022, figures 1, 2, 4).

The grid of the curvature (section 3.1) is part of ours, so change points and curvature are the very ones of the score; the
points between only make the drawing finer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from qualitygate import storage
from qualitygate.errors import InputError
from qualitygate.gating.exhibit import render
from qualitygate.generators.base import Generator, sample_latents
from qualitygate.generators.passes import Progress, Reporter, on_host, silent
from qualitygate.latents import Latents
from qualitygate.records.dynamics import AxisPattern, Neuron, PatternColumn, PlanePattern
from qualitygate.reports.dynamics_figures import pattern_figure
from qualitygate.scores.local_activation import BOUND, DIVISIONS, local_activation
from qualitygate.studies.dynamics import PatternRequest, ScoringSettings
from qualitygate.studies.dynamics.measure import SnapshotScores, rising_units

FINER = 3
"""Points drawn for each step of the curvature's grid."""


def axis_pattern(
    generator: Generator,
    latents: Latents,
    neuron: Neuron,
    *,
    axes: Sequence[int] | None = None,
    bound: float = BOUND,
    divisions: int = DIVISIONS,
    progress: Progress = silent,
) -> AxisPattern:
    """A neuron's activation along axes of z (default: all), at one sample in z; bound and divisions are those of `local_activation`. Raises
    `InputError` for more than one sample, latents in w, no such neuron, or a grid that cannot be."""
    if len(latents) != 1 or latents.space != "z":
        raise InputError("A pattern is of one sample in z", f"{len(latents)} latents in {latents.space}", "one, in z")
    layer = generator.layer(neuron.layer)
    inside = (range(layer.units), range(layer.height), range(layer.width))
    if any(place not in size for place, size in zip((neuron.unit, neuron.y, neuron.x), inside, strict=True)):
        raise InputError("There is no such neuron", str(neuron), f"{layer.units} units of {layer.resolution}")
    if not bound > 0 or divisions < 2 or divisions % 2:
        needed = "a positive bound and an even number of divisions, at least 2"
        raise InputError("The search range cannot be divided so", f"bound {bound}, divisions {divisions}", needed)
    half = np.arange(1, divisions // 2 * FINER + 1) * (bound / (divisions // 2 * FINER))
    offsets = np.concatenate((-half[::-1], [0.0], half))
    chosen = np.arange(generator.latent_size) if axes is None else np.asarray(axes, dtype=np.int64)
    steps = torch.from_numpy(offsets).float()
    rows = []
    for axis in chosen:
        moves = torch.zeros(len(steps), generator.latent_size)
        moves[:, axis] = steps
        rows.append(_read(generator, latents, neuron, moves))
        progress(1)
    values = np.stack(rows)
    return AxisPattern(chosen, offsets, values, *secants(values[:, ::FINER].astype(np.float64), offsets[::FINER]))


def plane_pattern(
    generator: Generator, latents: Latents, neuron: Neuron, axes: tuple[int, int], *, bound: float = BOUND, divisions: int = DIVISIONS
) -> PlanePattern:
    """A neuron's activation over the plane of two axes of z through the sample; arguments as of `axis_pattern`."""
    along = axis_pattern(generator, latents, neuron, axes=axes, bound=bound, divisions=divisions)
    offsets = torch.from_numpy(along.offsets).float()
    moves = torch.zeros(len(offsets) ** 2, generator.latent_size)
    moves[:, axes[0]] = offsets.repeat_interleave(len(offsets))
    moves[:, axes[1]] += offsets.repeat(len(offsets))
    values = _read(generator, latents, neuron, moves)
    return PlanePattern(along, values.reshape(len(offsets), len(offsets)))


def unit_activation(generator: Generator, latents: Latents, neuron: Neuron) -> np.ndarray:
    """Activation of the neuron's whole unit at one sample, float32 (height, width)."""
    ((_, _, activation),) = generator.activations(latents, [neuron.layer])
    return on_host(activation[0, neuron.unit].float()).numpy()


def _read(generator: Generator, latents: Latents, neuron: Neuron, moves: Tensor) -> np.ndarray:
    """The neuron's activation at the latent moved by each row (M, D)."""
    moved = latents[np.zeros(len(moves), dtype=np.int64)]
    passes = generator.activations(replace(moved, z=moved.z + moves), [neuron.layer])
    return torch.cat([on_host(activation[:, neuron.unit, neuron.y, neuron.x].float()) for _, _, activation in passes]).numpy()


@dataclass(frozen=True)
class TrackedNeuron:
    """What is followed through the snapshots (section 3.2): a neuron, for one of the fixed latents, over the plane of two axes."""

    sample: int
    neuron: Neuron
    axes: tuple[int, int]


def find_neuron(
    generator: Generator, scores: Sequence[SnapshotScores], settings: ScoringSettings, layer: int | None = None, unit: int | None = None
) -> TrackedNeuron:
    """The unit whose CLA rose most (or the one that is given), the sample and position where it is greatest in the last snapshot, which is
    the generator's, and the two axes on which the pattern there is most local. Raises `InputError` if CLA of the layer is not known, or if
    it has no such unit."""
    last = scores[-1].unit_cla
    layer = max(last) if layer is None else layer
    if layer not in last:
        raise InputError("CLA of this layer was not scored", f"layer {layer}", f"one of {sorted(last)}")
    unit = rising_units(scores, layer, 1)[0][0] if unit is None else unit
    _check_unit(unit, last[layer].shape[1])
    sample = int(last[layer][:, unit].argmax())
    latents = sample_latents(generator, [sample], settings.seed)
    neuron = greatest_neuron(generator, latents, layer, unit, settings.chosen_axes(generator.latent_size))
    axes = axis_pattern(generator, latents, neuron).by_local_activation().axes
    return TrackedNeuron(sample, neuron, (int(axes[0]), int(axes[1])))


def greatest_neuron(
    generator: Generator, latents: Latents, layer: int, unit: int | None = None, axes: Sequence[int] | None = None
) -> Neuron:
    """The neuron of a layer, or of one of its units, with the greatest part in the CLA of one sample, over all axes of z or some."""
    parts = local_activation(generator, latents, [layer], axes=axes).neuron_score(layer)[0]
    if unit is not None:
        _check_unit(unit, len(parts))
        parts = torch.where(torch.arange(len(parts))[:, None, None] == unit, parts, -1.0)
    return Neuron(layer, *map(int, np.unravel_index(int(parts.argmax()), parts.shape)))


def _check_unit(unit: int, units: int) -> None:
    if not 0 <= unit < units:
        raise InputError("The layer has no such unit", f"unit {unit}", f"0 … {units - 1}")


def pattern_column(generator: Generator, tracked: TrackedNeuron, settings: ScoringSettings, title: str) -> PatternColumn:
    """What the figure shows of one snapshot. Raises `InputError` where it does not have the neuron."""
    latents, layer = sample_latents(generator, [tracked.sample], settings.seed), tracked.neuron.layer
    plane = plane_pattern(generator, latents, tracked.neuron, tracked.axes)
    local = local_activation(generator, latents, [layer], axes=settings.chosen_axes(generator.latent_size))
    (image,) = render(generator, latents)
    return PatternColumn(title, plane.values, image, local.neuron_score(layer)[0, tracked.neuron.unit].numpy())


@dataclass(frozen=True)
class PatternResult:
    """What was drawn: the neuron, its activation along every axis of z (the most local first), and the two axes of the surface."""

    title: str
    neuron: Neuron
    along: AxisPattern
    axes: tuple[int, int]


def run(request: PatternRequest, reporter: Reporter | None = None) -> PatternResult:
    """Draw a neuron's activation around one sample, as PNG. Raises `InputError` if there is no such neuron, or no such axes."""
    reporter = reporter or Reporter()
    generator, _ = request.load_both(reporter)
    latents = sample_latents(generator, [request.sample], request.seed)
    neuron = _neuron(generator, latents, request.at)
    with reporter.phase(str(neuron), generator.latent_size) as progress:
        along = axis_pattern(generator, latents, neuron, progress=progress).by_local_activation()
    axes = request.axes or (int(along.axes[0]), int(along.axes[1]))
    surface = plane_pattern(generator, latents, neuron, axes)
    title = f"{generator.identity().name}: {neuron}; sample {request.sample} of seed {request.seed}"
    (image,) = render(generator, latents)
    unit = unit_activation(generator, latents, neuron)
    storage.write_bytes(request.out, pattern_figure(image, unit, neuron, along, surface, title))
    return PatternResult(title, neuron, along, axes)


def _neuron(generator: Generator, latents: Latents, text: str | None) -> Neuron:
    """The neuron that was asked for; what was left open is where its CLA is greatest."""
    parts = [] if text is None else text.split("/")
    layer = generator.layer(parts[0]).index if parts else generator.presets.curvature[0]
    rest = parts[1:]
    if len(rest) not in (0, 1, 3) or not all(part.isdigit() for part in rest):
        raise InputError("This is no neuron", repr(text), "LAYER, LAYER/UNIT or LAYER/UNIT/Y/X, for example --at 3/11/6/6")
    if len(rest) == 3:
        return Neuron(layer, *map(int, rest))
    return greatest_neuron(generator, latents, layer, int(rest[0]) if rest else None)


def secants(values: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Left and right change point, curvature ``C``, and the slope ``b`` of ``h(r) = h(0) + b·r + C·r²``, each (A,) (definitions 1 and 2),
    of rows of values (A, P) over the grid ``offsets`` (P,)."""
    middle = len(offsets) // 2
    start = values[:, middle]
    changed = (values > 0) != (start > 0)[:, None]
    right = middle + _first(changed[:, middle + 1 :])
    left = middle - _first(changed[:, middle - 1 :: -1])
    rows = np.arange(len(values))
    right_at, left_at = offsets[right], offsets[left]
    right_slope = (values[rows, right] - start) / right_at
    left_slope = (values[rows, left] - start) / left_at
    curvature = (right_slope - left_slope) / (right_at - left_at)
    return left_at, right_at, curvature, right_slope - curvature * right_at


def _first(changed: np.ndarray) -> np.ndarray:
    """Steps to the first change in each row; to the bound where there is none."""
    return np.where(changed.any(axis=1), changed.argmax(axis=1) + 1, changed.shape[1])
