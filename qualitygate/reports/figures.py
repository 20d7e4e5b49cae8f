"""Figures of a gated set as PNG bytes, 900 pixels wide.

Only matplotlib's objects are used, never pyplot: no display, and no state outside the figure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from math import ceil, floor

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from qualitygate.errors import InputError
from qualitygate.records.gate import RuleLimit, Verdict
from qualitygate.reports.lettering import number
from qualitygate.reports.palette import FAINT, INK, LINE_COLORS, MUTED, PAPER, VERDICT_COLORS

WIDTH, DPI = 9.0, 100
"""Inches, and pixels an inch."""
BINS = 60

Render = Callable[[Figure], bytes]
"""Makes a file of a figure."""


def score_figure(
    scores: Mapping[str, np.ndarray], limits: Sequence[RuleLimit], verdicts: np.ndarray, render: Render | None = None
) -> bytes:
    """Histograms of the scores that rules name, coloured by verdict, with the limits as vertical lines.

    Args:
        scores: score of N gated samples by name, each (N,); values that are not finite are counted and not drawn.
        limits: the rules as they were applied.
        verdicts: the samples' `Verdict` values (N,).
        render: what makes bytes of the figure; default: `png`.

    Returns:
        PNG, 900 pixels wide, one panel for each score.

    Raises:
        InputError: no samples, no rules, a score or verdict that is unknown, or columns of different lengths.
    """
    columns = _ruled_columns(scores, limits)
    verdicts = np.asarray(verdicts).astype(str)
    if unknown := sorted(set(verdicts.tolist()) - {str(verdict) for verdict in Verdict}):
        raise InputError("These are no verdicts", ", ".join(unknown), ", ".join(Verdict))
    if any(len(column) != len(verdicts) for column in columns.values()):
        raise InputError(
            "Scores and verdicts do not belong together",
            f"{len(verdicts)} verdicts, scores of another length",
            "one verdict for each sample",
        )
    figure = Figure(figsize=(WIDTH, 0.5 + 2.9 * len(columns)), dpi=DPI, facecolor=PAPER, layout="constrained")
    panels = figure.subplots(len(columns), 1, squeeze=False)[:, 0]
    for axes, (name, column) in zip(panels, columns.items(), strict=True):
        _histogram(axes, name, column, verdicts, [limit for limit in limits if limit.score == name])
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False, fontsize=11, labelcolor=INK)
    return (render or png)(figure)


def trade_off_figure(
    scores: Mapping[str, np.ndarray], calibration: Mapping[str, np.ndarray], limits: Sequence[RuleLimit], render: Render | None = None
) -> bytes:
    """What each rule would keep if its limit stood elsewhere: the share of the gated samples that stay within a limit at
    each quantile of the calibration. On the dashed diagonal the gated samples are like the calibration's.

    Args:
        scores: score of the gated samples by name, each (N,); a value that is not finite is not kept.
        calibration: the same scores of the calibration's samples, each (M,).
        limits: the rules as they were applied; marked where they stand.
        render: as in `score_figure`.

    Returns:
        PNG, 900 pixels wide.

    Raises:
        InputError: no samples, no rules, or a score that is missing on either side.
    """
    columns, known = _ruled_columns(scores, limits), _ruled_columns(calibration, limits)
    figure = Figure(figsize=(WIDTH, 5.0), dpi=DPI, facecolor=PAPER, layout="constrained")
    axes = figure.subplots()
    quantiles = np.linspace(0.0, 1.0, 401)
    colors = {name: LINE_COLORS[place % len(LINE_COLORS)] for place, name in enumerate(columns)}
    axes.plot((0, 1), (0, 1), color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2, label="as in the calibration")
    for name, column in columns.items():
        axes.plot(quantiles, _kept(column, _finite(known, name), quantiles), color=colors[name], linewidth=2, label=name)
    for limit in limits:
        at = float((_finite(known, limit.score) <= limit.limit).mean())
        kept = float((columns[limit.score] <= limit.limit).mean())
        axes.plot(
            at,
            kept,
            "o",
            color=colors[limit.score],
            markersize=9,
            markeredgecolor=PAPER,
            zorder=3,
            clip_on=False,
            label=f"{limit.rule}: limit {number(limit.limit)} keeps {kept:.1%}",
        )
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    dress(axes, "limit, as a quantile of the calibration", "samples kept without correction")
    axes.legend(loc="best", borderaxespad=1.4, frameon=True, facecolor=PAPER, edgecolor=FAINT, fontsize=11, labelcolor=INK)
    return (render or png)(figure)


def _ruled_columns(scores: Mapping[str, np.ndarray], limits: Sequence[RuleLimit]) -> dict[str, np.ndarray]:
    """Columns that rules name, float64, each once and in the order of the rules."""
    if not limits:
        raise InputError("There is no rule to draw", "no limits", "at least one rule as it was applied")
    columns = {}
    for limit in limits:
        if limit.score not in scores:
            raise InputError(
                f"Rule {limit.rule} cannot be drawn",
                f"no score {limit.score} among {', '.join(sorted(scores))}",
                "the scores that the rules name",
            )
        columns[limit.score] = np.asarray(scores[limit.score], dtype=np.float64)
    if any(not len(column) for column in columns.values()):
        raise InputError("There are no samples to draw", "columns of length 0", "at least one sample")
    return columns


def _finite(columns: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    finite = columns[name][np.isfinite(columns[name])]
    if not len(finite):
        raise InputError(f"The calibration holds no score {name}", "only values that are not finite", "finite scores")
    return finite


def _kept(column: np.ndarray, calibration: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Share of ``column`` (N,) at or below each quantile (Q,) of the calibration (M,); NaN is never below."""
    within = np.sort(column)  # NaN comes last
    return np.searchsorted(within, np.quantile(calibration, quantiles), side="right") / len(column)


