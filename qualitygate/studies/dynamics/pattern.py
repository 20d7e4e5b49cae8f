"""The activation of one neuron around one latent: along every axis, and over a plane of two (Jeong et al. 2022, figures 1, 2, 4).

The grid of the curvature (section 3.1) is part of ours, so change points and curvature are the very ones of the score; the
points between only make the drawing finer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from qualitygate.errors import InputError
from qualitygate.generators.base import Generator
from qualitygate.generators.passes import Progress, scored_pass, silent
from qualitygate.latents import Latents
from qualitygate.records.patterns import AxisPattern, Neuron, PlanePattern, secants
from qualitygate.scores.local_activation import BOUND, DIVISIONS

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
