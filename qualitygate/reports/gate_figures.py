"""Figures of a gated set, 900 pixels wide: its scores with their limits, what each rule keeps, all samples as points, several sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, floor
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.policy.scores import badness, cla_layer
from qualitygate.records.gate import RuleLimit, Verdict
from qualitygate.reports.material import Gated, more_is_worse
from qualitygate.reports.study_figures import metric_words
from qualitygate.reports.style import (
    DASHED,
    INK,
    MUTED,
    PAPER,
    REFERENCE,
    VERDICT_COLORS,
    Render,
    dress,
    floats,
    key,
    line_color,
    number,
    panels,
    png,
)

BINS = 60
QUALITIES = (names.REALISM, names.DISCRIMINATOR, names.PPL)
"""What a sample's quality is taken from where it was measured, the first that is there."""
_POINTS = 61  # of a line
_FEWEST = 10  # samples that a mean is taken of


def score_figure(scores: Mapping[str, np.ndarray], limits: Sequence[RuleLimit], verdicts: np.ndarray, render: Render = png) -> bytes:
    """Histograms of the scores that rules name, each (N,), coloured by verdict (N,), with the limits as vertical lines; one panel for each
    score. Values that are not finite are counted and not drawn. `InputError` for no samples or rules, an unknown score or verdict, or
    columns of different lengths."""
    columns = _ruled_columns(scores, limits)
    verdicts = np.asarray(verdicts).astype(str)
    if unknown := sorted(set(verdicts.tolist()) - {str(verdict) for verdict in Verdict}):
        raise InputError("These are no verdicts", ", ".join(unknown), ", ".join(Verdict))
    if any(len(column) != len(verdicts) for column in columns.values()):
        found = f"{len(verdicts)} verdicts, scores of another length"
        raise InputError("Scores and verdicts do not belong together", found, "one verdict for each sample")
    figure, cells = panels(0.5 + 2.9 * len(columns), len(columns))
    for axes, (name, column) in zip(cells, columns.items(), strict=True):
        _histogram(axes, name, column, verdicts, [limit for limit in limits if limit.score == name])
    handles, labels = cells[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False, fontsize=11, labelcolor=INK)
    return render(figure)


def trade_off_figure(
    scores: Mapping[str, np.ndarray], calibration: Mapping[str, np.ndarray], limits: Sequence[RuleLimit], render: Render = png
) -> bytes:
    """What each rule would keep if its limit stood elsewhere: the share of the gated samples that stay within a limit at
    each quantile of the calibration. On the dashed diagonal the gated samples are like the calibration's. A value that is not finite is
    not kept. `InputError` for no samples or rules, or a score that is missing on either side.
    """
    columns, known = _ruled_columns(scores, limits), _ruled_columns(calibration, limits)
    for name, column in known.items():
        known[name] = column[np.isfinite(column)]
        if not len(known[name]):
            raise InputError(f"The calibration holds no score {name}", "only values that are not finite", "finite scores")
    figure, (axes,) = panels(5.0)
    quantiles = np.linspace(0.0, 1.0, 401)
    colors = {name: line_color(place) for place, name in enumerate(columns)}
    axes.plot((0, 1), (0, 1), color=MUTED, linestyle=REFERENCE, linewidth=1.2, label="as in the calibration")
    for name, column in columns.items():
        shares = _share_within(badness(name, column), badness(name, known[name]), quantiles)
        label = name if more_is_worse(name) else f"{name} (quantiles from above)"
        axes.plot(quantiles, shares, color=colors[name], linewidth=2, label=label)
    for limit in limits:
        at, share = (_share_kept(limit, of[limit.score]) for of in (known, columns))
        label = f"{limit.rule}: limit {number(limit.limit)} keeps {share:.1%}"
        mark: dict[str, Any] = {"markersize": 9, "markeredgecolor": PAPER, "zorder": 3, "clip_on": False}
        axes.plot(at, share, "o", color=colors[limit.score], label=label, **mark)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    dress(axes, "limit, as a quantile of the calibration", "samples kept without correction")
    key(axes, loc="best", borderaxespad=1.4)
    return render(figure)


def second_score(gated: Gated) -> str | None:
    """The score that is drawn against the headline count: CLA, else the risk; None if neither was scored of two samples."""
    candidates = [name for name in gated.columns if cla_layer(name) is not None] + [names.RISK]
    return next((name for name in candidates if len(gated.finite(name)) > 1), None)


def scatter_figure(gated: Gated, other: str, render: Render) -> bytes:
    """Every sample that has both: its low-rate count and another score, coloured by verdict, limits as lines."""
    x, y = (floats(gated.columns[name]) for name in (gated.headline, other))
    verdicts = np.asarray(gated.columns[names.VERDICT]).astype(str)
    known = np.isfinite(x) & np.isfinite(y)
    figure, (axes,) = panels(4.6)
    for verdict, color in VERDICT_COLORS.items():
        rows = known & (verdicts == verdict)
        dots: dict[str, Any] = {"markersize": 5, "alpha": 0.6, "markeredgewidth": 0, "rasterized": True}
        axes.plot(x[rows], y[rows], "o", color=color, label=f"{verdict}: {np.count_nonzero(rows)}", **dots)
    for limit in gated.summary.limits:
        if limit.score in (gated.headline, other):
            line = axes.axvline if limit.score == gated.headline else axes.axhline
            line(limit.limit, color=INK, linewidth=1.2, linestyle=DASHED)
    dress(axes, gated.headline, other)
    key(axes)
    return render(figure)


