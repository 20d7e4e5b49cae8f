"""Several checkpoints side by side: the same metrics, units, and samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.metrics.compare import Outcome, compare_records
from qualitygate.metrics.estimate import TAIL, Resampling, mean, wilson
from qualitygate.records.gate import ExhibitRole, Verdict
from qualitygate.records.metrics import Measurement, shown
from qualitygate.reports.lettering import number
from qualitygate.reports.page import tables
from qualitygate.reports.page.gallery import Tile, tiles
from qualitygate.reports.page.gate_report import overlay
from qualitygate.reports.page.markup import drawn_as, render
from qualitygate.reports.page.material import Gated, Measured

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
    outcomes = [{}, *(_outcomes(one, whole[0]) for one in whole[1:])]
    return [
        (info.heading, [(_cell(one.get(info.name)), said.get(info.name, "")) for one, said in zip(whole, outcomes, strict=True)])
        for info in shown(whole)
    ]


def _whole(one: Compared) -> dict[str, Measurement]:
    row = None if one.metrics is None else one.metrics.report.row(names.ALL)
    return {} if row is None else row.measurements


def _cell(one: Measurement | None) -> tables.Cell:
    if one is None or one.value is None:
        return tables.Cell("–")
    reach = "" if one.low is None or one.high is None else f"{number(one.low)} … {number(one.high)}"
    return tables.Cell(number(one.value), reach)


def _outcomes(candidate: Mapping[str, Measurement], first: Mapping[str, Measurement]) -> dict[str, str]:
    """What became of each metric that both have, in words. All of them together are wrong with a chance of 5 %."""
    outcomes = {}
    for name in (both := candidate.keys() & first.keys()):
        try:
            outcomes[name] = str(compare_records(candidate[name], first[name], TAIL / len(both)))
        except InputError:
            outcomes[name] = "not comparable"
    return outcomes


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
    low, high = _paired(first.gated, other.gated) or _difference(after, own_total, before, total)
    word = "the same within chance" if low <= 0.0 <= high else "higher" if low > 0 else "lower"
    parts.append(f"yield {before / total:.1%} → {after / own_total:.1%}, {word} (difference {low:+.1%} … {high:+.1%})")
    outcomes = _outcomes(_whole(other), _whole(first))
    for info in shown([outcomes]):
        if outcomes[info.name].startswith((Outcome.BETTER, Outcome.WORSE)):
            parts.append(f"{info.title} {outcomes[info.name]}")
    return f"{letter} ({other.gated.name}, {other.gated.verdict}) against A ({first.gated.name}): {'; '.join(parts)}."


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
