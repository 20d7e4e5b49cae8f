"""The report of one gated set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from qualitygate import names
from qualitygate.records.dynamics import DynamicsRecord
from qualitygate.records.metrics import MetricsReport
from qualitygate.reports.course_figure import course_figure
from qualitygate.reports.exhibit_table import webp
from qualitygate.reports.figures import score_figure, trade_off_figure
from qualitygate.reports.lettering import number
from qualitygate.reports.metric_figures import discriminator_figure, group_figure, trade_figure
from qualitygate.reports.page import tables
from qualitygate.reports.page.gallery import Tile, tiles
from qualitygate.reports.page.markup import data_uri, drawn_as, inline, render
from qualitygate.reports.page.material import Gated, Material, Measured, UnitPage, rules_on_samples
from qualitygate.reports.page.plots import overlay_figure, partner, quality_figure, scatter_figure

SHEET_WIDTH, SHEET_QUALITY = 1100, 68
"""Of the sheets of units: width in pixels at most, and WebP's quality."""
_FREQUENT = 8  # reasons that are listed


@dataclass(frozen=True)
class Plot:
    """A figure with what it is called and what it shows."""

    title: str
    caption: str
    svg: Markup


def report_page(material: Material) -> str:
    """One self-contained HTML document.

    Args:
        material: what it shows. Texts in it, checkpoint names above all, are not trusted.
    """
    gated = material.gated
    values: dict[str, Any] = {
        "gated": gated,
        "summary": gated.summary,
        "verdicts": tables.verdict_counts(gated),
        "rules": tables.rule_rows(gated),
        "reasons": sorted(gated.summary.reasons.items(), key=lambda item: (-item[1], item[0]))[:_FREQUENT],
        "score_rows": tables.set_rows([gated]),
        "scores": _score_plots(gated),
        "scatter": _scatter(gated),
        "tiles": (found := tiles(gated)),
        "roles": _roles(found),
        "units": None if gated.units is None else tables.unit_rankings(gated.units),
        "study": None if material.units is None else _study(material.units),
        "metrics": None if material.metrics is None else _metrics(material.metrics.report),
        "costs": tables.cost_rows(gated.summary),
        "trade_off": _trade_off(gated, material.metrics),
        "dynamics": None if material.dynamics is None else _dynamics(material.dynamics),
        "baseline": None if material.baseline is None else _baseline(gated, material.baseline),
    }
    return render("report.html.j2", values)


def _score_plots(gated: Gated) -> list[Plot]:
    rules = [limit for limit in rules_on_samples(gated.summary.limits) if len(gated.finite(limit.score))]
    if not rules:
        return []
    verdicts = np.asarray(gated.columns[names.VERDICT])
    svg = score_figure(gated.columns, rules, verdicts, drawn_as("scores"))
    what = f"Samples by score, coloured by verdict; dashed lines are the limits. {gated.drawn}".rstrip()
    return [Plot("Scores and limits", what, inline(svg))]


def _scatter(gated: Gated) -> Plot | None:
    other = partner(gated)
    if other is None or not len(gated.finite(gated.headline)):
        return None
    svg = scatter_figure(gated, other, drawn_as("scatter"))
    both = np.isfinite(np.asarray(gated.columns[gated.headline], dtype=np.float64)) & np.isfinite(
        np.asarray(gated.columns[other], dtype=np.float64)
    )
    what = f"Each point is one of the {np.count_nonzero(both):,} samples for which both were computed. {gated.drawn}".rstrip()
    return Plot(f"{gated.headline} and {other}", what, inline(svg))


def _roles(found: list[Tile]) -> dict[str, int]:
    """How many tiles each role has."""
    roles = [role for tile in found for role in tile.roles]
    return {role: roles.count(role) for role in dict.fromkeys(roles)}


def _study(units: UnitPage) -> dict[str, Any]:
    sheets = {}
    for title, sheet in units.sheets.items():
        factor = min(1.0, SHEET_WIDTH / sheet.width)
        small = sheet.convert("RGB").resize((round(sheet.width * factor), round(sheet.height * factor)))
        sheets[title] = data_uri(webp(small, SHEET_QUALITY))
    return {"rankings": tables.unit_rankings(units.table), "sheets": sheets}


