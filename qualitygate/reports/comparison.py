"""Several checkpoints side by side: the same metrics, units, and samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

import numpy as np

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.metrics.compare import Outcome, compare_records
from qualitygate.metrics.estimate import TAIL, Resampling, mean, wilson
from qualitygate.records.gate import ExhibitRole, Verdict
from qualitygate.records.metrics import Measurement, shown
from qualitygate.reports import tables
from qualitygate.reports.gate_report import overlay
from qualitygate.reports.markup import render
from qualitygate.reports.material import Gated, Material

if TYPE_CHECKING:
    import pandas as pd

_TILES = 6  # of each role and set: whole rows of three
_SETS = 6  # that one page can hold: as many as there are colours


def comparison_page(compared: Sequence[Material]) -> str:
    """One self-contained HTML document: every gated set, with its metrics where there are some, is compared with the first."""
    if not 2 <= len(compared) <= _SETS:
        raise InputError("These cannot be put side by side", f"{len(compared)} gated sets", f"2 to {_SETS}")
    sets = [(letter, one.gated) for letter, one in zip(ascii_uppercase, compared, strict=False)]
    first, *others = sets
    values: dict[str, Any] = {
        "sets": sets,
        "rows": tables.set_rows([one for _, one in sets]),
        "overlay": overlay(sets),
        "metrics": _metric_rows(compared),
        "moves": [(letter, unit_moves(first[1].units, one.units)) for letter, one in others],
        "galleries": _galleries([one for _, one in sets]),
        "words": outcome_words(compared),
    }
    return render("comparison.html.j2", values)


def outcome_words(compared: Sequence[Material]) -> list[str]:
    """A sentence for each set but the first: what became better or worse, or only higher or lower, beyond the intervals."""
    first, sentences = compared[0].gated, []
    for letter, other in zip(ascii_uppercase[1:], compared[1:], strict=False):
        summaries = first.summary, other.gated.summary
        (before, total), (after, own_total) = [(one.accepted + one.corrected, one.samples) for one in summaries]
        low, high = _paired(first, other.gated) or _difference(after, own_total, before, total)
        word = "the same within chance" if low <= 0.0 <= high else "higher" if low > 0 else "lower"
        parts = [f"yield {before / total:.1%} → {after / own_total:.1%}, {word} (difference {low:+.1%} … {high:+.1%})"]
        outcomes = _outcomes(_measurements(other), _measurements(compared[0]))
        told = [
            one
            for one in shown([outcomes])
            if outcomes[one.name].startswith((Outcome.BETTER, Outcome.WORSE, Outcome.HIGHER, Outcome.LOWER))
        ]
        parts += [f"{one.title} {outcomes[one.name]}" for one in told]
        sentences.append(f"{letter} ({other.gated.name}, {summaries[1].verdict}) against A ({first.name}): {'; '.join(parts)}.")
    return sentences


def unit_moves(before: pd.DataFrame | None, after: pd.DataFrame | None) -> dict[int, list[Any]]:
    """By layer, the units that moved up most: key, place before and after, 1 = most suspected, and how many places up. Both tables must
    rank by the same score, and only units of both count."""
    if before is None or after is None:
        return {}
    by = next((name for name in (names.UNIT_JOINED, names.UNIT_LOW_RATE) if name in before and name in after), None)
    if by is None:
        return {}
    old, new = (
        one.assign(key=one[names.UNIT_KEY], place=one.groupby(names.LAYER)[by].rank(ascending=False, method="first"))
        for one in (before, after)
    )
    both = old[["key", names.LAYER, "place"]].merge(new[["key", "place"]], on="key", suffixes=("_before", "_after")).dropna()
    both = both.rename(columns={"place_before": "before", "place_after": "after"}).astype({"before": int, "after": int})
    both["up"] = both["before"] - both["after"]
    suspects = both[both["after"] <= tables.UNITS_SHOWN].sort_values("up", ascending=False, kind="stable")
    return {int(layer): list(of_layer.itertuples(index=False)) for layer, of_layer in suspects.groupby(names.LAYER)}


def _measurements(one: Material) -> dict[str, Measurement]:
    """Metrics of the whole set, by name."""
    row = None if one.metrics is None else one.metrics.report.row(names.ALL)
    return {} if row is None else row.measurements


def _metric_rows(compared: Sequence[Material]) -> list[tuple[str, list[tuple[tables.Cell, str]]]]:
    """Metrics of the whole sets, with how each stands to the first's."""
    whole = [_measurements(one) for one in compared]
    sides = list(zip(whole, [{}, *(_outcomes(one, whole[0]) for one in whole[1:])], strict=True))
    return [
        (info.heading, [(tables.metric_cell(one.get(info.name)), said.get(info.name, "")) for one, said in sides]) for info in shown(whole)
    ]


def _outcomes(candidate: Mapping[str, Measurement], first: Mapping[str, Measurement]) -> dict[str, str]:
    """What became of each metric that both have, in words. All of them together are wrong with a chance of 5 %."""
    outcomes = {}
    for name in (both := candidate.keys() & first.keys()):
        try:
            outcomes[name] = str(compare_records(candidate[name], first[name], TAIL / len(both)))
        except InputError:
            outcomes[name] = "not comparable"
    return outcomes


def _galleries(sets: Sequence[Gated]) -> list[tuple[str, list[list[tables.Tile]]]]:
    """Samples by role, a list a set: the roles are the image keys that MLflow shows side by side as well."""
    shown = [tables.tiles(one) for one in sets]
    of_roles = ((role.value, [[tile for tile in one if role.value in tile["roles"]][:_TILES] for one in shown]) for role in ExhibitRole)
    return [(role, of_sets) for role, of_sets in of_roles if any(of_sets)]


def _paired(first: Gated, other: Gated) -> tuple[float, float] | None:
    """Interval of the difference of the yields, the same samples of both drawn again together; None where not all verdicts of both, of
    the same ids and seed, are at hand."""
    sets, seed = (first, other), first.summary.provenance.seed
    known = all({names.ID, names.VERDICT} <= one.columns.keys() and len(one.columns[names.ID]) == one.summary.samples for one in sets)
    if not known or seed is None or seed != other.summary.provenance.seed:
        return None
    if not np.array_equal(first.columns[names.ID], other.columns[names.ID]):
        return None
    before, after = (mean(one.columns[names.VERDICT] != Verdict.REJECT, Resampling(seed), step=1.0) for one in sets)
    found = after.plus(before.scaled(-1.0)).interval()
    return found.low, found.high


def _difference(hits: int, count: int, base_hits: int, base_count: int) -> tuple[float, float]:
    """Newcombe's interval of the difference of two shares, from Wilson's of each."""
    share, base = hits / count, base_hits / base_count
    (low, high), (base_low, base_high) = wilson(hits, count), wilson(base_hits, base_count)
    below = float(np.hypot(share - low, base_high - base))
    above = float(np.hypot(high - share, base - base_low))
    return share - base - below, share - base + above
