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
from qualitygate.generators.base import Generator
from qualitygate.generators.passes import Progress, scored_pass, silent
from qualitygate.latents import Latents
from qualitygate.records.dynamics import AxisPattern, Neuron, PatternColumn, PlanePattern, secants
from qualitygate.scores.local_activation import BOUND, DIVISIONS, local_activation
from qualitygate.studies.dynamics.measure import Scores, Settings, fixed_latents, rising_units

FINER = 3
"""Points drawn for each step of the curvature's grid."""
_BATCH = 256  # latents in one pass


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
    """A neuron's activation along axes of z.

    Args:
        generator: the generator.
        latents: one sample, in z.
        neuron: whose activation.
        axes: axes of z; default: all.
        bound, divisions: the grid of the curvature, as in `local_activation`.
        progress: called with the number of axes that are done.

    Raises:
        InputError: more than one sample, latents in w, or no such neuron.
    """
    _check(generator, latents, neuron)
    chosen = np.arange(generator.latent_size) if axes is None else np.asarray(axes, dtype=np.int64)
    offsets = _offsets(bound, divisions)
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
    _check(generator, latents, neuron)
    with scored_pass():
        return generator.run(generator.start(latents), neuron.layer).activation[0, neuron.unit].cpu().numpy()


def _offsets(bound: float, divisions: int) -> np.ndarray:
    if not bound > 0 or divisions < 2 or divisions % 2:
        raise InputError(
            "The search range cannot be divided so",
            f"bound {bound}, divisions {divisions}",
            "a positive bound and an even number of divisions, at least 2",
        )
    half = np.arange(1, divisions // 2 * FINER + 1) * (bound / (divisions // 2 * FINER))
    return np.concatenate((-half[::-1], [0.0], half))


def _read(generator: Generator, latents: Latents, neuron: Neuron, moves: Tensor) -> np.ndarray:
    """The neuron's activation at the latent moved by each row (M, D)."""
    values = []
    with scored_pass():
        for part in moves.split(_BATCH):
            rows = latents[np.zeros(len(part), dtype=np.int64)]
            state = generator.run(generator.start(replace(rows, z=rows.z + part)), neuron.layer)
            values.append(state.activation[:, neuron.unit, neuron.y, neuron.x].cpu())
    return torch.cat(values).numpy()


def _check(generator: Generator, latents: Latents, neuron: Neuron) -> None:
    if len(latents) != 1 or latents.space != "z":
        raise InputError("A pattern is of one sample in z", f"{len(latents)} latents in {latents.space}", "one, in z")
    layer = generator.layer(neuron.layer)
    inside = (range(layer.units), range(layer.height), range(layer.width))
    if any(place not in size for place, size in zip((neuron.unit, neuron.y, neuron.x), inside, strict=True)):
        raise InputError("There is no such neuron", str(neuron), f"{layer.units} units of {layer.resolution}")


@dataclass(frozen=True)
class Subject:
    """What is followed: a neuron, for one of the fixed latents, over the plane of two axes."""

    sample: int
    neuron: Neuron
    axes: tuple[int, int]


def find_subject(
    generator: Generator, course: Sequence[Scores], settings: Settings, layer: int | None = None, unit: int | None = None
) -> Subject:
    """The unit whose CLA rose most (or the one that is given), the sample and position where it is greatest in the last snapshot,
    and the two axes on which the pattern there is most local.

    Args:
        generator: of the last snapshot.
        course: the scores of the snapshots; the last one is the generator's.
        settings: that they were scored with.
        layer, unit: the unit to follow; default: found.

    Raises:
        InputError: CLA of the layer is not known, or it has no such unit.
    """
    last = course[-1]
    layer = max(last.unit_cla) if layer is None else layer
    if layer not in last.unit_cla:
        raise InputError("CLA of this layer was not scored", f"layer {layer}", f"one of {sorted(last.unit_cla)}")
    if unit is None:
        unit = rising_units(course, layer, 1)[0][0]
    of_samples = last.unit_cla[layer]
    _check_unit(unit, of_samples.shape[1])
    sample = int(of_samples[:, unit].argmax())
    latents = fixed_latents(generator, settings)[[sample]]
    neuron = greatest_neuron(generator, latents, layer, unit, settings.chosen_axes(generator.latent_size))
    axes = axis_pattern(generator, latents, neuron).by_local_activation().axes
    return Subject(sample, neuron, (int(axes[0]), int(axes[1])))


def greatest_neuron(
    generator: Generator, latents: Latents, layer: int, unit: int | None = None, axes: Sequence[int] | None = None
) -> Neuron:
    """The neuron of a layer, or of one of its units, with the greatest part in the CLA of one sample.

    Args:
        axes: of z, that CLA is averaged over; default: all.

    Raises:
        InputError: the layer has no such unit.
    """
    parts = local_activation(generator, latents, [layer], axes=axes).neuron_score(layer)[0]
    _check_unit(unit, len(parts))
    if unit is not None:
        parts = torch.where(torch.arange(len(parts))[:, None, None] == unit, parts, -1.0)
    place = np.unravel_index(int(parts.argmax()), parts.shape)
    return Neuron(layer, int(place[0]), int(place[1]), int(place[2]))


def _check_unit(unit: int | None, units: int) -> None:
    if unit is not None and not 0 <= unit < units:
        raise InputError("The layer has no such unit", f"unit {unit}", f"0 … {units - 1}")


def pattern_column(generator: Generator, subject: Subject, settings: Settings, title: str) -> PatternColumn:
    """What the figure shows of one snapshot.

    Raises:
        InputError: the snapshot does not have the neuron.
    """
    latents = fixed_latents(generator, settings)[[subject.sample]]
    plane = plane_pattern(generator, latents, subject.neuron, subject.axes)
    layer = subject.neuron.layer
    axes = settings.chosen_axes(generator.latent_size)
    parts = local_activation(generator, latents, [layer], axes=axes).neuron_score(layer)
    return PatternColumn(title, plane.values, image_of(generator, latents), parts[0, subject.neuron.unit].numpy())


def image_of(generator: Generator, latents: Latents) -> np.ndarray:
    """The image of one sample, uint8 (height, width, channels)."""
    with scored_pass():
        return storage.to_uint8(generator(latents)[0].cpu().numpy())