def metric_table(report: MetricsReport) -> tuple[list[str], list[tuple[str, str, int, list[tables.Cell]]]]:
    """Titles of the metrics that some group has, and a row a group."""
    rows = []
    for row in report.groups:
        cells = []
        for info in report.shown:
            one = row.measurements.get(info.name)
            if one is None or one.value is None:
                cells.append(tables.Cell("–"))
                continue
            reach = "" if one.low is None or one.high is None else f"{number(one.low)} … {number(one.high)}"
            cells.append(tables.Cell(number(one.value), reach))
        rows.append((row.group.replace("_", ", "), row.what, row.samples, cells))
    return [one.heading for one in report.shown], rows


def _metrics(report: MetricsReport) -> dict[str, Any]:
    header, rows = metric_table(report)
    return {"report": report, "header": header, "rows": rows, "plots": list(_metric_plots(report))}


def _metric_plots(report: MetricsReport) -> Iterator[Plot]:
    for name, title, caption, draw in (
        ("precision-recall", "Precision and recall", "Of groups of one size, with intervals.", trade_figure),
        ("groups", "Metrics by group", "With intervals; the band is where 95 % of random groups fall.", group_figure),
        ("discriminator", "Discriminator", "How its values are distributed in each group.", discriminator_figure),
    ):
        if (svg := draw(report, drawn_as(name))) is not None:
            yield Plot(title, caption, inline(svg))


def _trade_off(gated: Gated, metrics: Measured | None) -> list[Plot]:
    plots = []
    rules = rules_on_samples(gated.summary.limits)
    known = [limit for limit in rules if len(gated.finite(limit.score)) and _known(gated.calibration, limit.score)]
    if known:
        svg = trade_off_figure(gated.columns, gated.calibration, known, drawn_as("trade-off"))
        what = "What each rule would keep, before any correction, if its limit stood at another quantile of the calibration."
        plots.append(Plot("Yield", f"{what} {gated.drawn}".rstrip(), inline(svg)))
    drawn = None if metrics is None else quality_figure(gated.headline, metrics.columns, rules, drawn_as("quality"))
    if drawn is not None:
        what = "If the score sees quality, the line leaves the dashed one as fewer samples are kept. The band is two standard errors."
        plots.append(Plot("Yield against quality", what, inline(drawn)))
    return plots


def _known(columns: Mapping[str, np.ndarray], name: str) -> bool:
    return name in columns and bool(np.isfinite(columns[name]).any())


def _dynamics(record: DynamicsRecord) -> dict[str, Any]:
    plot = None
    if any(one.metrics for one in record.snapshots):
        what = f"{len(record.snapshots)} snapshots, scored on the same latents."
        plot = Plot("While it trained", what, inline(course_figure(record, drawn_as("course"))))
    return {"record": record, "plot": plot}


def _baseline(gated: Gated, baseline: Gated) -> dict[str, Any]:
    pair = (gated, baseline)
    return {
        "gated": baseline,
        "rows": tables.set_rows(pair),
        "plot": overlay((("this set", gated), ("baseline", baseline)), drawn_as),
        "galleries": [(one, worst(one)) for one in pair],
    }


def overlay(sets: tuple[tuple[str, Gated], ...], draw: Callable[[str], Any]) -> Plot | None:
    """The headline score of the first set in all sets that have it; None if fewer than two do."""
    first = sets[0][1]
    columns = {name: one.finite(first.headline) for name, one in sets if len(one.finite(first.headline))}
    if len(columns) < 2:
        return None
    limit = next((limit.limit for limit in first.summary.limits if limit.score == first.headline), None)
    svg = overlay_figure(columns, first.headline, limit, draw("overlay"))
    return Plot(first.headline, "Share of the samples at or below each value.", inline(svg))


def worst(gated: Gated, count: int = 12) -> list[Tile]:
    """The worst of a set's exhibit, the worst first."""
    return sorted(tiles(gated), key=lambda tile: -tile.rank)[:count]
