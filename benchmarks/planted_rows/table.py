"""The results as a page: one table a question, methods down, planted checkpoints across, and what follows in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from planted_rows.grid import GRID

Results = Mapping[str, Mapping[str, Any]]
"""What `columns.all_columns` found, by name of the planted checkpoint."""

FOUND, HINTED = 0.9, 0.75
"""AUC from which a score is said to find a defect, or to hint at it."""


def page(results: Results, facts: Mapping[str, Any]) -> str:
    """The whole page, as markdown."""
    return "\n".join([*_head(facts), *_grid(results), *_words(results), *_tables(results)]) + "\n"


def _head(facts: Mapping[str, Any]) -> Iterator[str]:
    yield "# Planted defects: the state of the art to beat"
    yield ""
    yield f"Written by `python benchmarks/planted.py`. Base: {facts['checkpoint']} (SHA-256 {facts['sha256'][:12]}…)."
    yield "Sizes: " + ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in facts["sizes"].items()) + "."
    yield ("Exact CLA is known for the `exact` samples only: its AUC and recall carry a wider error (about .08 where an AUC is near .5; "
           "the other rows about .03). Numbers beside this page in `planted.json`.")  # fmt: skip


def _grid(results: Results) -> Iterator[str]:
    yield from ("", "## The checkpoints", "")
    rows = {}
    for case in GRID:
        if case.name in results:
            d = case.defect
            region = f"{d.modes} × {d.shape}" if d.modes > 1 else d.shape
            rows[case.name] = [
                str(d.layer),
                str(d.units),
                f"{100 * d.share:g} %",
                region,
                d.edge,
                d.mark or "none (decoy)",
            ]
            if not d.units:
                rows[case.name] = ["–", "0", "–", "–", "–", "–"]
    yield from _rows(["checkpoint", "begins at", "units", "share", "region", "edge", "mark"], rows)


def _words(results: Results) -> Iterator[str]:
    """Which methods find which kinds of defect, and which nothing finds."""
    yield from ("", "## In words", "")
    for name, result in results.items():
        if result["paints"]:
            yield f"- **{name}**: {_verdict(result['detection'])}"
    for name, result in results.items():
        if result["detection"] and not result["paints"]:
            loud = [score for score, found in result["detection"].items() if found["auc"] >= HINTED]
            yield f"- **{name}** (harmless): {'accused by ' + ', '.join(loud) if loud else 'no score takes it for a defect'}."
    yield ""
    yield (f"A score *finds* a defect from an AUC of {FOUND:g}, and *hints* at it from {HINTED:g}. A finding counts whatever the score's "
           "direction was made for: rivals are judged by the same rule.")  # fmt: skip


def _verdict(detection: Mapping[str, Mapping[str, float]]) -> str:
    ranked = sorted(detection, key=lambda score: -detection[score]["auc"])
    finders = [score for score in ranked if detection[score]["auc"] >= FOUND]
    hinting = [score for score in ranked if HINTED <= detection[score]["auc"] < FOUND]
    best = f"best is {ranked[0]} ({detection[ranked[0]]['auc']:.2f})"
    if finders:
        return f"found by {', '.join(finders)}; {best}."
    if hinting:
        return f"nothing finds it; hinted at by {', '.join(hinting)}; {best}."
    return f"**nothing finds it**; {best}."


def _tables(results: Results) -> Iterator[str]:
    yield from _detection(
        results,
        "auc",
        "Detection: AUC",
        "Mann-Whitney, ties half. For decoys: of their harmless firing, so .5 is right.",
    )
    for share in (0.01, 0.1):
        yield from _detection(results, f"recall_{share:g}", f"Detection: recall at {100 * share:g} % rejected",
                              f"Share of the defective samples among the {100 * share:g} % of all samples with the highest scores; "
                              "ties at the limit at random. It cannot exceed the share rejected over the defect's share.")  # fmt: skip
    yield from _table(
        results,
        "place",
        "Place: IoU",
        "Mean IoU of the planted pixels and as many hottest pixels of the heatmap.",
        lambda value: value,
    )
    for key, what in (("planted", "as many as were planted"), ("top_20", "20")):
        yield from _table(results, "unit_recall", f"Units: recall among the top {what} of each layer",
                          "Over the layers that are ranked. For decoys: an accusation.", lambda value, key=key: value[key])  # fmt: skip
    notes = {
        "repaired": "Share of the defective samples whose image is nearer to the unplanted one than half of the defect's own distance.",
        "mark_gone": "The same, measured inside the marked pixels only: the mark is gone, whatever else was changed.",
        "firing_reject": "Share of the samples with firing planted units that are rejected.",
        "firing_accept": "Share of the samples with firing planted units that are let through untouched.",
        "moved": "Mean absolute change of their images that are kept, over the range of values.",
        "harm": "Mean absolute change of images without the defect that are kept; 0 would be right.",
        "others_correct": "Share of the samples without the defect that are changed: false alarms.",
        "others_reject": "Share of the samples without the defect that are rejected: false alarms.",
    }
    for key, note in notes.items():
        yield from _table(
            results,
            "correction",
            f"Correction: {key.replace('_', ' ')}",
            note,
            lambda value, key=key: value.get(key, math.nan),
        )


def _detection(results: Results, key: str, title: str, note: str) -> Iterator[str]:
    yield from _table(results, "detection", title, note, lambda value: value[key])


def _table(results: Results, group: str, title: str, note: str, number: Callable[[Any], float]) -> Iterator[str]:
    """One table: the methods of a group down, the checkpoints that have it across."""
    columns = [name for name, result in results.items() if result[group]]
    methods = list(dict.fromkeys(method for name in columns for method in results[name][group]))
    rows = {
        method: [
            _short(number(results[name][group][method])) if method in results[name][group] else "–" for name in columns
        ]
        for method in methods
    }
    yield from ("", f"## {title}", "", note, "")
    yield from _rows(["", *columns], rows)


def _rows(head: list[str], rows: Mapping[str, list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for name, cells in rows.items():
        yield f"| {name} | {' | '.join(cells)} |"


def _short(value: float) -> str:
    return (
        "–"
        if math.isnan(value)
        else f"{value:.3f}".removeprefix("0")
        if value < 0.0995
        else f"{value:.2f}".removeprefix("0")
    )
