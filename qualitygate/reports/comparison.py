"""Several checkpoints side by side: the same metrics, units, and samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from qualitygate.reports.material import Gated, MeasuredMetrics

if TYPE_CHECKING:
    import pandas as pd

_TILES = 6  # of each role and set: whole rows of three
_SETS = 6
"""Sets that one page can hold: as many as there are colours."""


@dataclass(frozen=True)
class ComparedSet:
    """One checkpoint of the comparison: its gated set and, where they were measured, its set metrics."""

    gated: Gated
    metrics: MeasuredMetrics | None = None

    @property
    def measurements(self) -> dict[str, Measurement]:
        """Metrics of the whole set, by name."""
        row = None if self.metrics is None else self.metrics.report.row(names.ALL)
        return {} if row is None else row.measurements


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


def comparison_page(compared: Sequence[ComparedSet]) -> str:
    """One self-contained HTML document; every set is compared with the first.

    Raises:
        InputError: fewer than two sets, or more than there are colours.
    """
    if not 2 <= len(compared) <= _SETS:
        raise InputError("These cannot be put side by side", f"{len(compared)} gated sets", f"2 to {_SETS}")
    sets = tuple((letter, one.gated) for letter, one in zip(ascii_uppercase, compared, strict=False))
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


def outcome_words(compared: Sequence[ComparedSet]) -> list[str]:
    """A sentence for each set but the first: what became better or worse beyond the intervals."""
    return [_sentence(letter, compared[0], one) for letter, one in zip(ascii_uppercase[1:], compared[1:], strict=False)]


def unit_moves(before: pd.DataFrame | None, after: pd.DataFrame | None) -> dict[int, list[UnitMove]]:
    """By layer, the units that moved up most; both tables must rank by the same score, and only units of both count."""
    if before is None or after is None:
        return {}
    by = next((name for name in (names.UNIT_JOINED, names.UNIT_LOW_RATE) if name in before and name in after), None)
    if by is None:
        return {}
    ranks = [one.assign(rank=one.groupby(names.LAYER)[by].rank(ascending=False, method="first")) for one in (before, after)]
    both = ranks[0][[names.UNIT_KEY, names.LAYER, "rank"]].merge(ranks[1][[names.UNIT_KEY, "rank"]], on=names.UNIT_KEY).dropna()
    both["up"] = both["rank_x"] - both["rank_y"]
    suspects = both[both["rank_y"] <= tables.UNITS_SHOWN].sort_values("up", ascending=False, kind="stable")
    found: dict[int, list[UnitMove]] = {}
    for key, layer, old, new in suspects[[names.UNIT_KEY, names.LAYER, "rank_x", "rank_y"]].itertuples(index=False):
        found.setdefault(int(layer), []).append(UnitMove(str(key), int(old), int(new)))
    return dict(sorted(found.items()))


def _metric_rows(compared: Sequence[ComparedSet]) -> list[tuple[str, list[tuple[tables.Cell, str]]]]:
    """Metrics of the whole sets, with how each stands to the first's."""
    whole = [one.measurements for one in compared]
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


def _sentence(letter: str, first: ComparedSet, other: ComparedSet) -> str:
    """What differs beyond chance between two sets, in words."""
    summaries = [one.gated.summary for one in (first, other)]
    (before, total), (after, own_total) = [(one.accepted + one.corrected, one.samples) for one in summaries]
    low, high = _paired(first.gated, other.gated) or _difference(after, own_total, before, total)
    word = "the same within chance" if low <= 0.0 <= high else "higher" if low > 0 else "lower"
    parts = [f"yield {before / total:.1%} → {after / own_total:.1%}, {word} (difference {low:+.1%} … {high:+.1%})"]
    outcomes = _outcomes(other.measurements, first.measurements)
    told = [one for one in shown([outcomes]) if outcomes[one.name].startswith((Outcome.BETTER, Outcome.WORSE))]
    parts += [f"{one.title} {outcomes[one.name]}" for one in told]
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
