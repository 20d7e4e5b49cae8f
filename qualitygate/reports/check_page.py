"""A check as one page of HTML that needs nothing else: no script, no font, no picture from anywhere; and its rules as one figure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from qualitygate.errors import InputError
from qualitygate.policy.model import higher_is_better
from qualitygate.records import Interval
from qualitygate.records.check import WORST_FIRST, CheckRecord, RuleOutcome, RuleState
from qualitygate.reports.check_text import cells, footing, number, reason, unmet_wishes
from qualitygate.reports.markup import data_uri, inline, render
from qualitygate.reports.pictures import webp
from qualitygate.reports.sheets import comparison_sheet
from qualitygate.reports.style import DPI, FAINT, INK, LINE_COLORS, MUTED, PAPER, WIDTH, Render, png
from qualitygate.reports.tables import Cell

ROW = 0.56  # height of a rule in inches
_MARKS = {
    RuleState.PASSED: (LINE_COLORS[2], "o", LINE_COLORS[2]),
    RuleState.FAILED: (LINE_COLORS[1], "s", LINE_COLORS[1]),
    RuleState.INCONCLUSIVE: (LINE_COLORS[4], "o", PAPER),
}
"""Colour, marker and the marker's inside: a state is told without colour too."""
_DIAMOND: dict[str, Any] = {"marker": "D", "markersize": 7, "color": PAPER, "markeredgecolor": MUTED, "markeredgewidth": 1.3}
"""Where the candidate would be if it equalled the baseline."""
_INSET = 0.92  # of half the width, where the farthest end of a row lies
_SIDE = 96  # of the images on the page, in pixels


@dataclass(frozen=True)
class Sheet:
    """Samples to look at."""

    title: str  # what they have in common
    caption: str  # how they were chosen
    captions: Sequence[str]  # of each sample
    rows: Mapping[str, Sequence[np.ndarray]]  # by whose they are, uint8 images (height, width, channels), one for each sample


def check_page(record: CheckRecord, policy: str, sheets: Sequence[Sheet] = ()) -> str:
    """The page, with the policy that was checked by, as YAML. Everything that came from outside is escaped."""
    counts = Counter(one.state for one in record.rules)
    return render(
        "check.html.j2",
        {
            "record": record,
            "policy": policy,
            "reason": reason(record),
            "footing": footing(record),
            "counts": [(state.value.replace("_", " "), state.value, counts[state]) for state in WORST_FIRST],
            "rows": [(one, row, _cell(one.difference), _cell(one.excess)) for one, row in cells(record)],
            "look_at": [
                (one, _with_code(one.note or one.advice or ""))
                for one in record.worst_first
                if one.state in (RuleState.FAILED, RuleState.INCONCLUSIVE)
            ],
            "wishes": unmet_wishes(record),
            "figure": inline("rules", partial(interval_figure, record)) if any(one.excess for one in record.rules) else None,
            "sheets": [
                (sheet, data_uri(webp(comparison_sheet(sheet.captions, sheet.rows, sheet.title, columns=6, scale_to=_SIDE))))
                for sheet in sheets
            ],
        },
    )


def _with_code(text: str) -> Markup:
    """Text whose parts between backticks are code."""
    parts = (escape(part) if place % 2 == 0 else Markup("<code>{}</code>").format(part) for place, part in enumerate(text.split("`")))
    return Markup("").join(parts)


def _cell(found: Interval | None) -> Cell:
    return Cell("–") if found is None else Cell(f"{found.value:+.3g}", f"{found.low:+.3g} … {found.high:+.3g}")


def interval_figure(record: CheckRecord, render: Render = png) -> bytes:
    """The rules that were measured, worst first, one row each, all turned so that right is worse. 900 pixels wide.

    The line in the middle is the limit; an interval right of it fails, one left of it passes, one over it is inconclusive. Every row has a
    scale of its own, chosen by its farthest end; a diamond stands where the candidate would be if it equalled the baseline, so that the
    way from there to the limit is the margin.
    """
    rules = [one for one in record.worst_first if one.excess is not None]
    if not rules:
        raise InputError("There are no intervals to draw", "no rule with numbers", "at least one rule that was measured")
    height = ROW * len(rules) + 1.0
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor=PAPER)
    axes = figure.add_axes((0.25, 0.5 / height, 0.43, ROW * len(rules) / height))
    axes.set(xlim=(-1, 1), ylim=(len(rules) - 0.5, -0.5))
    axes.axis("off")
    for low, state, word in ((-1, RuleState.PASSED, "within the limit"), (0, RuleState.FAILED, "beyond the limit")):
        axes.axvspan(low, low + 1, color=_MARKS[state][0], alpha=0.07, linewidth=0)
        above: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "xytext": (0, 5), "textcoords": "offset points", "va": "bottom"}
        axes.annotate(word, (low + 0.5, 1.0), ha="center", fontsize=11, color=MUTED, **above)
    axes.axvline(0, color=INK, linewidth=1.5)
    for row, one in enumerate(rules):
        _interval(axes, row, one)
        _words(axes, row, one)
    handles = []
    for state, (color, marker, inside) in _MARKS.items():
        if any(one.state is state for one in rules):
            ends: dict[str, Any] = {"marker": marker, "markersize": 9, "markerfacecolor": inside, "markeredgecolor": color}
            handles.append(Line2D([], [], color=color, linewidth=3, label=state.value, **ends))
    if any(baseline_excess(one) is not None for one in rules):
        handles.append(Line2D([], [], linestyle="none", label="as the baseline", **_DIAMOND))
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), frameon=False, fontsize=11, labelcolor=INK, borderaxespad=0.2)
    return render(figure)


def baseline_excess(one: RuleOutcome) -> float | None:
    """What the excess would be if the candidate equalled the baseline: the margin, below 0. None for a rule without a baseline."""
    if one.difference is None or one.excess is None:
        return None
    sign = -1.0 if higher_is_better(one.metric) else 1.0
    return one.excess.value - sign * one.difference.value


def _interval(axes: Axes, row: int, one: RuleOutcome) -> None:
    assert one.excess is not None
    as_baseline = baseline_excess(one)
    scale = _INSET / (max(abs(one.excess.low), abs(one.excess.high), abs(as_baseline or 0.0)) or 1.0)
    low, value, high = (scale * end for end in (one.excess.low, one.excess.value, one.excess.high))
    color, marker, inside = _MARKS[one.state]
    if row:
        axes.axhline(row - 0.5, color=FAINT, linewidth=0.8)
    if as_baseline is not None:
        axes.plot(scale * as_baseline, row, zorder=2.5, **_DIAMOND)
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


def _short(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 1]}…"
