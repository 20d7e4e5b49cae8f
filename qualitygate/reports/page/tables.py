"""Rows of the page's tables, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import binom

from qualitygate import names, timing
from qualitygate.metrics.estimate import TAIL, wilson
from qualitygate.records.gate import GateSummary, RuleLimit, Verdict
from qualitygate.reports.lettering import number
from qualitygate.reports.page.material import Gated

if TYPE_CHECKING:
    import pandas as pd

UNITS_SHOWN = 10
"""Units of each layer in a ranking."""


@dataclass(frozen=True)
class Cell:
    """A number and its interval at 95 %, as text; empty where there is none."""

    value: str
    interval: str = ""


@dataclass(frozen=True)
class RuleRow:
    """A rule, and how many samples are over it."""

    rule: str
    score: str
    limit: float
    source: str
    action: str
    over: str


def rule_rows(gated: Gated) -> list[RuleRow]:
    """Every limit as it was applied. Limits on corrected samples have no count."""
    rows = []
    for limit in gated.summary.limits:
        over, known = _over(gated, limit)
        shown = f"{over:,} of {known:,}" if limit.rule != "correction" and known else "–"
        rows.append(RuleRow(limit.rule, limit.score, limit.limit, limit.source, limit.action.value, shown))
    return rows


def _over(gated: Gated, limit: RuleLimit) -> tuple[int, int]:
    """How many samples are over a limit, and of how many the score is known."""
    if limit.rule in gated.over:
        return gated.over[limit.rule]
    column = gated.finite(limit.score)
    return int(np.count_nonzero(column > limit.limit)), len(column)


def cost_rows(summary: GateSummary) -> list[tuple[str, str]]:
    """Where the time went and what an image cost, as far as it was measured: seconds of one worker."""
    metrics, shares = summary.metrics, (timing.EARLY, timing.LATE)
    rows = [
        (title, f"{number(metrics[name])} s")
        for name, title in (
            (names.SECONDS, "gating, all workers together"),
            (names.COST_ACCEPTED, "a kept image, with the gate"),
            (names.COST_FILTERED, "an accepted image, if all were made whole and judged by nothing that costs"),
            (names.COST_UNGATED, "an image, without a gate"),
        )
        if name in metrics
    ]
    if names.IMAGES_PER_SECOND in metrics:
        rows.append(("samples a second, of one worker", number(metrics[names.IMAGES_PER_SECOND])))
    for part, title in zip(shares, ("early layers, scores and corrections", "remaining layers"), strict=True):
        if (name := names.time_share(part)) in metrics:
            rows.append((f"share of the time: {title}", f"{metrics[name]:.0%}"))
    return rows


def share_cell(count: int, total: int) -> Cell:
    """A share with Wilson's interval."""
    if not total:
        return Cell("–")
    low, high = wilson(count, total)
    return Cell(f"{count / total:.1%}", f"{abs(low):.1%} … {high:.1%}")  # no minus before a bound that rounds to 0


def quantile_cell(values: np.ndarray, q: float) -> Cell:
    """A quantile with the interval between order statistics, whose ranks are binomial: true for any distribution."""
    if not len(values):
        return Cell("–")
    ordered = np.sort(values)
    low, high = binom.ppf((TAIL, 1.0 - TAIL), len(values), q).astype(int)
    bounds = ordered[max(low - 1, 0)], ordered[min(high, len(values) - 1)]
    return Cell(number(float(np.quantile(values, q))), f"{number(float(bounds[0]))} … {number(float(bounds[1]))}")


def set_rows(sets: Sequence[Gated]) -> list[tuple[str, list[Cell]]]:
    """Shares of the verdicts and quantiles of scores, one cell a set; scores that only some sets have are dashes in the others."""
    rows: list[tuple[str, list[Cell]]] = []
    counts = {
        names.YIELD: lambda one: one.summary.accepted + one.summary.corrected,
        names.ACCEPTED_SHARE: lambda one: one.summary.accepted,
        names.CORRECTED_SHARE: lambda one: one.summary.corrected,
        names.REJECTED_SHARE: lambda one: one.summary.rejected,
        names.BORDERLINE_SHARE: lambda one: one.summary.borderline,
    }
    for name, count in counts.items():
        rows.append((name, [share_cell(count(one), one.summary.samples) for one in sets]))
    for score in dict.fromkeys(score for one in sets for score in one.scores):
        rows += [(names.quantile(score, q), [quantile_cell(one.finite(score), q) for one in sets]) for q in (0.5, 0.9)]
    return rows


def unit_rankings(units: pd.DataFrame) -> dict[int, tuple[list[str], list[list[object]]]]:
    """By layer, the columns and rows of the units to suspect first."""
    by = ranked_by(units)
    found = {}
    for layer, of_layer in units.groupby(names.LAYER):
        columns = [name for name in units.columns if name not in (names.LAYER, names.UNIT) and of_layer[name].notna().any()]
        best = of_layer.sort_values(by, ascending=False, na_position="last", kind="stable").head(UNITS_SHOWN)
        found[int(layer)] = (columns, best[columns].astype(object).to_numpy().tolist())
    return found


def ranked_by(units: pd.DataFrame) -> list[str]:
    """Columns by which units are ranked: their joined rank where a study made one, else CLA, then low-rate activity."""
    if names.UNIT_JOINED in units:
        return [names.UNIT_JOINED]
    return [name for name in (names.UNIT_CLA, names.UNIT_LOW_RATE) if name in units and units[name].notna().any()]


def verdict_counts(gated: Gated) -> list[tuple[str, int, Cell]]:
    """How many samples each verdict has."""
    summary = gated.summary
    counts = {Verdict.ACCEPT: summary.accepted, Verdict.CORRECT: summary.corrected, Verdict.REJECT: summary.rejected}
    return [(verdict.value, count, share_cell(count, summary.samples)) for verdict, count in counts.items()]