def _histogram(axes: Axes, name: str, column: np.ndarray, verdicts: np.ndarray, limits: Sequence[RuleLimit]) -> None:
    finite = np.isfinite(column)
    groups = [column[finite & (verdicts == verdict)] for verdict in VERDICT_COLORS]
    labels = [f"{verdict}: {np.count_nonzero(verdicts == verdict)}" for verdict in VERDICT_COLORS]
    edges = _bin_edges(column[finite], np.array([limit.limit for limit in limits]))
    axes.hist(groups, edges.tolist(), stacked=True, color=list(VERDICT_COLORS.values()), label=labels, zorder=2)
    axes.set_xlim(edges[0], edges[-1])
    axes.margins(y=0.12 + 0.12 * len(limits))  # room above the bars for the names of the limits
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    left_out = len(column) - np.count_nonzero(finite)
    dress(axes, f"{name} ({left_out} not finite, not drawn)" if left_out else name, "samples")
    for place, limit in enumerate(limits):
        _mark(axes, limit, 0.97 - 0.11 * place)


def _bin_edges(values: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Edges of some `BINS` bins over values and limits, one edge at the first limit, so that no bin lies on both of its sides.

    Counts get bins of whole numbers: none is fuller only for being wider.
    """
    low, high = min(limits.min(), values.min(initial=np.inf)), max(limits.max(), values.max(initial=-np.inf))
    if np.array_equal(values, np.rint(values)):
        step, anchor = float(max(1, ceil((high - low) / BINS))), floor(limits[0]) + 0.5
    else:
        step, anchor = (high - low) / BINS or 1.0, limits[0]  # 1.0: all values are the limit
    before, after = floor((anchor - low) / step) + 1, floor((high - anchor) / step) + 1
    return anchor + step * np.arange(-before, after + 1)


def _mark(axes: Axes, limit: RuleLimit, height: float) -> None:
    """The limit as a line, with its name on the side where there is more room."""
    axes.axvline(limit.limit, color=INK, linewidth=1.5, linestyle=(0, (4, 2)), zorder=3)
    low, high = axes.get_xlim()
    right = limit.limit < (low + high) / 2
    axes.annotate(
        f"{limit.rule}: over {number(limit.limit)} {limit.action} ({limit.source})",
        (limit.limit, height),
        xycoords=("data", "axes fraction"),
        xytext=(6 if right else -6, 0),
        textcoords="offset points",
        ha="left" if right else "right",
        va="top",
        fontsize=10.5,
        color=INK,
        zorder=4,
        bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.5},
    )


def dress(axes: Axes, below: str, beside: str) -> None:
    """The same plain look for all panels, whatever the user's matplotlib is set to."""
    axes.set_facecolor(PAPER)
    axes.set_xlabel(below, fontsize=12, color=INK)
    axes.set_ylabel(beside, fontsize=12, color=INK)
    axes.tick_params(labelsize=11, colors=MUTED)
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(MUTED)


def png(figure: Figure) -> bytes:
    buffer = BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})  # the version must not change the bytes
    return buffer.getvalue()
