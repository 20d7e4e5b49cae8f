"""Figures of training and of single neurons, after figures 1, 2 and 4 of Jeong, Han and Choi (AAAI 2022), as PNG bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from mpl_toolkits.mplot3d import Axes3D

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.records.dynamics import AxisPattern, DynamicsRecord, Neuron, PatternColumn, PlanePattern
from qualitygate.reports.style import HEAT_MAP, INK, LINE_COLORS, MUTED, Render, blank, dress, line_color, number, png

SIGNED_MAP = "RdBu_r"  # of activations: white is 0, so the change points are where the colour turns
_PARABOLAS = LINE_COLORS[2], LINE_COLORS[0]  # green and blue, as in the paper
_POINTS = LINE_COLORS[1]
_NARROW, _HIGH = 1.5, 5.2  # inches: width of a column of the dynamics figure, and its height
_BY_LAYER = {
    names.CLA_MEAN: "CLA of samples, mean",
    names.CLA_UNIT_Q99: "CLA of the 99th percentile unit",
    names.ACTIVATION_SCALE: "mean magnitude of activation",
    names.ACTIVATION_RATE: "activation rate",
    names.LOW_RATE_SHARE: "low-rate share of neurons",
    names.LOW_RATE_BORN: "neurons that became low-rate",
    names.AGAINST_SHARE: "units against realism",
}
_NOT_DRAWN = {
    names.CLA_Q90,
    names.CLA_UNIT_MAX,
    names.LOW_RATE_GONE,
    names.AGAINST_CLA_RANK,
    names.AGAINST_RATE_CHANGE,
    names.FOR_RATE_CHANGE,
}


def training_figure(record: DynamicsRecord, render: Render = png) -> bytes:
    """How the metrics move while a generator trains: a panel for each kind, a line for each layer, and a panel for each set metric."""
    found = {name for one in record.snapshots for name in one.metrics}
    panels: list[tuple[str, dict[str, list[tuple[float, float]]]]] = []
    for metric, title in _BY_LAYER.items():
        layers = sorted(int(name.rpartition("_")[2]) for name in found if name.rpartition("/layer_")[0] == metric)
        if layers:
            panels.append((title, {f"layer {layer}": _series(record, names.of_layer(metric, layer)) for layer in layers}))
    known = _BY_LAYER.keys() | _NOT_DRAWN
    of_set = sorted(name for name in found if name.rpartition("/layer_")[0] not in known)
    panels += [(name.split("/")[-1], {"": _series(record, name)}) for name in of_set]
    if not panels:
        raise InputError("There is nothing to draw", "no snapshot with metrics", "at least one that was scored")
    rows = -(-len(panels) // 2)
    figure = blank(2.4 * rows)
    cells = figure.subplots(rows, 2, squeeze=False).flatten()
    for cell, (title, lines) in zip(cells, panels, strict=False):
        _curves(cell, lines)
        dress(cell, record.unit, "")
        cell.set_title(title, fontsize=11, color=INK)
    for cell in cells[len(panels) :]:
        cell.set_axis_off()
    return render(figure)


def pattern_figure(image: np.ndarray, unit_map: np.ndarray, neuron: Neuron, axes: AxisPattern, plane: PlanePattern, title: str) -> bytes:
    """One neuron of one sample: where it is, its pattern on every axis, on the most local axis, and over two axes. 1,200 pixels wide.

    ``image`` is the sample's, uint8 (image height, image width, 1 or 3); ``unit_map`` the activation of the neuron's unit, (height, width);
    ``axes`` hold the axes to show, rows from the top.
    """
    figure = blank(7.2, 12.0)
    figure.suptitle(title, fontsize=13, color=INK)
    grid = figure.add_gridspec(2, 3, width_ratios=(1, 1.25, 1.7))
    place, unit = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[1, 0])
    _picture(place, image, neuron, unit_map.shape)
    _signed(unit, unit_map)
    _box(unit, neuron, unit_map.shape, unit_map.shape)
    for cell, words in ((place, "image, with the neuron's place"), (unit, f"activation of unit {neuron.unit}")):
        cell.set(xticks=[], yticks=[])
        cell.set_title(words, fontsize=10, color=INK)
    _heat_map(figure, figure.add_subplot(grid[0, 1]), axes)
    _curve(figure.add_subplot(grid[1, 1]), axes)
    _surface(figure.add_subplot(grid[:, 2], projection="3d"), plane)
    return png(figure)


def dynamics_figure(columns: Sequence[PatternColumn], neuron: Neuron, axes: tuple[int, int], bound: float, title: str) -> bytes:
    """A neuron through the snapshots: activation over two axes of the latent space, the image, CLA of the unit's neurons.

    Each row has one scale for all snapshots, so that the eye can compare them. The neuron's place is boxed. ``axes`` are those of the
    plane, first down, second across; ``bound`` is half the length of its sides.
    """
    if not columns:
        raise InputError("There is no snapshot to draw", "no columns", "at least one")
    figure = blank(_HIGH, 1.2 + _NARROW * len(columns))
    figure.suptitle(title, fontsize=12, color=INK)
    cells = figure.subplots(3, len(columns), squeeze=False)
    strongest = max(float(np.abs(column.plane).max()) for column in columns) or 1.0
    highest = max(float(column.unit_score.max()) for column in columns) or 1.0
    for row, name in enumerate((f"activation\naxis {axes[0]} ↓  {axes[1]} →", "image", "CLA of the\nunit's neurons")):
        cells[row, 0].set_ylabel(name, fontsize=10, color=INK)
    for place, column in enumerate(columns):
        over, middle, below = cells[:, place]
        plane = _signed(over, column.plane, strongest, extent=(-bound, bound, bound, -bound))
        over.plot(0, 0, "k+", markersize=7)
        over.set_title(column.title, fontsize=10, color=INK)
        _picture(middle, column.image, neuron, column.unit_score.shape)
        heat = below.imshow(column.unit_score, cmap=HEAT_MAP, vmin=0.0, vmax=highest)
        _box(below, neuron, column.unit_score.shape, column.unit_score.shape)
        below.set_xlabel(f"mean {number(float(column.unit_score.mean()))}", fontsize=9, color=MUTED)
    for cell in cells.flat:
        cell.set(xticks=[], yticks=[])
    figure.colorbar(plane, ax=cells[0].tolist(), shrink=0.9)
    figure.colorbar(heat, ax=cells[2].tolist(), shrink=0.9)
    return png(figure)


def _series(record: DynamicsRecord, name: str) -> list[tuple[float, float]]:
    return [(one.at, one.metrics[name]) for one in record.snapshots if name in one.metrics]


def _curves(axes: Axes, lines: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    for place, (label, series) in enumerate(lines.items()):
        at, values = np.array(series).T
        axes.plot(at, values, "o-", color=line_color(place), markersize=4, linewidth=1.6, label=label or None)
    drawn = [value for series in lines.values() for _, value in series]
    low, high = min(0.0, *drawn), max(0.0, *drawn)
    axes.set_ylim(low, high + 0.08 * (high - low or 1.0))  # from 0, so that a small change looks small
    if any(lines):
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)


def _signed(axes: Axes, values: np.ndarray, strongest: float | None = None, **how: Any) -> AxesImage:
    """Values of both signs, 0 being white."""
    strongest = strongest or float(np.abs(values).max()) or 1.0
    return axes.imshow(values, cmap=SIGNED_MAP, norm=TwoSlopeNorm(0.0, -strongest, strongest), **how)


def _heat_map(figure: Figure, axes: Axes, pattern: AxisPattern) -> None:
    """Figure 2: a row for each axis of the latent space, the most local at the top."""
    bound = float(pattern.offsets[-1])
    shown = _signed(axes, pattern.values, aspect="auto", interpolation="nearest", extent=(-bound, bound, len(pattern.axes), 0))
    dress(axes, "r", "axes of z, most local first")
    axes.grid(visible=False)
    axes.set_title(f"all axes: CLA {number(float(pattern.curvature.mean()))}", fontsize=10, color=INK)
    figure.colorbar(shown, ax=axes)


def _curve(axes: Axes, pattern: AxisPattern) -> None:
    """The first row of the heat map as a curve, with its change points and the parabola through them."""
    along, ends = _grid(pattern, 0)
    axes.axhline(0.0, color=MUTED, linewidth=0.8)
    axes.plot(pattern.offsets, pattern.values[0], color=INK, linewidth=1.5)
    axes.plot(along, pattern.parabola(0, along), color=_PARABOLAS[0], linewidth=2)
    axes.plot(ends, pattern.parabola(0, ends), "o", color=_POINTS, markersize=6)
    dress(axes, f"r along axis {pattern.axes[0]}", "activation")
    axes.set_title(f"most local axis: curvature {number(float(pattern.curvature[0]))}", fontsize=10, color=INK)


def _grid(pattern: AxisPattern, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Offsets at which a parabola is drawn, and those of its change points and the sample."""
    left, right = float(pattern.left[row]), float(pattern.right[row])
    return np.linspace(left, right, 61), np.array([left, 0.0, right])


