"""Figures of a validation as PNG bytes: how well each score goes with the evidence, and what rejecting by it buys and costs."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from qualitygate import names
from qualitygate.records.metrics import metric
from qualitygate.records.validation import CLEAR, Finding, ScoreYield, ValidationReport, YieldPoint
from qualitygate.reports.figures import DPI, WIDTH, dress, png
from qualitygate.reports.palette import FAINT, INK, LINE_COLORS, MUTED, PAPER

_MOST = 30  # scores in the figure
_BOUGHT = (names.PRECISION, names.REALISM, names.FID, names.KID, names.RECALL, names.COVERAGE, names.DISCRIMINATOR)


def auc_figure(report: ValidationReport) -> bytes:
    """AUC of the best scores on the strongest evidence, with intervals, on samples that had no part in choosing; chance is dashed.

    Returns:
        PNG, 900 pixels wide.
    """
    kind = report.evidence.sources[0].kind
    found = sorted((one for one in report.evidence.findings if one.kind is kind), key=lambda one: one.auc.value, reverse=True)[:_MOST]
    figure = Figure(figsize=(WIDTH, 1.2 + 0.28 * len(found)), dpi=DPI, facecolor=PAPER, layout="constrained")
    axes = figure.subplots()
    axes.axvline(0.5, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2)
    axes.axvline(CLEAR, color=FAINT, linewidth=1.2)
    for place, one in enumerate(found):
        reach = [[max(0.0, one.auc.value - one.auc.low)], [max(0.0, one.auc.high - one.auc.value)]]
        axes.errorbar([one.auc.value], [place], xerr=reach, fmt="o", markersize=6, capsize=3, color=_color(one))
    dress(axes, f"AUC, bad by {kind} (dashed: chance)", "")
    axes.set_yticks(np.arange(len(found)), [str(one.setting) for one in found], fontsize=9)
    axes.invert_yaxis()
    return png(figure)


def yield_figure(report: ValidationReport) -> bytes | None:
    """What is left as more is rejected: share of bad samples and every metric of the accepted set, one panel each, a line a score, with
    its interval; dashed, the same number rejected at random. None without a score that was followed.

    Returns:
        PNG, 900 pixels wide.
    """
    if not report.yields:
        return None
    panels = [name for name in _BOUGHT if any(_known(one, name) for one in report.yields)]
    figure = Figure(figsize=(WIDTH, 2.6 * (1 + len(panels))), dpi=DPI, facecolor=PAPER, layout="constrained")
    first, *others = figure.subplots(1 + len(panels), 1, squeeze=False)[:, 0]
    for place, one in enumerate(report.yields):
        color = LINE_COLORS[place]
        values = np.array([(point.bad.value, point.bad.low, point.bad.high) for point in one.points])
        _line(first, [point.rejected for point in one.points], values, color, str(one.setting))
    dress(first, "rejected", f"bad by {report.evidence.sources[0].kind}, of the accepted")
    first.legend(frameon=True, facecolor=PAPER, edgecolor=FAINT, fontsize=10.5, labelcolor=INK)
    for axes, name in zip(others, panels, strict=True):
        for place, one in enumerate(report.yields):
            _metric(axes, one, name, LINE_COLORS[place])
        better = "higher" if metric(name).higher_is_better else "lower"
        dress(axes, "rejected", f"{metric(name).title} ({better} is better)")
    for axes in (first, *others):
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    return png(figure)


def _metric(axes: Axes, one: ScoreYield, name: str, color: str) -> None:
    points = [point for point in one.points if _value(point, name) is not None]
    if not points:
        return
    rows = []
    for point in points:
        found = point.measurements[name]
        rows.append((found.value, found.value if found.low is None else found.low, found.value if found.high is None else found.high))
    _line(axes, [point.rejected for point in points], np.array(rows, dtype=np.float64), color, str(one.setting))
    by_chance = [(point.rejected, point.chance[name]) for point in points if name in point.chance]
    if by_chance:
        axes.plot(*zip(*by_chance, strict=True), color=color, linestyle=(0, (4, 3)), linewidth=1.2)


def _line(axes: Axes, xs: list[float], values: np.ndarray, color: str, label: str) -> None:
    axes.plot(xs, values[:, 0], color=color, linewidth=2, marker="o", markersize=5, label=label)
    axes.fill_between(xs, values[:, 1], values[:, 2], color=color, alpha=0.15, linewidth=0)


def _color(one: Finding) -> str:
    if one.setting.by_class:
        return LINE_COLORS[2]
    return LINE_COLORS[1] if one.setting.fitted else LINE_COLORS[0]


def _known(one: ScoreYield, name: str) -> bool:
    return any(_value(point, name) is not None for point in one.points)


def _value(point: YieldPoint, name: str) -> float | None:
    return point.measurements[name].value if name in point.measurements else None
