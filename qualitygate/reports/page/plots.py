"""Figures that only the page has: all samples as points, and what a limit elsewhere would cost and gain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from qualitygate import names
from qualitygate.policy.scores import cla_layer
from qualitygate.records.gate import RuleLimit
from qualitygate.records.metrics import metric
from qualitygate.reports.figures import DPI, WIDTH, Render, dress
from qualitygate.reports.page.material import Gated
from qualitygate.reports.palette import FAINT, INK, LINE_COLORS, MUTED, PAPER, VERDICT_COLORS

QUALITIES = (names.REALISM, names.DISCRIMINATOR, names.PPL)
"""What a sample's quality is taken from where it was measured, the first that is there."""
_KEPT = 61  # points of a line
_FEWEST = 10  # samples that a mean is taken of


def partner(gated: Gated) -> str | None:
    """The score that is drawn against the headline count: CLA, else the risk; None if neither was scored of two samples."""
    candidates = [name for name in gated.columns if cla_layer(name) is not None] + [names.RISK]
    return next((name for name in candidates if len(gated.finite(name)) > 1), None)


def scatter_figure(gated: Gated, other: str, render: Render) -> bytes:
    """Every sample that has both: its low-rate count and another score, coloured by verdict, limits as lines."""
    x, y = (np.asarray(gated.columns[name], dtype=np.float64) for name in (gated.headline, other))
    verdicts = np.asarray(gated.columns[names.VERDICT]).astype(str)
    known = np.isfinite(x) & np.isfinite(y)
    figure = Figure(figsize=(WIDTH, 4.6), dpi=DPI, facecolor=PAPER, layout="constrained")
    axes = figure.subplots()
    for verdict, color in VERDICT_COLORS.items():
        rows = known & (verdicts == verdict)
        axes.plot(
            x[rows],
            y[rows],
            "o",
            color=color,
            markersize=5,
            alpha=0.6,
            markeredgewidth=0,
            rasterized=True,
            label=f"{verdict}: {np.count_nonzero(rows)}",
        )
    for limit in gated.summary.limits:
        if limit.score == gated.headline:
            axes.axvline(limit.limit, color=INK, linewidth=1.2, linestyle=(0, (4, 2)))
        elif limit.score == other:
            axes.axhline(limit.limit, color=INK, linewidth=1.2, linestyle=(0, (4, 2)))
    dress(axes, gated.headline, other)
    axes.legend(frameon=True, facecolor=PAPER, edgecolor=FAINT, fontsize=11, labelcolor=INK)
    return render(figure)


def quality_figure(score: str, columns: Mapping[str, np.ndarray], limits: Sequence[RuleLimit], render: Render) -> bytes | None:
    """Mean quality of the samples that stay if the limit of a score moves, against how many stay; with the band of two standard errors.

    Returns:
        None if no quality of single samples was measured, or not of enough.
    """
    quality = next((name for name in QUALITIES if name in columns), None)
    if quality is None or score not in columns:
        return None
    scores, values = (np.asarray(columns[name], dtype=np.float64) for name in (score, quality))
    known = np.isfinite(scores) & np.isfinite(values)
    order = np.argsort(scores[known], kind="stable")
    ranked, values = scores[known][order], values[known][order]
    if len(values) < 2 * _FEWEST:
        return None
    counts = np.unique(np.linspace(_FEWEST, len(values), _KEPT).astype(int))
    means = np.cumsum(values)[counts - 1] / counts
    errors = np.sqrt(np.maximum(np.cumsum(values**2)[counts - 1] / counts - means**2, 0.0) / counts)
    figure = Figure(figsize=(WIDTH, 4.2), dpi=DPI, facecolor=PAPER, layout="constrained")
    axes = figure.subplots()
    color = LINE_COLORS[0]
    axes.fill_between(counts / len(values), means - 2 * errors, means + 2 * errors, color=color, alpha=0.2, linewidth=0)
    axes.plot(counts / len(values), means, color=color, linewidth=2)
    axes.axhline(values.mean(), color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)), label="all samples, or any at random")
    for limit in (limit for limit in limits if limit.score == score):
        kept = float((ranked <= limit.limit).mean())
        axes.axvline(kept, color=INK, linewidth=1.2, linestyle=(0, (4, 2)), label=f"{limit.rule} keeps {kept:.1%}")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    better = "higher" if metric(quality).higher_is_better else "lower"
    dress(axes, f"samples kept: those with the lowest {score}", f"mean {metric(quality).title} ({better} is better)")
    axes.legend(frameon=True, facecolor=PAPER, edgecolor=FAINT, fontsize=11, labelcolor=INK)
    return render(figure)


def overlay_figure(columns: Mapping[str, np.ndarray], score: str, limit: float | None, render: Render) -> bytes:
    """Distribution functions of one score in several sets: how many samples lie at or below each value.

    Args:
        columns: finite values of the score, not empty, by the set's short name.
        score: its name.
        limit: where the first set's rule stands, if it has one.
        render: makes the file.
    """
    figure = Figure(figsize=(WIDTH, 4.0), dpi=DPI, facecolor=PAPER, layout="constrained")
    axes = figure.subplots()
    for place, (name, column) in enumerate(columns.items()):
        axes.ecdf(column, compress=True, color=LINE_COLORS[place % len(LINE_COLORS)], linewidth=2, label=f"{name} ({len(column):,})")
    if limit is not None:
        axes.axvline(limit, color=INK, linewidth=1.2, linestyle=(0, (4, 2)), label="limit of the first")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    dress(axes, score, "samples at or below")
    axes.legend(frameon=True, facecolor=PAPER, edgecolor=FAINT, fontsize=11, labelcolor=INK)
    return render(figure)