def quality_figure(score: str, columns: Mapping[str, np.ndarray], limits: Sequence[RuleLimit], render: Render) -> bytes | None:
    """Mean quality of the samples that stay if the limit of a score moves, against how many stay; with the band of two standard errors.
    None if no quality of single samples was measured, or not of enough."""
    quality = next((name for name in QUALITIES if name in columns), None)
    if quality is None or score not in columns:
        return None
    scores, values = floats(columns[score]), floats(columns[quality])
    known = np.isfinite(scores) & np.isfinite(values)
    scores, values = scores[known], values[known]
    if len(values) < 2 * _FEWEST:
        return None
    ranked = values[np.argsort(badness(score, scores), kind="stable")]
    counts = np.unique(np.linspace(_FEWEST, len(values), _POINTS).astype(int))
    means = np.cumsum(ranked)[counts - 1] / counts
    errors = np.sqrt(np.maximum(np.cumsum(ranked**2)[counts - 1] / counts - means**2, 0.0) / counts)
    figure, (axes,) = panels(4.2)
    axes.fill_between(counts / len(values), means - 2 * errors, means + 2 * errors, color=line_color(0), alpha=0.2, linewidth=0)
    axes.plot(counts / len(values), means, color=line_color(0), linewidth=2)
    axes.axhline(ranked.mean(), color=MUTED, linewidth=1.2, linestyle=REFERENCE, label="all samples, or any at random")
    for limit in (limit for limit in limits if limit.score == score):
        share = _share_kept(limit, scores)
        axes.axvline(share, color=INK, linewidth=1.2, linestyle=DASHED, label=f"{limit.rule} keeps {share:.1%}")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    dress(axes, f"samples kept: those with the {'lowest' if more_is_worse(score) else 'highest'} {score}", f"mean {metric_words(quality)}")
    key(axes)
    return render(figure)


def overlay_figure(columns: Mapping[str, np.ndarray], score: str, limit: float | None, render: Render) -> bytes:
    """Distribution functions of one score in several sets, by the set's short name: how many of its samples, all finite, lie at or below
    each value. ``limit`` is where the first set's rule stands, if it has one."""
    figure, (axes,) = panels(4.0)
    for place, (name, column) in enumerate(columns.items()):
        axes.ecdf(column, compress=True, color=line_color(place), linewidth=2, label=f"{name} ({len(column):,})")
    if limit is not None:
        axes.axvline(limit, color=INK, linewidth=1.2, linestyle=DASHED, label="limit of the first")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    dress(axes, score, "samples at or below")
    key(axes)
    return render(figure)


def _ruled_columns(scores: Mapping[str, np.ndarray], limits: Sequence[RuleLimit]) -> dict[str, np.ndarray]:
    """Columns that rules name, float64, each once and in the order of the rules."""
    if not limits:
        raise InputError("There is no rule to draw", "no limits", "at least one rule as it was applied")
    columns = {}
    for limit in limits:
        if limit.score not in scores:
            found = f"no score {limit.score} among {', '.join(sorted(scores))}"
            raise InputError(f"Rule {limit.rule} cannot be drawn", found, "the scores that the rules name")
        columns[limit.score] = floats(scores[limit.score])
    if any(not len(column) for column in columns.values()):
        raise InputError("There are no samples to draw", "columns of length 0", "at least one sample")
    return columns


def _share_kept(limit: RuleLimit, column: np.ndarray) -> float:
    """Share of a column (N,) of its score that a rule keeps; NaN is not kept."""
    return float((badness(limit.score, column) <= badness(limit.score, floats(limit.limit))).mean())


def _share_within(column: np.ndarray, calibration: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
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
    beyond = "over" if more_is_worse(name) else "under"
    for place, limit in enumerate(limits):
        axes.axvline(limit.limit, color=INK, linewidth=1.5, linestyle=DASHED, zorder=3)
        # its name stands on the side where there is more room
        x, align = (6, "left") if limit.limit < sum(axes.get_xlim()) / 2 else (-6, "right")
        how: dict[str, Any] = {"textcoords": "offset points", "ha": align, "va": "top", "fontsize": 10.5, "color": INK, "zorder": 4}
        box = {"facecolor": PAPER, "edgecolor": "none", "pad": 1.5}
        words, at = f"{limit.rule}: {beyond} {number(limit.limit)} {limit.action} ({limit.source})", (limit.limit, 0.97 - 0.11 * place)
        axes.annotate(words, at, xycoords=("data", "axes fraction"), xytext=(x, 0), bbox=box, **how)


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
