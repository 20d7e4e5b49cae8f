"""Several checkpoints side by side: the same metrics, units, and samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.records.gate import ExhibitRole
from qualitygate.records.metrics import METRICS, Measurement, Outcome, compare
from qualitygate.reports.lettering import number
from qualitygate.reports.page import tables
from qualitygate.reports.page.gallery import Tile, tiles
from qualitygate.reports.page.gate_report import overlay
from qualitygate.reports.page.markup import drawn_as, render
from qualitygate.reports.page.material import Gated, Measured
from qualitygate.units.classifier import wilson

if TYPE_CHECKING:
    import pandas as pd

_TILES = 6  # of each role and set: whole rows of three
_SETS = 6
"""Sets that one page can hold: as many as there are colours."""


@dataclass(frozen=True)
class Compared:
    """One checkpoint of the comparison: its gated set and, where they were measured, its set metrics."""

    gated: Gated
    metrics: Measured | None = None


@dataclass(frozen=True)
class UnitMove:
    """A unit of one layer and index in the first set and in another: its place in the layer, 1 = most suspected."""

    key: str
    before: int
    after: int

    @property
    def up(self) -> int:
        """How many places it moved towards the suspects."""
        return self.before - self.after


def comparison_page(compared: Sequence[Compared]) -> str:
    """One self-contained HTML document; every set is compared with the first.

    Raises:
        InputError: fewer than two sets, or more than there are colours.
    """
    if not 2 <= len(compared) <= _SETS:
        raise InputError("These cannot be put side by side", f"{len(compared)} gated sets", f"2 to {_SETS}")
    sets = [one.gated for one in compared]
    letters = [chr(ord("A") + place) for place in range(len(sets))]
    values: dict[str, Any] = {
        "sets": list(zip(letters, sets, strict=True)),
        "rows": tables.set_rows(sets),
        "overlay": overlay(tuple(zip(letters, sets, strict=True)), drawn_as),
        "metrics": _metric_rows(compared),
        "moves": [(letter, _moves_by_layer(sets[0], one)) for letter, one in zip(letters[1:], sets[1:], strict=True)],
        "galleries": _galleries(sets),
        "words": outcome_words(compared),
    }
    return render("comparison.html.j2", values)


def outcome_words(compared: Sequence[Compared]) -> list[str]:
    """A sentence for each set but the first: what became better or worse beyond the intervals."""
    first = compared[0]
    return [_sentence(chr(ord("B") + place), first, one) for place, one in enumerate(compared[1:])]


def unit_moves(before: pd.DataFrame, after: pd.DataFrame) -> dict[int, list[UnitMove]]:
    """By layer, the units that moved up most; both tables must rank by the same score, and only units of both count."""
    by = next((name for name in (names.UNIT_JOINED, names.UNIT_LOW_RATE) if name in before and name in after), None)
    if by is None:
        return {}
    ranks = [one.assign(rank=one.groupby(names.LAYER)[by].rank(ascending=False, method="first")) for one in (before, after)]
    both = ranks[0][[names.UNIT_KEY, names.LAYER, "rank"]].merge(ranks[1][[names.UNIT_KEY, "rank"]], on=names.UNIT_KEY)
    both = both.dropna()
    both["up"] = both["rank_x"] - both["rank_y"]
    suspects = both[both["rank_y"] <= tables.UNITS_SHOWN].sort_values("up", ascending=False, kind="stable")
    found: dict[int, list[UnitMove]] = {}
    for key, layer, old, new in suspects[[names.UNIT_KEY, names.LAYER, "rank_x", "rank_y"]].itertuples(index=False):
        found.setdefault(int(layer), []).append(UnitMove(str(key), int(old), int(new)))
    return dict(sorted(found.items()))


def _moves_by_layer(first: Gated, other: Gated) -> dict[int, list[UnitMove]]:
    if first.units is None or other.units is None:
        return {}
    return unit_moves(first.units, other.units)


def _metric_rows(compared: Sequence[Compared]) -> list[tuple[str, list[tuple[tables.Cell, str]]]]:
    """Metrics of the whole sets, with how each stands to the first's."""
    whole = [_whole(one) for one in compared]
    rows = []
    for name in METRICS:
        if not any(name in one for one in whole):
            continue
        first = whole[0].get(name)
        cells = [(_cell(one.get(name)), "" if place == 0 else _outcome(one.get(name), first)) for place, one in enumerate(whole)]
        rows.append((f"{METRICS[name].title} {'↑' if METRICS[name].higher_is_better else '↓'}", cells))
    return rows


def _whole(one: Compared) -> dict[str, Measurement]:
    row = None if one.metrics is None else one.metrics.report.row(names.ALL)
    return {} if row is None else row.measurements


def _cell(one: Measurement | None) -> tables.Cell:
    if one is None or one.value is None:
        return tables.Cell("–")
    reach = "" if one.low is None or one.high is None else f"{number(one.low)} … {number(one.high)}"
    return tables.Cell(number(one.value), reach)


def _outcome(candidate: Measurement | None, first: Measurement | None) -> str:
    if candidate is None or first is None:
        return ""
    try:
        return compare(candidate, first).value
    except InputError:
        return "not comparable"


def _galleries(sets: Sequence[Gated]) -> list[tuple[str, list[list[Tile]]]]:
    """Samples by role, a list a set: the roles are the image keys that MLflow shows side by side as well."""
    shown = [tiles(one) for one in sets]
    found = []
    for role in ExhibitRole:
        of_role = [[tile for tile in of_set if role.value in tile.roles][:_TILES] for of_set in shown]
        if any(of_role):
            found.append((role.value, of_role))
    return found


def _sentence(letter: str, first: Compared, other: Compared) -> str:
    """What differs beyond chance between two sets, in words."""
    parts = []
    counts = [(one.gated.summary.accepted + one.gated.summary.corrected, one.gated.summary.samples) for one in (first, other)]
    (before, total), (after, own_total) = counts
    low, high = _difference(after, own_total, before, total)
    word = "the same within chance" if low <= 0.0 <= high else "higher" if low > 0 else "lower"
    parts.append(f"yield {before / total:.1%} → {after / own_total:.1%}, {word} (difference {low:+.1%} … {high:+.1%})")
    for name in METRICS:
        outcome = _outcome(_whole(other).get(name), _whole(first).get(name))
        if outcome in (Outcome.BETTER, Outcome.WORSE):
            parts.append(f"{METRICS[name].title} {outcome}")
    return f"{letter} ({other.gated.name}, {other.gated.verdict}) against A ({first.gated.name}): {'; '.join(parts)}."


def _difference(hits: int, count: int, base_hits: int, base_count: int) -> tuple[float, float]:
    """Newcombe's interval of the difference of two shares, from Wilson's of each."""
    share, base = hits / count, base_hits / base_count
    (low, high), (base_low, base_high) = wilson(hits, count), wilson(base_hits, base_count)
    below = float(np.hypot(share - low, base_high - base))
    above = float(np.hypot(high - share, base - base_low))
    return share - base - below, share - base + above
