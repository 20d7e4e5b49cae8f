"""The results as a page: one table a question, methods down, planted checkpoints across, and what follows in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from planted_rows.grid import GRID
from planted_rows.words import RULE, sentences, short

Results = Mapping[str, Mapping[str, Any]]
"""What `columns.all_columns` found, by name of the planted checkpoint."""

_AT = (
    "Share of the defective samples among the {} % of all samples with the highest scores, ties at the limit at random. "
    "It cannot exceed the share rejected over the defect's share."
)
_BEST = "AUC of the best R and layer, which a user without labels does not know. Of decoys: .5 is right."
_KINDS = {
    "low-rate counts": "low_rate_",
    "never-seen neurons": "never_seen",
    "CLA": "cla/",
    "rival: latent norm": "rival: latent norm",
    "rival: truncation": "rival: truncation",
    "rival: Mahalanobis": "rival: Mahalanobis",
    "rival: discriminator": "rival: discriminator",
}
"""Kinds of score, by how their names begin."""
_RANKED = "Over the layers that are ranked. For decoys: an accusation."

_TABLES = (
    ("detection", "auc", "Detection: AUC", "Mann-Whitney, ties half. Of decoys, how well their harmless firing is told: .5 is right."),
    ("detection", "recall_0.01", "Detection: recall at 1 % rejected", _AT.format(1)),
    ("detection", "recall_0.1", "Detection: recall at 10 % rejected", _AT.format(10)),
    ("place", None, "Place: IoU", "Mean IoU of the planted pixels and as many hottest pixels of the heatmap."),
    ("unit_recall", "planted", "Units: recall among the top as many as were planted in each layer", _RANKED),
    ("unit_recall", "top_20", "Units: recall among the top 20 of each layer", _RANKED),
    (
        "correction",
        "repaired",
        "Correction: repaired",
        "Share of the defective samples whose image is nearer to the unplanted one than half of the defect's own distance.",
    ),
    (
        "correction",
        "mark_gone",
        "Correction: mark gone",
        "The same, measured inside the marked pixels only: the mark is gone, whatever else was changed.",
    ),
    (
        "correction",
        "pixels_repaired",
        "Correction: pixels repaired",
        "Share of the defective pixels that are nearer to the unplanted image than half of the defect's own distance there.",
    ),
    (
        "correction",
        "damage",
        "Correction: damage outside of the mark",
        "Mean absolute distance from the unplanted image outside of the marked pixels of defective samples; 0 would be right.",
    ),
    (
        "correction",
        "moved",
        "Correction: distance moved",
        "Mean absolute change of the kept images of samples with firing planted units, over the range of values.",
    ),
    ("correction", "harm", "Correction: harm", "Mean absolute change of the kept images of samples without the defect; 0 would be right."),
    (
        "correction",
        "firing_accept",
        "Gate: let through",
        "Share of the samples with firing planted units that are let through untouched; right for decoys only.",
    ),
    ("correction", "firing_reject", "Gate: rejected", "Share of the samples with firing planted units that are rejected."),
    ("correction", "others_correct", "Honesty: changed without a defect", "False alarms among samples without the defect."),
    ("correction", "others_reject", "Honesty: rejected without a defect", "False alarms among samples without the defect."),
)
"""Group of columns, number of each method there (None if it is one), title, and what it means."""


def page(results: Results, facts: Mapping[str, Any]) -> str:
    """The whole page, as markdown."""
    lines = [*_head(facts), "", "## The checkpoints", "", *_grid(results), "", "## In words", "", RULE, ""]
    lines += sentences(results)
    lines += ["", "## Detection: the best of each kind of score", "", _BEST, "", *_best(results)]
    for group, key, title, note in _TABLES:
        lines += ["", f"## {title}", "", note, "", *_table(results, group, key)]
    return "\n".join(lines) + "\n"


def _head(facts: Mapping[str, Any]) -> Iterator[str]:
    yield "# Planted defects: the state of the art to beat"
    yield ""
    yield f"Written by `python benchmarks/planted.py`. Base: {facts['checkpoint']} (SHA-256 {facts['sha256'][:12]}…)."
    yield "Samples: " + ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in facts["sizes"].items()) + "."
    yield "Exact CLA is known for the exact samples only: standard error of an AUC near .5 about .1, of the other rows about .03."
    yield "Methods with a dash were not applicable or not computed there. The numbers stand in `planted.json`."


def _grid(results: Results) -> Iterator[str]:
    rows = {}
    for name, defect, _ in GRID:
        if name in results:
            region = defect.shape.replace("_", " ") + (f" × {defect.modes}" if defect.modes > 1 else "")
            work = "busy" if defect.busy else "none"
            cells = [str(defect.layer), str(defect.units), f"{100 * defect.share:g} %", region, defect.edge, work]
            rows[name] = [*cells, defect.mark or "none (decoy)"] if defect.units else ["–"] * 7
    return _rows(["checkpoint", "begins at", "units", "share", "region", "edge", "other work", "mark"], rows)


def _best(results: Results) -> Iterator[str]:
    columns = {name: result["detection"] for name, result in results.items() if result["detection"]}
    rows = {"the default policy's": [short(found[results[name]["default_score"]]["auc"]) for name, found in columns.items()]}
    for kind, begins in _KINDS.items():
        known = [[one["auc"] for score, one in found.items() if score.startswith(begins)] for found in columns.values()]
        if any(known):
            rows[kind] = [short(max(aucs, default=math.nan)) for aucs in known]
    return _rows(["", *columns], rows)


def _table(results: Results, group: str, key: str | None) -> Iterator[str]:
    """One table: the methods of a group down (those that have such a number), the checkpoints across."""
    columns = [name for name, result in results.items() if result[group]]
    fullest_first = sorted(columns, key=lambda name: -len(results[name][group]))
    rows = {}
    for method in dict.fromkeys(method for name in fullest_first for method in results[name][group]):
        values = [_number(results[name][group].get(method), key) for name in columns]
        if not all(math.isnan(value) for value in values):
            rows[method] = [short(value) for value in values]
    return _rows(["", *columns], rows)


def _number(found: Any, key: str | None) -> float:
    value = found.get(key) if isinstance(found, Mapping) else found
    return math.nan if value is None else float(value)


def _rows(head: list[str], rows: Mapping[str, list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for name, cells in rows.items():
        yield f"| {name} | {' | '.join(cells)} |"
