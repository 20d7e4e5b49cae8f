"""How everything that is drawn looks: a light theme, hues that colour-blind readers tell apart, panels of one width.

Only matplotlib's objects are used, never pyplot: no display, and no state outside the figure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from math import isfinite
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from qualitygate.records.gate import Verdict

VERDICT_COLORS: Mapping[Verdict, str] = {Verdict.ACCEPT: "#0072B2", Verdict.CORRECT: "#E69F00", Verdict.REJECT: "#D55E00"}
"""From the best to the worst."""
LINE_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Colours of lines that stand for no verdict, in the order of use: hues of Okabe and Ito."""

PAPER = "#FFFFFF"
INK = "#1F2328"
MUTED = "#59636E"  # second-rank text; still 6:1 against the paper
FAINT = "#E4E7EB"  # rules, grids and empty places

HEAT_MAP = "magma"  # of matplotlib: perceptually uniform, rising in lightness
WIDTH, DPI = 9.0, 100  # inches, and pixels an inch
DASHED, REFERENCE = (0, (4, 2)), (0, (4, 3))  # line styles: of a limit, and of what something is held against

Render = Callable[[Figure], bytes]  # makes a file of a figure


def blank(height: float, width: float = WIDTH) -> Figure:
    """An empty figure, in inches."""
    return Figure(figsize=(width, height), dpi=DPI, facecolor=PAPER, layout="constrained")


def panels(height: float, count: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of panels below each other, ``height`` being that of the whole."""
    figure = blank(height)
    return figure, list(figure.subplots(count, 1, squeeze=False)[:, 0])


def line_color(place: int) -> str:
    """Colour of the line at a place in the order of use."""
    return LINE_COLORS[place % len(LINE_COLORS)]


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


def key(of: Axes | Figure, **how: Any) -> None:
    """The key to the lines of a panel or a figure, in a frame."""
    of.legend(**{"frameon": True, "facecolor": PAPER, "edgecolor": FAINT, "fontsize": 11, "labelcolor": INK, **how})


def png(figure: Figure) -> bytes:
    buffer = BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})  # the version must not change the bytes
    return buffer.getvalue()


def number(value: float) -> str:
    """A score or a limit for people: counts in full, other numbers with four digits."""
    if not isfinite(value):
        return "not finite"
    return f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e9 else f"{value:.4g}"


def floats(values: Any) -> np.ndarray:
    """A column as float64 (N,); None is NaN."""
    return np.asarray(values, dtype=np.float64)
