"""The report of one gated set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from qualitygate import names
from qualitygate.records.dynamics import DynamicsRecord
from qualitygate.records.metrics import MetricsReport
from qualitygate.reports import tables
from qualitygate.reports.dynamics_figures import training_figure
from qualitygate.reports.gate_figures import overlay_figure, quality_figure, scatter_figure, score_figure, second_score, trade_off_figure
from qualitygate.reports.markup import data_uri, inline, render
from qualitygate.reports.material import Gated, Material, MeasuredMetrics, UnitPage, more_is_worse, rules_on_samples
from qualitygate.reports.pictures import webp
from qualitygate.reports.study_figures import discriminator_figure, group_figure, precision_recall_figure
from qualitygate.reports.style import Render, floats

SHEET_WIDTH, SHEET_QUALITY = 1100, 68  # of the sheets of units: in pixels, at most, and WebP's
_FREQUENT = 8  # reasons that are listed
_METRIC_PLOTS = (
    ("precision-recall", "Precision and recall", "Of groups of one size, with intervals.", precision_recall_figure),
    ("groups", "Metrics by group", "With intervals; the band is where 95 % of random groups fall.", group_figure),
    ("discriminator", "Discriminator", "How its values are distributed in each group.", discriminator_figure),
)

Plot = dict[str, Any]  # a figure as the template shows it: title, caption and svg


def report_page(material: Material) -> str:
    """One self-contained HTML document. Texts in the material, checkpoint names above all, are not trusted."""
    gated = material.gated
    found = tables.tiles(gated)
    roles = [role for tile in found for role in tile["roles"]]
    values: dict[str, Any] = {
        "gated": gated,
        "summary": gated.summary,
        "verdicts": tables.verdict_counts(gated),
        "rules": tables.rule_rows(gated),
        "reasons": sorted(gated.summary.reasons.items(), key=lambda item: (-item[1], item[0]))[:_FREQUENT],
        "score_rows": tables.set_rows([gated]),
        "scores": _scores(gated),
        "scatter": _scatter(gated),
        "tiles": found,
        "roles": {role: roles.count(role) for role in dict.fromkeys(roles)},
        "units": None if gated.units is None else tables.unit_rankings(gated.units),
        "study": None if material.units is None else _study(material.units),
        "metrics": None if material.metrics is None else _metrics(material.metrics.report),
        "costs": tables.cost_rows(gated.summary),
        "trade_off": _trade_off(gated, material.metrics),
        "dynamics": material.dynamics,
        "training": None if material.dynamics is None else _training(material.dynamics),
        "baseline": None if material.baseline is None else _baseline(gated, material.baseline),
    }
    return render("report.html.j2", values)


def overlay(sets: Sequence[tuple[str, Gated]]) -> Plot | None:
    """The headline score of the first set in all sets that have it; None if fewer than two do."""
    first = sets[0][1]
    columns = {name: one.finite(first.headline) for name, one in sets if len(one.finite(first.headline))}
    if len(columns) < 2:
        return None
    limit = next((limit.limit for limit in first.summary.limits if limit.score == first.headline), None)
    draw = partial(overlay_figure, columns, first.headline, limit)
    return _plot("overlay", first.headline, "Share of the samples at or below each value.", draw)


def _plot(name: str, title: str, caption: str, draw: Callable[[Render], bytes | None]) -> Plot | None:
    """A figure as a part of the page; None where there is nothing to draw."""
    svg = inline(name, draw)
    return None if svg is None else {"title": title, "caption": caption.rstrip(), "svg": svg}


def _scores(gated: Gated) -> list[Plot | None]:
    rules = [limit for limit in rules_on_samples(gated.summary.limits) if len(gated.finite(limit.score))]
    if not rules:
        return []
    what = f"Samples by score, coloured by verdict; dashed lines are the limits. {gated.drawn}"
    draw = partial(score_figure, gated.columns, rules, np.asarray(gated.columns[names.VERDICT]))
    return [_plot("scores", "Scores and limits", what, draw)]


def _scatter(gated: Gated) -> Plot | None:
    other = second_score(gated)
    if other is None or not len(gated.finite(gated.headline)):
        return None
    both = np.isfinite(floats(gated.columns[gated.headline])) & np.isfinite(floats(gated.columns[other]))
    what = f"Each point is one of the {np.count_nonzero(both):,} samples for which both were computed. {gated.drawn}"
    return _plot("scatter", f"{gated.headline} and {other}", what, partial(scatter_figure, gated, other))


def _study(units: UnitPage) -> dict[str, Any]:
    sheets = {}
    for title, sheet in units.sheets.items():
        factor = min(1.0, SHEET_WIDTH / sheet.width)
        small = sheet.convert("RGB").resize((round(sheet.width * factor), round(sheet.height * factor)))
        sheets[title] = data_uri(webp(small, SHEET_QUALITY))
    return {"rankings": tables.unit_rankings(units.table), "sheets": sheets}


def _metrics(report: MetricsReport) -> dict[str, Any]:
    """Titles of the metrics that some group has, a row a group, and the figures."""
    rows = [
        (row.group.replace("_", ", "), row.what, row.samples, [tables.metric_cell(row.measurements.get(one.name)) for one in report.shown])
        for row in report.groups
    ]
    plots = [_plot(name, title, caption, partial(draw, report)) for name, title, caption, draw in _METRIC_PLOTS]
    header = [one.heading for one in report.shown]
    return {"report": report, "header": header, "rows": rows, "plots": [one for one in plots if one is not None]}


def _trade_off(gated: Gated, metrics: MeasuredMetrics | None) -> list[Plot]:
    plots: list[Plot | None] = []
    rules = rules_on_samples(gated.summary.limits)
    calibrated = {name for name, column in gated.calibration.items() if np.isfinite(column).any()}
    known = [limit for limit in rules if len(gated.finite(limit.score)) and limit.score in calibrated]
    if known:
        what = f"What each rule would keep, before any correction, if its limit stood at another quantile of the calibration. {gated.drawn}"
        plots.append(_plot("trade-off", "Yield", what, partial(trade_off_figure, gated.columns, gated.calibration, known)))
    if metrics is not None:
        what = "If the score sees quality, the line leaves the dashed one as fewer samples are kept. The band is two standard errors."
        plots.append(_plot("quality", "Yield against quality", what, partial(quality_figure, gated.headline, metrics.columns, rules)))
    return [one for one in plots if one is not None]


def _training(record: DynamicsRecord) -> Plot | None:
    if not any(one.metrics for one in record.snapshots):
        return None
    what = f"{len(record.snapshots)} snapshots, scored on the same latents."
    return _plot("course", "While it trained", what, partial(training_figure, record))


def _baseline(gated: Gated, baseline: Gated) -> dict[str, Any]:
    pair = (gated, baseline)
    return {
        "gated": baseline,
        "rows": tables.set_rows(pair),
        "plot": overlay((("this set", gated), ("baseline", baseline))),
        "galleries": [sorted(tables.tiles(one), key=lambda tile: tile["rank"], reverse=more_is_worse(one.headline))[:12] for one in pair],
    }
