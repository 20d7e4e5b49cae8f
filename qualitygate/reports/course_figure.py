"""How the metrics of a generator move while it trains, as PNG bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.records.dynamics import DynamicsRecord
from qualitygate.reports.figures import DPI, WIDTH, Render, dress, png
from qualitygate.reports.palette import INK, LINE_COLORS, PAPER

_PANELS = (
    ("CLA of samples, mean", names.CLA_MEAN),
    ("CLA of the 99th percentile unit", names.CLA_UNIT_Q99),
    ("mean magnitude of activation", names.ACTIVATION_SCALE),
    ("activation rate", names.ACTIVATION_RATE),
    ("low-rate share of neurons", names.LOW_RATE_SHARE),
    ("neurons that became low-rate", names.LOW_RATE_BORN),
    ("units against realism", names.AGAINST_SHARE),
)
_KNOWN = {metric for _, metric in _PANELS} | {
    names.CLA_Q90,
    names.CLA_UNIT_MAX,
    names.LOW_RATE_GONE,
    names.AGAINST_CLA_RANK,
    names.AGAINST_RATE_CHANGE,
    names.FOR_RATE_CHANGE,
}


def course_figure(record: DynamicsRecord, render: Render = png) -> bytes:
    """A panel for each kind of metric, a line for each layer, and a panel for each set metric.

    Raises:
        InputError: no snapshot has metrics.
    """
    panels = [(title, lines) for title, metric in _PANELS if (lines := _by_layer(record, metric))]
    panels += [(name.split("/")[-1], {"": _series(record, name)}) for name in _set_metrics(record)]
    if not panels:
        raise InputError("There is nothing to draw", "no snapshot with metrics", "at least one that was scored")
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(WIDTH, 2.4 * rows), dpi=DPI, facecolor=PAPER, layout="constrained")
    cells = figure.subplots(rows, 2, squeeze=False).flatten()
    for cell, (title, lines) in zip(cells, panels, strict=False):
        _draw(cell, lines)
        dress(cell, record.unit, "")
        cell.set_title(title, fontsize=11, color=INK)
    for cell in cells[len(panels) :]:
        cell.set_axis_off()
    return render(figure)


def _draw(axes: Axes, lines: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    for place, (label, series) in enumerate(lines.items()):
        at, values = np.array(series).T
        color = LINE_COLORS[place % len(LINE_COLORS)]
        axes.plot(at, values, "o-", color=color, markersize=4, linewidth=1.6, label=label or None)
    drawn = [value for series in lines.values() for _, value in series]
    low, high = min(0.0, *drawn), max(0.0, *drawn)
    axes.set_ylim(low, high + 0.08 * (high - low or 1.0))  # from 0, so that a small change looks small
    if any(lines):
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)


def _by_layer(record: DynamicsRecord, metric: str) -> dict[str, list[tuple[float, float]]]:
    found = {name for one in record.snapshots for name in one.metrics if name.rpartition("/layer_")[0] == metric}
    layers = sorted(int(name.rpartition("_")[2]) for name in found)
    return {f"layer {layer}": _series(record, names.at_layer(metric, layer)) for layer in layers}


def _set_metrics(record: DynamicsRecord) -> list[str]:
    found = {name for one in record.snapshots for name in one.metrics}
    return sorted(name for name in found if name.rpartition("/layer_")[0] not in _KNOWN)


def _series(record: DynamicsRecord, name: str) -> list[tuple[float, float]]:
    return [(one.at, one.metrics[name]) for one in record.snapshots if name in one.metrics]
