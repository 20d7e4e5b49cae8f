"""The rules of a check as one figure: where the interval of each lies to its limit."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from qualitygate.errors import InputError
from qualitygate.policy.model import higher_is_better
from qualitygate.records.check import CheckRecord, RuleOutcome, RuleState
from qualitygate.reports.check_text import number
from qualitygate.reports.figures import DPI, WIDTH, Render, png
from qualitygate.reports.palette import FAINT, INK, LINE_COLORS, MUTED, PAPER

ROW = 0.56
"""Height of a rule in inches."""
_MARKS = {
    RuleState.PASSED: (LINE_COLORS[2], "o", LINE_COLORS[2]),
    RuleState.FAILED: (LINE_COLORS[1], "s", LINE_COLORS[1]),
    RuleState.INCONCLUSIVE: (LINE_COLORS[4], "o", PAPER),
}
"""Colour, marker and the marker's inside: a state is told without colour too."""
_INSET = 0.92  # of half the width, where the farthest end of a row lies


def interval_figure(record: CheckRecord, render: Render | None = None) -> bytes:
    """The rules that were measured, worst first, one row each, all turned so that right is worse.

    The line in the middle is the limit; an interval right of it fails, one left of it passes, one over it is inconclusive. Every row has a
    scale of its own, chosen by its farthest end; a diamond stands where the candidate would be if it equalled the baseline, so that the
    way from there to the limit is the margin.

    Args:
        record: of the check.
        render: what makes bytes of the figure; default: PNG, 900 pixels wide.

    Raises:
        InputError: no rule was measured.
    """
    rules = [one for one in record.worst_first if one.excess is not None]
    if not rules:
        raise InputError("There are no intervals to draw", "no rule with numbers", "at least one rule that was measured")
    height = ROW * len(rules) + 1.0
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor=PAPER)
    axes = figure.add_axes((0.25, 0.5 / height, 0.43, ROW * len(rules) / height))
    axes.set(xlim=(-1, 1), ylim=(len(rules) - 0.5, -0.5))
    axes.axis("off")
    _halves(axes)
    for row, one in enumerate(rules):
        _interval(axes, row, one)
        _words(axes, row, one)
    _legend(figure, rules)
    return (render or png)(figure)


def baseline_excess(one: RuleOutcome) -> float | None:
    """What the excess would be if the candidate equalled the baseline: the margin, below 0. None for a rule without a baseline."""
    if one.difference is None or one.excess is None:
        return None
    sign = -1.0 if higher_is_better(one.metric) else 1.0
    return one.excess.value - sign * one.difference.value


def _halves(axes: Axes) -> None:
    for low, high, state, word in ((-1, 0, RuleState.PASSED, "within the limit"), (0, 1, RuleState.FAILED, "beyond the limit")):
        axes.axvspan(low, high, color=_MARKS[state][0], alpha=0.07, linewidth=0)
        axes.annotate(
            word,
            ((low + high) / 2, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 5),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=11,
            color=MUTED,
        )
    axes.axvline(0, color=INK, linewidth=1.5)


def _interval(axes: Axes, row: int, one: RuleOutcome) -> None:
    assert one.excess is not None
    alike = baseline_excess(one)
    ends = (one.excess.low, one.excess.high, alike or 0.0)
    scale = _INSET / (max(map(abs, ends)) or 1.0)
    low, value, high = (scale * end for end in (one.excess.low, one.excess.value, one.excess.high))
    color, marker, inside = _MARKS[one.state]
    if row:
        axes.axhline(row - 0.5, color=FAINT, linewidth=0.8)
    if alike is not None:
        axes.plot(scale * alike, row, marker="D", markersize=7, color=PAPER, markeredgecolor=MUTED, markeredgewidth=1.3, zorder=2.5)
    axes.plot((low, high), (row, row), color=color, linewidth=3, solid_capstyle="butt")
    for end in (low, high):
        axes.plot((end, end), (row - 0.13, row + 0.13), color=color, linewidth=2)
    axes.plot(value, row, marker=marker, markersize=9, color=inside, markeredgecolor=color, markeredgewidth=1.6, zorder=3)


def _words(axes: Axes, row: int, one: RuleOutcome) -> None:
    metric = one.metric if one.severity == "critical" else f"{one.metric}, {one.severity}"
    against = "" if one.baseline is None else f", baseline {number(one.baseline)}"
    for x, align, above, below in (
        (-0.03, "right", _short(one.id, 25), _short(metric, 34)),
        (1.03, "left", f"{number(one.value)}{against}", one.rule),
    ):
        for text, y, color, size in ((above, row - 0.2, INK, 11.5), (below, row + 0.21, MUTED, 10)):
            axes.text(x, y, text, transform=axes.get_yaxis_transform(), ha=align, va="center", fontsize=size, color=color, parse_math=False)


def _legend(figure: Figure, rules: Sequence[RuleOutcome]) -> None:
    states = {one.state for one in rules}
    handles = [
        Line2D(
            [], [], color=color, linewidth=3, marker=marker, markersize=9, markerfacecolor=inside, markeredgecolor=color, label=state.value
        )
        for state, (color, marker, inside) in _MARKS.items()
        if state in states
    ]
    if any(baseline_excess(one) is not None for one in rules):
        handles.append(
            Line2D(
                [],
                [],
                linestyle="none",
                marker="D",
                markersize=7,
                color=PAPER,
                markeredgecolor=MUTED,
                markeredgewidth=1.3,
                label="as the baseline",
            )
        )
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), frameon=False, fontsize=11, labelcolor=INK, borderaxespad=0.2)


def _short(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 1]}…"