def _surface(axes: Axes3D, plane: PlanePattern) -> None:
    """Figure 1: the surface over two axes; on the walls stand the patterns along each of them, with change points and parabola."""
    offsets, pattern = plane.along.offsets, plane.along
    across, down = np.meshgrid(offsets, offsets)
    strongest = float(np.abs(plane.values).max()) or 1.0
    norm = TwoSlopeNorm(0.0, -strongest, strongest)
    axes.plot_surface(down, across, plane.values, cmap=SIGNED_MAP, norm=norm, alpha=0.75, linewidth=0, rcount=40, ccount=40)
    wall = float(offsets[0]) * 1.15, float(offsets[-1]) * 1.15
    for row, color in enumerate(_PARABOLAS):
        curve, ends = _grid(pattern, row)
        axes.plot(*_on_wall(row, offsets, wall), pattern.values[row], color=INK, linewidth=1.2)
        axes.plot(*_on_wall(row, curve, wall), pattern.parabola(row, curve), color=color, linewidth=2)
        axes.plot(*_on_wall(row, ends, wall), pattern.parabola(row, ends), "o", color=_POINTS, markersize=5)
    axes.set_xlabel(f"axis {pattern.axes[0]}", color=INK)
    axes.set_ylabel(f"axis {pattern.axes[1]}", color=INK)
    axes.set_title("two axes; lines: pattern, points: change points and sample,\ngreen and blue: parabolas", fontsize=10, color=INK)
    axes.view_init(elev=28, azim=-55)


def _on_wall(row: int, values: np.ndarray, wall: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of a curve along one axis, on the wall behind the other one."""
    return (values, np.full_like(values, wall[1])) if row == 0 else (np.full_like(values, wall[0]), values)


def _picture(axes: Axes, image: np.ndarray, neuron: Neuron, size: tuple[int, ...]) -> None:
    axes.imshow(image[:, :, 0] if image.shape[2] == 1 else image, cmap="gray", vmin=0, vmax=255)
    _box(axes, neuron, size, image.shape)


def _box(axes: Axes, neuron: Neuron, size: tuple[int, ...], shown: tuple[int, ...]) -> None:
    """A frame around the neuron's position in a picture of another size."""
    high, wide = shown[0] / size[0], shown[1] / size[1]
    corner = neuron.x * wide - 0.5, neuron.y * high - 0.5
    axes.add_patch(Rectangle(corner, wide, high, fill=False, edgecolor=LINE_COLORS[2], linewidth=1.8))
