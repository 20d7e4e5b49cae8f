"""The picture of screening: estimates against exact scores, tier by tier."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from drawing.look import BLUE, RED, below, blank
from drawing.subject import Subject
from qualitygate.gating.curvature import fitted_screen, free_evidence, stage_column
from qualitygate.reports.style import INK, dress, png
from qualitygate.scores.local_activation import DIVISIONS
from qualitygate.scores.screening import Bounds, schedule
from qualitygate.units.score import rank_correlation


def screening_ladder(subject: Subject) -> bytes:
    """The half of the pilot that nothing was fitted on, tier by tier: estimates with their intervals, and what is still open."""
    layer, scores, stages = subject.layer, subject.profile.scores, schedule(subject.generator.latent_size)
    columns = [stage_column(stage, subject.generator.latent_size, layer) for stage in stages]
    rows = np.flatnonzero(np.isfinite(scores[columns[-1]]))
    limit = float(np.quantile(scores[columns[-1]][rows], 0.9, method="higher"))
    evidence = free_evidence(scores, subject.scored, subject.profile.info.rates)
    screen = fitted_screen(scores, evidence, subject.generator.latent_size, layer, [limit], 0.01, elsewhere=False)
    held = rows[1::2]
    exact, estimates = scores[columns[-1]][held], np.column_stack([scores[name][held] for name in columns[:-1]])
    figure, waiting, shares = blank(4.6), np.ones(len(held), dtype=bool), [1.0]
    *panels, last = figure.subplots(1, 4, width_ratios=(1, 1, 1, 0.8))
    for tier in range(len(stages)):
        bounds = screen.bounds(tier, evidence[held], estimates)
        over = waiting & (bounds.low <= limit) & (bounds.high > limit)
        if tier < len(panels):
            walked = (
                f"{stages[tier - 1].axes} axes: {sum(one.passes(stages[:at], DIVISIONS) for at, one in enumerate(stages[:tier]))} passes"
                if tier
                else "no pass beyond the usual one"
            )
            panels[tier].set_title(f"{walked}\nrank correlation {rank_correlation(bounds.value, exact):.3f}", fontsize=12, color=INK)
            _tier(panels[tier], exact, bounds, waiting & ~over, over, limit)
        waiting = over
        shares.append(float(waiting.mean()))
    below(figure, panels[0])
    last.bar(range(len(shares) - 1), [100 * share for share in shares[1:]], color=RED)
    words = ["none", *(f"{stage.axes} × {2 * len(stage.points or range(DIVISIONS // 2))}" for stage in stages[:-1])]
    last.set_xticks(range(len(words)), words, rotation=50)
    last.set_title("still open after each tier;\nat last the exact score", fontsize=12, color=INK)
    dress(last, "axes × grid points", "% of the samples")
    return png(figure)


def _tier(axes: Axes, exact: np.ndarray, bounds: Bounds, settled: np.ndarray, waiting: np.ndarray, limit: float) -> None:
    for some, color, word in ((settled, BLUE, "verdict settled"), (waiting, RED, "interval over the limit: one tier up")):
        reach = np.stack((bounds.value - bounds.low, bounds.high - bounds.value))[:, some]
        axes.errorbar(exact[some], bounds.value[some], yerr=reach, fmt="o", markersize=3, linewidth=0.7, color=color, label=word)
    axes.axhline(limit, color=INK, linewidth=1.2, linestyle=(0, (4, 3)), label="limit")
    axes.axvline(limit, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    low, high = exact.min(), exact.max()
    axes.set(xlim=(0.95 * low, 1.02 * high), ylim=(0.95 * low, 1.02 * high))
    dress(axes, "exact CLA", "estimate")
