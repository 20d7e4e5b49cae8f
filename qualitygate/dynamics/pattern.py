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

from qualitygate.errors import InputError
from qualitygate.generators.base import Generator
from qualitygate.generators.execution import Progress, scored_pass, silent
from qualitygate.latents import Latents
from qualitygate.scores.local_activation import BOUND, DIVISIONS

FINER = 3
"""Points drawn for each step of the curvature's grid."""
_BATCH = 256  # latents in one pass


@dataclass(frozen=True)
class Neuron:
    """One value of one layer."""

    layer: int
    unit: int
    y: int
    x: int

    def __str__(self) -> str:
        return f"layer {self.layer}, unit {self.unit}, ({self.y}, {self.x})"


@dataclass(frozen=True)
class AxisPattern:
    """A neuron's activation along axes of z.

    Attributes:
        axes: the axes, int64 (A,).
        offsets: r, float64 (P,), from −bound to bound, 0 in the middle.
        values: activation at ``z + r·e_d``, float32 (A, P).
        left, right: change points ``l_p ≤ 0 ≤ r_p`` of each axis, float64 (A,).
        curvature: of each axis, float64 (A,); its mean over all axes is the neuron's CLA.
        slope: coefficient of the first degree of each axis's parabola, float64 (A,).
    """

    axes: np.ndarray
    offsets: np.ndarray
    values: np.ndarray
    left: np.ndarray
    right: np.ndarray
    curvature: np.ndarray
    slope: np.ndarray

    @property
    def at_sample(self) -> float:
        """The activation at the latent itself."""
        return float(self.values[0, len(self.offsets) // 2])

    def parabola(self, row: int, offsets: np.ndarray) -> np.ndarray:
        """The parabola through the two change points and the sample on the axis of a row."""
        return self.at_sample + self.slope[row] * offsets + self.curvature[row] * offsets**2

    def rows(self, rows: Sequence[int] | np.ndarray) -> AxisPattern:
        """Some of the axes."""
        keep = np.asarray(rows)
        return AxisPattern(self.axes[keep], self.offsets, self.values[keep], self.left[keep], self.right[keep],
                           self.curvature[keep], self.slope[keep])  # fmt: skip

    def by_local_activation(self) -> AxisPattern:
        """The axes with the most local first: concave around a positive activation, convex around a negative one."""
        return self.rows(np.argsort(self.curvature if self.at_sample > 0 else -self.curvature, kind="stable"))


@dataclass(frozen=True)
class PlanePattern:
    """A neuron's activation over two axes.

    Attributes:
        along: both axes by themselves.
        values: float32 (P, P): first axis down, second across, at the offsets of ``along``.
    """

    along: AxisPattern
    values: np.ndarray


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
        progress: called with the number of latents that went through.

    Raises:
        InputError: more than one sample, latents in w, or no such neuron.
    """
    _check(generator, latents, neuron)
    chosen = np.arange(generator.latent_size) if axes is None else np.asarray(axes, dtype=np.int64)
    offsets = _offsets(bound, divisions)
    moves = torch.zeros(len(chosen) * len(offsets), generator.latent_size)
    moves[torch.arange(len(moves)), torch.from_numpy(chosen).repeat_interleave(len(offsets))] = (
        torch.from_numpy(offsets).float().repeat(len(chosen))
    )
    values = _read(generator, latents, neuron, moves, progress).reshape(len(chosen), len(offsets))
    return AxisPattern(chosen, offsets, values, *secants(values[:, ::FINER].astype(np.float64), offsets[::FINER]))


def plane_pattern(
    generator: Generator,
    latents: Latents,
    neuron: Neuron,
    axes: tuple[int, int],
    *,
    bound: float = BOUND,
    divisions: int = DIVISIONS,
    progress: Progress = silent,
) -> PlanePattern:
    """A neuron's activation over the plane of two axes of z through the sample; arguments as of `axis_pattern`."""
    along = axis_pattern(generator, latents, neuron, axes=axes, bound=bound, divisions=divisions)
    offsets = torch.from_numpy(along.offsets).float()
    moves = torch.zeros(len(offsets) ** 2, generator.latent_size)
    moves[:, axes[0]] = offsets.repeat_interleave(len(offsets))
    moves[:, axes[1]] += offsets.repeat(len(offsets))
    values = _read(generator, latents, neuron, moves, progress)
    return PlanePattern(along, values.reshape(len(offsets), len(offsets)))


def secants(values: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Change points, curvature and slope (definitions 1 and 2) of rows of values (A, P) over the grid ``offsets`` (P,).

    Returns:
        left and right change point, curvature ``C``, and the slope ``b`` of ``h(r) = h(0) + b·r + C·r²``: each (A,).
    """
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


def _offsets(bound: float, divisions: int) -> np.ndarray:
    if not bound > 0 or divisions < 2 or divisions % 2:
        raise InputError("The search range cannot be divided so", f"bound {bound}, divisions {divisions}",
                         "a positive bound and an even number of divisions, at least 2")  # fmt: skip
    half = np.arange(1, divisions // 2 * FINER + 1) * (bound / (divisions // 2 * FINER))
    return np.concatenate((-half[::-1], [0.0], half))


def _read(generator: Generator, latents: Latents, neuron: Neuron, moves: Tensor, progress: Progress) -> np.ndarray:
    """The neuron's activation at the latent moved by each row (M, D)."""
    values = []
    with scored_pass():
        for part in moves.split(_BATCH):
            rows = latents[np.zeros(len(part), dtype=np.int64)]
            state = generator.run(generator.start(replace(rows, z=rows.z + part)), neuron.layer)
            values.append(state.activation[:, neuron.unit, neuron.y, neuron.x].cpu())
            progress(len(part))
    return torch.cat(values).numpy()


def _check(generator: Generator, latents: Latents, neuron: Neuron) -> None:
    if len(latents) != 1 or latents.space != "z":
        raise InputError("A pattern is of one sample in z", f"{len(latents)} latents in {latents.space}", "one, in z")
    layer = generator.layer(neuron.layer)
    inside = (range(layer.units), range(layer.height), range(layer.width))
    if any(place not in size for place, size in zip((neuron.unit, neuron.y, neuron.x), inside, strict=True)):
        raise InputError("There is no such neuron", str(neuron), f"{layer.units} units of {layer.resolution}")
