"""Figures of a correction study as PNG bytes, from the rows of its table.

Every figure has one panel for each number that is known: the share that passes, and what the samples look like against real images
or against the truth of a planted defect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qualitygate import names
from qualitygate.reports.figures import DPI, WIDTH, dress, png
from qualitygate.reports.palette import FAINT, INK, LINE_COLORS, MUTED, PAPER

Rows = Sequence[Mapping[str, Any]]
PANELS = {
    names.FID: "FID (lower is better)",
    names.REALISM: "realism (higher is better)",
    "repaired": "repaired (higher is better)",
    "passed": "share that passes again",
    "diversity": "diversity kept",
}
UNTOUCHED = "untouched"
_MARKERS = "osD^vPX*"


def trade_figure(rows: Rows) -> bytes | None:
    """Every number against the distance to the untouched image, a line for each correction: what is won, and what is changed for it.

    None without a correction at any strength. 900 pixels wide.
    """
    return _figure(rows, _by_correction, lambda row: row.get(names.MOVED), "distance moved, as a share of the range")


def strength_figure(rows: Rows) -> bytes | None:
    """Every number against the strength (CVPR 2021, figures 11 and 12; IJCAI 2022, figure 5 where low-rate stands beside high-rate).

    None unless some correction has several strengths. 900 pixels wide.
    """
    return _figure(rows, _by_correction, lambda row: row["strength"], "strength: R, share of the units, or weight of the mask")


def layer_figure(rows: Rows) -> bytes | None:
    """Every number against the stopping layer, a line for each correction and strength (CVPR 2021, figures 12 and 15).

    None unless some correction was tried with several stopping layers: layers 0 … l. 900 pixels wide.
    """
    up_to = [row for row in rows if row["layers"] and row["layers"] == list(range(len(row["layers"])))]
    return _figure(up_to, _by_strength, lambda row: row["layers"][-1], "stopping layer", also=rows)


def _by_correction(row: Mapping[str, Any]) -> str:
    return str(row["correction"]).split(", R = ")[0]  # a grid over R has a correction for each R


def _by_strength(row: Mapping[str, Any]) -> str:
    return f"{str(row['correction']).split(', layers ')[0]}, {row['strength']:g}"


def _figure(
    rows: Rows, line: Callable[[Mapping[str, Any]], str], across: Callable[[Mapping[str, Any]], float | None], below: str, also: Rows = ()
) -> bytes | None:
    """One panel for each number. Untouched samples are a dashed line."""
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["strength"] is not None and across(row) is not None:
            lines.setdefault(line(row), []).append(row)
    if max(map(len, lines.values()), default=0) < 2:
        return None
    panels = [name for name in PANELS if any(name in row for of_line in lines.values() for row in of_line)]
    height = 3.0 * len(panels) + 0.2 * len(lines)
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor=PAPER, layout="constrained")
    untouched = next((row for row in (*rows, *also) if row["correction"] == UNTOUCHED), {})
    for axes, name in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels, strict=True):
        for place, (label, of_line) in enumerate(lines.items()):
            _draw(axes, place, label, [(across(row), row[name]) for row in of_line if name in row])
        if name in untouched:
            axes.axhline(untouched[name], color=MUTED, linestyle=(0, (4, 3)), label=UNTOUCHED)
        dress(axes, below, PANELS[name])
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=2, frameon=True, facecolor=PAPER, edgecolor=FAINT, fontsize=8, labelcolor=INK
    )
    return png(figure)


def _draw(axes: Axes, place: int, label: str, points: list[tuple[float | None, float]]) -> None:
    xs, ys = zip(*points, strict=True) if points else ((), ())
    marker = _MARKERS[place // len(LINE_COLORS) % len(_MARKERS)]
    axes.plot(xs, ys, color=LINE_COLORS[place % len(LINE_COLORS)], marker=marker, markersize=5, linewidth=1.5, label=label)
