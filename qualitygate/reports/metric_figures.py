"""Figures of measured groups as PNG bytes: precision against recall (the papers' figure 6), every metric by group, discriminator values."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qualitygate import names
from qualitygate.records.metrics import GroupRow, Measurement, MetricsReport, metric
from qualitygate.reports.figures import DPI, WIDTH, Render, dress, png
from qualitygate.reports.palette import FAINT, INK, LINE_COLORS, MUTED, PAPER

_SAME_SIZE = (names.LOWEST, names.RANDOM, names.HIGHEST, names.HIGHEST_CORRECTED)
"""Groups of one size; truncated ones have it too. Only these are comparable in recall."""
_TRUNCATED = "psi_"


def trade_figure(report: MetricsReport, render: Render = png) -> bytes | None:
    """Precision against recall: lowest, random and highest group, and truncation as a line. None without real images.

    Returns:
        PNG, 900 pixels wide.
    """
    points = {row.group: row for row in report.groups if names.PRECISION in row.measurements and names.RECALL in row.measurements}
    shown = [points[name] for name in _SAME_SIZE if name in points]
    if not shown:
        return None
    figure, axes = _figure(5.2)
    truncated = [row for row in points.values() if row.group.startswith(_TRUNCATED)]
    if truncated:
        xs, ys = zip(*((_value(row, names.RECALL), _value(row, names.PRECISION)) for row in truncated), strict=True)
        axes.plot(xs, ys, color=MUTED, linestyle=(0, (4, 3)), marker="s", markersize=6, label="truncated")
        for row, x, y in zip(truncated, xs, ys, strict=True):
            axes.annotate(
                f"ψ {row.group.removeprefix(_TRUNCATED)}", (x, y), xytext=(6, 5), textcoords="offset points", fontsize=10.5, color=MUTED
            )
    for place, row in enumerate(shown):
        x, y = row.measurements[names.RECALL], row.measurements[names.PRECISION]
        axes.errorbar(
            [_value(row, names.RECALL)],
            [_value(row, names.PRECISION)],
            xerr=_reach(x),
            yerr=_reach(y),
            fmt="o",
            markersize=9,
            capsize=4,
            color=LINE_COLORS[place],
            label=f"{row.group.replace('_', ', ')} ({row.samples:,})",
        )
    dress(axes, "recall (higher is better)", "precision (higher is better)")
    axes.legend(frameon=True, facecolor=PAPER, edgecolor=FAINT, fontsize=11, labelcolor=INK)
    return render(figure)


def group_figure(report: MetricsReport, render: Render = png) -> bytes | None:
    """Every metric of every group with its interval, one panel a metric; the band is where 95 % of random groups fall. None without any.

    Returns:
        PNG, 900 pixels wide.
    """
    panels = [one.name for one in report.shown if sum(_known(row, one.name) for row in report.groups) > 1]
    if not panels:
        return None
    height = 0.9 + 0.3 * len(report.groups)
    figure = Figure(figsize=(WIDTH, height * len(panels)), dpi=DPI, facecolor=PAPER, layout="constrained")
    for axes, name in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels, strict=True):
        _panel(axes, name, [row for row in report.groups if _known(row, name)])
    return render(figure)


def discriminator_figure(report: MetricsReport, render: Render = png) -> bytes | None:
    """Distribution of the discriminator's values in each group. None without a discriminator.

    Returns:
        PNG, 900 pixels wide.
    """
    found = report.histogram
    if found is None:
        return None
    figure, axes = _figure(4.2)
    edges = np.asarray(found.edges)
    for place, (group, counts) in enumerate(found.counts.items()):
        share = np.asarray(counts) / max(1, sum(counts))
        axes.stairs(
            share, edges, color=LINE_COLORS[place % len(LINE_COLORS)], linewidth=2, label=f"{group.replace('_', ', ')} ({sum(counts):,})"
        )
    dress(axes, "discriminator value (higher = more real to it)", "share of the group")
    axes.legend(frameon=True, facecolor=PAPER, edgecolor=FAINT, fontsize=11, labelcolor=INK)
    return render(figure)


def _panel(axes: Axes, name: str, rows: list[GroupRow]) -> None:
    places = np.arange(len(rows))
    for row in rows:
        one = row.measurements[name]
        if row.group == names.RANDOM and one.low is not None and one.high is not None:
            axes.axvspan(one.low, one.high, color=FAINT, zorder=0)
    for place, row in zip(places, rows, strict=True):
        one = row.measurements[name]
        axes.errorbar([_value(row, name)], [place], xerr=_reach(one), fmt="o", markersize=6, capsize=3, color=LINE_COLORS[0])
    dress(axes, f"{metric(name).title} ({'higher' if metric(name).higher_is_better else 'lower'} is better)", "")
    axes.set_yticks(places, [f"{row.group.replace('_', ', ')} ({row.measurements[name].samples:,})" for row in rows])
    axes.invert_yaxis()


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor=PAPER, layout="constrained")
    return figure, figure.subplots()


def _known(row: GroupRow, name: str) -> bool:
    return name in row.measurements and row.measurements[name].value is not None


def _value(row: GroupRow, name: str) -> float:
    value = row.measurements[name].value
    return float("nan") if value is None else value


def _reach(one: Measurement) -> list[list[float]] | None:
    """How far the interval reaches below and above the value, as matplotlib wants it."""
    if one.value is None or one.low is None or one.high is None:
        return None
    return [[max(0.0, one.value - one.low)], [max(0.0, one.high - one.value)]]
