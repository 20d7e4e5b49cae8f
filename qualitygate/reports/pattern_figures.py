"""Figures of activation patterns, after figures 1, 2 and 4 of Jeong, Han and Choi (AAAI 2022), as PNG bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from mpl_toolkits.mplot3d import Axes3D

from qualitygate.errors import InputError
from qualitygate.records.dynamics import AxisPattern, Neuron, PatternColumn, PlanePattern
from qualitygate.reports.figures import DPI, dress, png
from qualitygate.reports.lettering import number
from qualitygate.reports.palette import HEAT_MAP, INK, LINE_COLORS, MUTED, PAPER

SIGNED_MAP = "RdBu_r"
"""Colour map of activations: white is 0, so the change points are where the colour turns."""
_PARABOLAS = LINE_COLORS[2], LINE_COLORS[0]  # green and blue, as in the paper
_POINTS = LINE_COLORS[1]
_NARROW, _HIGH = 1.5, 5.2  # inches: width of a column of the dynamics figure, and its height


def pattern_figure(image: np.ndarray, unit_map: np.ndarray, neuron: Neuron, axes: AxisPattern, plane: PlanePattern, title: str) -> bytes:
    """One neuron of one sample: where it is, its pattern on every axis, on the most local axis, and over two axes.

    Args:
        image: of the sample, uint8 (image height, image width, 1 or 3).
        unit_map: activation of the neuron's unit, (height, width).
        neuron: which.
        axes: its pattern along the axes to show, in the order to show them: rows from the top.
        plane: its pattern over two axes.
        title: above the figure.

    Returns:
        PNG, 1,200 pixels wide.
    """
    figure = Figure(figsize=(12.0, 7.2), dpi=DPI, facecolor=PAPER, layout="constrained")
    figure.suptitle(title, fontsize=13, color=INK)
    grid = figure.add_gridspec(2, 3, width_ratios=(1, 1.25, 1.7))
    _image(figure.add_subplot(grid[0, 0]), image, neuron, unit_map.shape)
    _unit(figure.add_subplot(grid[1, 0]), unit_map, neuron)
    _heat_map(figure, figure.add_subplot(grid[0, 1]), axes)
    _curve(figure.add_subplot(grid[1, 1]), axes)
    _surface(figure.add_subplot(grid[:, 2], projection="3d"), plane)
    return png(figure)


def dynamics_figure(columns: Sequence[PatternColumn], neuron: Neuron, axes: tuple[int, int], bound: float, title: str) -> bytes:
    """A neuron through the snapshots: activation over two axes of the latent space, the image, CLA of the unit's neurons.

    Each row has one scale for all snapshots, so that the eye can compare them.

    Args:
        columns: the snapshots, in order.
        neuron: which; its place is boxed in the image and in the map of CLA.
        axes: of the plane, first down, second across.
        bound: half the length of the plane's sides.
        title: above the figure.

    Raises:
        InputError: no columns.
    """
    if not columns:
        raise InputError("There is no snapshot to draw", "no columns", "at least one")
    figure = Figure(figsize=(1.2 + _NARROW * len(columns), _HIGH), dpi=DPI, facecolor=PAPER, layout="constrained")
    figure.suptitle(title, fontsize=12, color=INK)
    cells = figure.subplots(3, len(columns), squeeze=False)
    strongest = max(float(np.abs(column.plane).max()) for column in columns) or 1.0
    highest = max(float(column.unit_score.max()) for column in columns) or 1.0
    names = (f"activation\naxis {axes[0]} ↓  {axes[1]} →", "image", "CLA of the\nunit's neurons")
    for row, name in enumerate(names):
        cells[row, 0].set_ylabel(name, fontsize=10, color=INK)
    for place, column in enumerate(columns):
        over, middle, below = cells[:, place]
        plane = over.imshow(
            column.plane, cmap=SIGNED_MAP, norm=TwoSlopeNorm(0.0, -strongest, strongest), extent=(-bound, bound, bound, -bound)
        )
        over.plot(0, 0, "k+", markersize=7)
        over.set_title(column.title, fontsize=10, color=INK)
        _picture(middle, column.image)
        _box(middle, neuron, column.unit_score.shape, column.image.shape)
        heat = below.imshow(column.unit_score, cmap=HEAT_MAP, vmin=0.0, vmax=highest)
        _box(below, neuron, column.unit_score.shape, column.unit_score.shape)
        below.set_xlabel(f"mean {number(float(column.unit_score.mean()))}", fontsize=9, color=MUTED)
    for cell in cells.flat:
        cell.set(xticks=[], yticks=[])
    figure.colorbar(plane, ax=cells[0].tolist(), shrink=0.9)
    figure.colorbar(heat, ax=cells[2].tolist(), shrink=0.9)
    return png(figure)


def _image(axes: Axes, image: np.ndarray, neuron: Neuron, size: tuple[int, ...]) -> None:
    _picture(axes, image)
    _box(axes, neuron, size, image.shape)
    axes.set(xticks=[], yticks=[])
    axes.set_title("image, with the neuron's place", fontsize=10, color=INK)


def _unit(axes: Axes, unit_map: np.ndarray, neuron: Neuron) -> None:
    strongest = float(np.abs(unit_map).max()) or 1.0
    axes.imshow(unit_map, cmap=SIGNED_MAP, norm=TwoSlopeNorm(0.0, -strongest, strongest))
    _box(axes, neuron, unit_map.shape, unit_map.shape)
    axes.set(xticks=[], yticks=[])
    axes.set_title(f"activation of unit {neuron.unit}", fontsize=10, color=INK)


def _heat_map(figure: Figure, axes: Axes, pattern: AxisPattern) -> None:
    """Figure 2: a row for each axis of the latent space, the most local at the top."""
    strongest = float(np.abs(pattern.values).max()) or 1.0
    bound = float(pattern.offsets[-1])
    shown = axes.imshow(
        pattern.values,
        cmap=SIGNED_MAP,
        norm=TwoSlopeNorm(0.0, -strongest, strongest),
        aspect="auto",
        interpolation="nearest",
        extent=(-bound, bound, len(pattern.axes), 0),
    )
    dress(axes, "r", "axes of z, most local first")
    axes.grid(visible=False)
    axes.set_title(f"all axes: CLA {number(float(pattern.curvature.mean()))}", fontsize=10, color=INK)
    figure.colorbar(shown, ax=axes)


def _curve(axes: Axes, pattern: AxisPattern) -> None:
    """The first row of the heat map as a curve, with its change points and the parabola through them."""
    axes.axhline(0.0, color=MUTED, linewidth=0.8)
    axes.plot(pattern.offsets, pattern.values[0], color=INK, linewidth=1.5)
    _parabola(axes, pattern, 0, _PARABOLAS[0])
    dress(axes, f"r along axis {pattern.axes[0]}", "activation")
    axes.set_title(f"most local axis: curvature {number(float(pattern.curvature[0]))}", fontsize=10, color=INK)


def _parabola(axes: Axes, pattern: AxisPattern, row: int, color: str) -> None:
    left, right = float(pattern.left[row]), float(pattern.right[row])
    along = np.linspace(left, right, 61)
    axes.plot(along, pattern.parabola(row, along), color=color, linewidth=2)
    ends = np.array([left, 0.0, right])
    axes.plot(ends, pattern.parabola(row, ends), "o", color=_POINTS, markersize=6)


def _surface(axes: Axes3D, plane: PlanePattern) -> None:
    """Figure 1: the surface over two axes; on the walls stand the patterns along each of them, with change points and parabola."""
    offsets, along = plane.along.offsets, plane.along
    across, down = np.meshgrid(offsets, offsets)
    strongest = float(np.abs(plane.values).max()) or 1.0
    axes.plot_surface(
        down,
        across,
        plane.values,
        cmap=SIGNED_MAP,
        norm=TwoSlopeNorm(0.0, -strongest, strongest),
        alpha=0.75,
        linewidth=0,
        rcount=40,
        ccount=40,
    )
    wall = float(offsets[0]) * 1.15, float(offsets[-1]) * 1.15
    for row, color in enumerate(_PARABOLAS):
        left, right = float(along.left[row]), float(along.right[row])
        curve = np.linspace(left, right, 61)
        ends = np.array([left, 0.0, right])
        axes.plot(*_on_wall(row, offsets, wall), along.values[row], color=INK, linewidth=1.2)
        axes.plot(*_on_wall(row, curve, wall), along.parabola(row, curve), color=color, linewidth=2)
        axes.plot(*_on_wall(row, ends, wall), along.parabola(row, ends), "o", color=_POINTS, markersize=5)
    axes.set_xlabel(f"axis {along.axes[0]}", color=INK)
    axes.set_ylabel(f"axis {along.axes[1]}", color=INK)
    axes.set_title("two axes; lines: pattern, points: change points and sample,\ngreen and blue: parabolas", fontsize=10, color=INK)
    axes.view_init(elev=28, azim=-55)


def _on_wall(row: int, values: np.ndarray, wall: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of a curve along one axis, on the wall behind the other one."""
    return (values, np.full_like(values, wall[1])) if row == 0 else (np.full_like(values, wall[0]), values)


def _picture(axes: Axes, image: np.ndarray) -> None:
    axes.imshow(image[:, :, 0] if image.shape[2] == 1 else image, cmap="gray", vmin=0, vmax=255)


def _box(axes: Axes, neuron: Neuron, size: tuple[int, ...], shown: tuple[int, ...]) -> None:
    """A frame around the neuron's position in a picture of another size."""
    high, wide = shown[0] / size[0], shown[1] / size[1]
    corner = neuron.x * wide - 0.5, neuron.y * high - 0.5
    axes.add_patch(Rectangle(corner, wide, high, fill=False, edgecolor=LINE_COLORS[2], linewidth=1.8))
