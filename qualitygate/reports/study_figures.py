"""Figures of what was measured of a checkpoint, 900 pixels wide: set metrics by group, a validation, a study of corrections."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from qualitygate import names
from qualitygate.records import Interval
from qualitygate.records.metrics import GroupRow, Measurement, MetricsReport, metric
from qualitygate.records.validation import CLEAR, ValidationReport, YieldPoint
from qualitygate.reports.style import FAINT, LINE_COLORS, MUTED, REFERENCE, Render, dress, floats, key, line_color, panels, png

_SAME_SIZE = (names.LOWEST, names.RANDOM, names.HIGHEST, names.HIGHEST_CORRECTED)
"""Groups of one size; truncated ones have it too. Only these are comparable in recall."""
_TRUNCATED = "psi_"
_MOST = 30  # scores in the figure of AUCs
_BOUGHT = (names.PRECISION, names.REALISM, names.FID, names.KID, names.RECALL, names.COVERAGE, names.DISCRIMINATOR)

Row = Mapping[str, Any]  # of the table of a study of corrections
CORRECTION_PANELS = {
    names.FID: "FID (lower is better)",
    names.REALISM: "realism (higher is better)",
    "repaired": "repaired (higher is better)",
    "passed": "share that passes again",
    "diversity": "diversity kept",
}
UNTOUCHED = "untouched"
_MARKERS = "osD^vPX*"


def precision_recall_figure(report: MetricsReport, render: Render = png) -> bytes | None:
    """Precision against recall: lowest, random and highest group, and truncation as a line (the papers' figure 6). None without real
    images."""
    rows = {row.group: row for row in report.groups if {names.PRECISION, names.RECALL} <= row.measurements.keys()}
    shown = [rows[name] for name in _SAME_SIZE if name in rows]
    if not shown:
        return None
    figure, (axes,) = panels(5.2)
    truncated = [row for row in rows.values() if row.group.startswith(_TRUNCATED)]
    if truncated:
        at = floats([[row.measurements[name].value for name in (names.RECALL, names.PRECISION)] for row in truncated])
        axes.plot(*at.T, color=MUTED, linestyle=REFERENCE, marker="s", markersize=6, label="truncated")
        for row, point in zip(truncated, at, strict=True):
            words = f"ψ {row.group.removeprefix(_TRUNCATED)}"
            axes.annotate(words, point, xytext=(6, 5), textcoords="offset points", fontsize=10.5, color=MUTED)
    for color, row in zip(LINE_COLORS, shown, strict=False):
        recall, precision = row.measurements[names.RECALL], row.measurements[names.PRECISION]
        x, y = floats([[recall.value], [precision.value]])
        how: dict[str, Any] = {"fmt": "o", "markersize": 9, "capsize": 4, "label": f"{_words(row.group)} ({row.samples:,})"}
        axes.errorbar(x, y, xerr=_reach(recall), yerr=_reach(precision), color=color, **how)
    dress(axes, "recall (higher is better)", "precision (higher is better)")
    key(axes)
    return render(figure)


def group_figure(report: MetricsReport, render: Render = png) -> bytes | None:
    """Every metric of every group with its interval, one panel a metric; the band is where 95 % of random groups fall. None without any."""
    shown = [one.name for one in report.shown if sum(_known(row, one.name) for row in report.groups) > 1]
    if not shown:
        return None
    figure, cells = panels((0.9 + 0.3 * len(report.groups)) * len(shown), len(shown))
    for axes, name in zip(cells, shown, strict=True):
        rows = [row for row in report.groups if _known(row, name)]
        for place, row in enumerate(rows):
            one = row.measurements[name]
            if row.group == names.RANDOM and one.low is not None and one.high is not None:
                axes.axvspan(one.low, one.high, color=FAINT, zorder=0)
            axes.errorbar(floats([one.value]), [place], xerr=_reach(one), fmt="o", markersize=6, capsize=3, color=LINE_COLORS[0])
        dress(axes, metric_words(name), "")
        axes.set_yticks(np.arange(len(rows)), [f"{_words(row.group)} ({row.measurements[name].samples:,})" for row in rows])
        axes.invert_yaxis()
    return render(figure)


def discriminator_figure(report: MetricsReport, render: Render = png) -> bytes | None:
    """Distribution of the discriminator's values in each group. None without a discriminator."""
    found = report.histogram
    if found is None:
        return None
    figure, (axes,) = panels(4.2)
    for place, (group, counts) in enumerate(found.counts.items()):
        share = floats(counts) / max(1, sum(counts))
        axes.stairs(share, floats(found.edges), color=line_color(place), linewidth=2, label=f"{_words(group)} ({sum(counts):,})")
    dress(axes, "discriminator value (higher = more real to it)", "share of the group")
    key(axes)
    return render(figure)


def metric_words(name: str) -> str:
    """A metric's title, and which way is better, if one is."""
    info = metric(name)
    words = {True: " (higher is better)", False: " (lower is better)", None: ""}
    return f"{info.title}{words[info.higher_is_better]}"


def auc_figure(report: ValidationReport) -> bytes:
    """AUC of the best scores on the strongest evidence, with intervals, on samples that had no part in choosing; chance is dashed."""
    kind = report.evidence.sources[0].kind
    found = sorted((one for one in report.evidence.findings if one.kind is kind), key=lambda one: one.auc.value, reverse=True)[:_MOST]
    figure, (axes,) = panels(1.2 + 0.28 * len(found))
    axes.axvline(0.5, color=MUTED, linestyle=REFERENCE, linewidth=1.2)
    axes.axvline(CLEAR, color=FAINT, linewidth=1.2)
    for place, one in enumerate(found):
        hue = 2 if one.setting.by_class else int(one.setting.fitted)
        axes.errorbar([one.auc.value], [place], xerr=_reach(one.auc), fmt="o", markersize=6, capsize=3, color=LINE_COLORS[hue])
    dress(axes, f"AUC, bad by {kind} (dashed: chance)", "")
    axes.set_yticks(np.arange(len(found)), [str(one.setting) for one in found], fontsize=9)
    axes.invert_yaxis()
    return png(figure)


def yield_figure(report: ValidationReport) -> bytes | None:
    """What is left as more is rejected: share of bad samples and every metric of the accepted set, one panel each, a line a score, with
    its interval; dashed, the same number rejected at random. None without a score that was followed."""
    if not report.yields:
        return None
    followed = [point for one in report.yields for point in one.points]
    shown = [name for name in _BOUGHT if any(_known(point, name) for point in followed)]
    figure, cells = panels(2.6 * (1 + len(shown)), 1 + len(shown))
    dress(cells[0], "rejected", f"bad by {report.evidence.sources[0].kind}, of the accepted")
    for axes, name in zip(cells[1:], shown, strict=True):
        dress(axes, "rejected", metric_words(name))
    for place, one in enumerate(report.yields):
        color, label = line_color(place), str(one.setting)
        _band(cells[0], [(point.rejected, point.bad) for point in one.points], color, label)
        for axes, name in zip(cells[1:], shown, strict=True):
            _band(axes, [(point.rejected, point.measurements[name]) for point in one.points if _known(point, name)], color, label)
            by_chance = [(point.rejected, point.chance[name]) for point in one.points if _known(point, name) and name in point.chance]
            if by_chance:
                axes.plot(*zip(*by_chance, strict=True), color=color, linestyle=REFERENCE, linewidth=1.2)
    key(cells[0], fontsize=10.5)
    for axes in cells:
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    return png(figure)


def correction_figure(rows: Sequence[Row]) -> bytes | None:
    """Every number against the distance to the untouched image, a line for each correction: what is won, and what is changed for it.

    Every figure of corrections has one panel for each number that is known: the share that passes, and what the samples look like against
    real images or against the truth of a planted defect. None without a correction at any strength.
    """
    return _corrections(rows, _by_correction, lambda row: row.get(names.MOVED), "distance moved, as a share of the range")


def strength_figure(rows: Sequence[Row]) -> bytes | None:
    """Every number against the strength (CVPR 2021, figures 11 and 12; IJCAI 2022, figure 5 where low-rate stands beside high-rate). None
    unless some correction has several strengths."""
    return _corrections(rows, _by_correction, lambda row: row["strength"], "strength: R, share of the units, or weight of the mask")


def layer_figure(rows: Sequence[Row]) -> bytes | None:
    """Every number against the stopping layer, a line for each correction and strength (CVPR 2021, figures 12 and 15). None unless some
    correction was tried with several stopping layers: layers 0 … l."""

    def by_strength(row: Row) -> str:
        return f"{str(row['correction']).split(', layers ')[0]}, {row['strength']:g}"

    up_to = [row for row in rows if row["correction"] == UNTOUCHED or (row["layers"] and row["layers"] == list(range(len(row["layers"]))))]
    return _corrections(up_to, by_strength, lambda row: row["layers"][-1], "stopping layer")


def _by_correction(row: Row) -> str:
    return str(row["correction"]).split(", R = ")[0]  # a grid over R has a correction for each R


def _corrections(rows: Sequence[Row], line: Callable[[Row], str], across: Callable[[Row], float | None], below: str) -> bytes | None:
    """One panel for each number. Untouched samples are a dashed line."""
    lines: dict[str, list[Row]] = {}
    for row in rows:
        if row["strength"] is not None and across(row) is not None:
            lines.setdefault(line(row), []).append(row)
    if max(map(len, lines.values()), default=0) < 2:
        return None
    shown = [name for name in CORRECTION_PANELS if any(name in row for of_line in lines.values() for row in of_line)]
    figure, cells = panels(3.0 * len(shown) + 0.2 * len(lines), len(shown))
    untouched = next((row for row in rows if row["correction"] == UNTOUCHED), {})
    for axes, name in zip(cells, shown, strict=True):
        for place, (label, of_line) in enumerate(lines.items()):
            known = [row for row in of_line if name in row]
            marker = _MARKERS[place // len(LINE_COLORS) % len(_MARKERS)]
            how: dict[str, Any] = {"color": line_color(place), "marker": marker, "markersize": 5, "linewidth": 1.5}
            axes.plot(floats([across(row) for row in known]), [row[name] for row in known], label=label, **how)
        if name in untouched:
            axes.axhline(untouched[name], color=MUTED, linestyle=REFERENCE, label=UNTOUCHED)
        dress(axes, below, CORRECTION_PANELS[name])
    handles, labels = cells[0].get_legend_handles_labels()
    key(figure, handles=handles, labels=labels, loc="outside lower center", ncols=2, fontsize=8)
    return png(figure)


def _band(axes: Axes, points: Sequence[tuple[float, Interval | Measurement]], color: str, label: str) -> None:
    """A line of values with the band of their bounds; without bounds the band is the value."""
    if not points:
        return
    at, found = zip(*points, strict=True)
    values = floats([one.value for one in found])
    low, high = (np.where(np.isnan(end), values, end) for end in (floats([one.low for one in found]), floats([one.high for one in found])))
    axes.plot(at, values, color=color, linewidth=2, marker="o", markersize=5, label=label)
    axes.fill_between(at, low, high, color=color, alpha=0.15, linewidth=0)


def _reach(one: Interval | Measurement) -> list[list[float]] | None:
    """How far an interval reaches below and above its value, as matplotlib wants it; None without one."""
    if one.value is None or one.low is None or one.high is None:
        return None
    return [[max(0.0, one.value - one.low)], [max(0.0, one.high - one.value)]]


def _words(group: str) -> str:
    return group.replace("_", ", ")


def _known(one: GroupRow | YieldPoint, name: str) -> bool:
    return name in one.measurements and one.measurements[name].value is not None
