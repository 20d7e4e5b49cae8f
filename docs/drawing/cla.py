"""Pictures of the curvature of local activation: the formula on two neurons, and faces by their score."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from drawing.look import BLUE, ORANGE, RED, below, blank, show
from drawing.ranking import ranked_faces
from drawing.subject import Subject
from qualitygate import names
from qualitygate.gating.exhibit import render
from qualitygate.records.dynamics import AxisPattern, Neuron
from qualitygate.reports.style import INK, MUTED, dress, png
from qualitygate.scores.local_activation import DIVISIONS, local_activation
from qualitygate.studies.dynamics.pattern import axis_pattern
from qualitygate.units.score import rank_correlation


def cla_neuron(subject: Subject) -> bytes:
    """A concave neuron of the sample with the highest CLA and a flat one of that with the lowest: the formula, drawn."""
    rows = subject.ranked(names.cla(subject.layer))[[-1, 0]]
    latents = subject.latents(rows)
    local = local_activation(subject.generator, latents, [subject.layer])
    activation, curvature = local.activation[subject.layer], local.curvature[subject.layer]
    concave = _neuron(subject.layer, curvature[0])
    alike = (activation[1] - activation[0][_place(concave)]).abs() < 0.2 * activation[0][_place(concave)]
    flat = _neuron(subject.layer, torch.where(alike, curvature[1].abs(), torch.inf))
    figure = blank(4.4)
    cells = figure.subplots(1, 4, width_ratios=(1, 2.3, 1, 2.3))
    pairs = zip(
        ("the highest CLA", "the lowest CLA"), (concave, flat), (_most_concave, _flattest), render(subject.generator, latents), strict=True
    )
    for row, (word, neuron, choose, image) in enumerate(pairs):
        score = subject.column(names.cla(subject.layer))[rows[row]]
        show(cells[2 * row], image, f"{word} of\n{len(subject.ranked(names.cla(subject.layer))):,} samples: {score:.1f}")
        _frame(cells[2 * row], neuron, subject.generator.layers[subject.layer].height, image.shape[0])
        along = axis_pattern(subject.generator, latents[row : row + 1], neuron)
        _secants(cells[2 * row + 1], along.rows([choose(along)]), float(along.curvature.mean()))
    top = max(cell.get_ylim()[1] for cell in cells[1::2])
    for cell in cells[1::2]:
        cell.set_ylim(-0.3 * top, top)
    below(figure, cells[1])
    return png(figure)


def _neuron(layer: int, least: Tensor) -> Neuron:
    """The neuron with the least value of (units, height, width)."""
    return Neuron(layer, *(int(at) for at in np.unravel_index(int(least.argmin()), tuple(least.shape))))


def _place(neuron: Neuron) -> tuple[int, int, int]:
    return neuron.unit, neuron.y, neuron.x


def _most_concave(along: AxisPattern) -> int:
    """Of the axes with room to write between the sample and its change points."""
    step = 2 * along.offsets[-1] / DIVISIONS
    return int(np.argmin(np.where(np.minimum(-along.left, along.right) > step, along.curvature, np.inf)))


def _flattest(along: AxisPattern) -> int:
    """Of the axes along which the activation changes, but not to more than twice what it is at the sample."""
    tame = (np.ptp(along.values, axis=1) > 0.5 * along.at_sample) & (along.values.max(axis=1) < 2 * along.at_sample)
    return int(np.argmin(np.where(tame, np.abs(along.curvature), np.inf)))


def _frame(axes: Axes, neuron: Neuron, size: int, shown: int) -> None:
    wide = shown / size
    corner = neuron.x * wide - 0.5, neuron.y * wide - 0.5
    axes.add_patch(Rectangle(corner, wide, wide, fill=False, edgecolor=ORANGE, linewidth=2.5))


def _secants(axes: Axes, along: AxisPattern, mean: float) -> None:
    """A neuron's activation along one axis, with change points, secants and distances; only the sign at grid points counts."""
    finer = (len(along.offsets) - 1) // DIVISIONS
    start, ends = (along.at_sample, [int(np.searchsorted(along.offsets, at[0] - 1e-6)) for at in (along.left, along.right)])
    low = -0.11 * max(along.values[0])
    axes.plot(along.offsets, along.values[0], color=INK, linewidth=1.4)
    axes.plot(along.offsets[::finer], along.values[0, ::finer], ".", color=INK, markersize=6, label="activation at the grid's points")
    for end, sign, color in zip(ends, "⁻⁺", (BLUE, RED), strict=True):
        at, value = along.offsets[end], along.values[0, end]
        axes.plot((0, at), (start, value), "-o", color=color, linewidth=2.5, markersize=8, label=f"secant to the change point z{sign}")
        axes.annotate(
            "", (at, low), (0, low), arrowprops={"arrowstyle": "<->", "color": color, "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
        )
        axes.annotate(
            f"δ{sign} = {abs(at):g}",
            (0, low),
            xytext=(6 if at > 0 else -6, -5),
            textcoords="offset points",
            ha="left" if at > 0 else "right",
            va="top",
            fontsize=12,
            color=color,
        )
    axes.plot(0, start, "o", color=ORANGE, markersize=10, markeredgecolor=INK, label="sample z", zorder=4)
    axes.axhline(0, color=MUTED, linewidth=0.8)
    before, after = ((along.values[0, end] - start) / along.offsets[end] for end in ends)
    axes.set_title(
        f"c = [{after:.3f} − {before:.3f}] / ({along.right[0]:g} + {-along.left[0]:g}) = {along.curvature[0]:.4f}\n"
        f"mean of c over all axes, CLA = {mean:z.4f}".replace("-", "−"),
        fontsize=12,
        color=INK,
    )
    dress(axes, f"distance walked along axis {along.axes[0]}", "activation")


def cla_ranked(subject: Subject) -> bytes:
    name, count = names.cla(subject.layer), names.low_rate(subject.rate)
    rows = subject.ranked(name)
    alike = rank_correlation(subject.column(name)[rows], subject.column(count)[rows])
    return ranked_faces(subject, name, f"CLA at layer {subject.layer}, exact (rank correlation with {count}: {alike:.2f})")
