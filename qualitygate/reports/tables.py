"""What pages show in rows and tiles: rules, costs, shares and quantiles with intervals, rankings of units, and the exhibit's samples."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import binom, rankdata

from qualitygate import names, timing
from qualitygate.metrics.estimate import TAIL, wilson
from qualitygate.policy.decide import over_limit
from qualitygate.records.gate import GateSummary, RuleLimit, SampleRecord, Verdict
from qualitygate.records.metrics import Measurement
from qualitygate.reports.markup import data_uri
from qualitygate.reports.material import Gated, more_is_worse
from qualitygate.reports.style import number

if TYPE_CHECKING:
    import pandas as pd

UNITS_SHOWN = 10  # of each layer in a ranking


@dataclass(frozen=True)
class Cell:
    """A number and its interval at 95 %, as text; empty where there is none."""

    value: str
    interval: str = ""


Tile = dict[str, Any]
"""One sample as the template shows it. ``rank`` is its place by the deciding score, the lowest first; ``pictures`` are addresses that hold
them."""


def rule_rows(gated: Gated) -> list[tuple[RuleLimit, str, str]]:
    """Every limit as it was applied, the side of it on which a sample is not kept, and how many of the samples whose score is known are
    there; no count of corrected samples."""
    rows = []
    for limit in gated.summary.limits:
        column = gated.finite(limit.score)
        over, known = gated.over.get(limit.rule, (np.count_nonzero(over_limit(limit, column)), len(column)))
        count = f"{over:,} of {known:,}" if limit.rule != "correction" and known else "–"
        rows.append((limit, "over" if more_is_worse(limit.score) else "under", count))
    return rows


def cost_rows(summary: GateSummary) -> list[tuple[str, str]]:
    """Where the time went and what an image cost, as far as it was measured: seconds of one worker."""
    rows = {
        names.SECONDS: ("gating, all workers together", "{} s"),
        names.COST_ACCEPTED: ("a kept image, with the gate", "{} s"),
        names.COST_FILTERED: ("an accepted image, if all were made whole and judged by nothing that costs", "{} s"),
        names.COST_UNGATED: ("an image, without a gate", "{} s"),
        names.IMAGES_PER_SECOND: ("samples a second, of one worker", "{}"),
        names.time_share(timing.EARLY): ("share of the time: early layers, scores and corrections", ""),
        names.time_share(timing.LATE): ("share of the time: remaining layers", ""),
        names.time_share(timing.WAIT): ("share of the time: waiting until images were encoded and written", ""),
    }
    known = [(title, form, summary.metrics[name]) for name, (title, form) in rows.items() if name in summary.metrics]
    return [(title, form.format(number(value)) if form else f"{value:.0%}") for title, form, value in known]


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


def metric_cell(one: Measurement | None) -> Cell:
    if one is None or one.value is None:
        return Cell("–")
    return Cell(number(one.value), "" if one.low is None or one.high is None else f"{number(one.low)} … {number(one.high)}")


def set_rows(sets: Sequence[Gated]) -> list[tuple[str, list[Cell]]]:
    """Shares of the verdicts and quantiles of scores, one cell a set; scores that only some sets have are dashes in the others."""
    counts = {
        names.YIELD: lambda one: one.accepted + one.corrected,
        names.ACCEPTED_SHARE: lambda one: one.accepted,
        names.CORRECTED_SHARE: lambda one: one.corrected,
        names.REJECTED_SHARE: lambda one: one.rejected,
        names.BORDERLINE_SHARE: lambda one: one.borderline,
    }
    rows = [(name, [share_cell(count(one.summary), one.summary.samples) for one in sets]) for name, count in counts.items()]
    for score in dict.fromkeys(score for one in sets for score in one.scores):
        rows += [(names.quantile(score, q), [quantile_cell(one.finite(score), q) for one in sets]) for q in (0.5, 0.9)]
    return rows


def verdict_counts(gated: Gated) -> list[tuple[str, int, Cell]]:
    """How many samples each verdict has."""
    summary = gated.summary
    counts = {Verdict.ACCEPT: summary.accepted, Verdict.CORRECT: summary.corrected, Verdict.REJECT: summary.rejected}
    return [(verdict.value, count, share_cell(count, summary.samples)) for verdict, count in counts.items()]


def unit_rankings(units: pd.DataFrame) -> dict[int, tuple[list[str], list[list[object]]]]:
    """By layer, the columns and rows of the units to suspect first: by their joined rank where a study made one, else by CLA, then by
    low-rate activity."""
    by = [names.UNIT_JOINED] if names.UNIT_JOINED in units else [names.UNIT_CLA, names.UNIT_LOW_RATE]
    by = [name for name in by if name in units and units[name].notna().any()]
    found = {}
    for layer, of_layer in units.groupby(names.LAYER):
        columns = [name for name in units.columns if name not in (names.LAYER, names.UNIT) and of_layer[name].notna().any()]
        best = of_layer.sort_values(by, ascending=False, na_position="last", kind="stable").head(UNITS_SHOWN)
        found[int(layer)] = (columns, best[columns].astype(object).to_numpy().tolist())
    return found


def tiles(gated: Gated) -> list[Tile]:
    """Tiles of a gated set's exhibit; a score that is not known stands at the bad end."""
    known = [one.record.scores.get(gated.headline, math.nan) for one in gated.exhibit]
    deciding = np.nan_to_num(known, nan=math.inf if more_is_worse(gated.headline) else -math.inf, posinf=math.inf, neginf=-math.inf)
    found = []
    for one, value, rank in zip(gated.exhibit, deciding.tolist(), rankdata(deciding, "ordinal").tolist(), strict=True):
        record = one.record
        made = [("generated", one.image), ("corrected", one.corrected), ("low-rate neurons", one.heat)]
        ordered = dict.fromkeys([name for name in gated.rules if name in record.scores] + sorted(record.scores))  # those of rules first
        facts = [(name, number(record.scores[name])) for name in ordered]
        if record.strength is not None:
            facts.append(("strength of the correction", number(record.strength)))
        if record.moved is not None:
            facts.append(("moved", f"{record.moved:.2%} of the range of values"))
        found.append(
            {
                "id": record.id,
                "seed": record.provenance.seed,
                "roles": [role.value for role in one.roles],
                "verdict": record.verdict.value,
                "headline": f"{gated.headline} {number(value)}",
                "rank": rank - 1,
                "scores": facts,
                "reasons": record.reasons,
                "pictures": [(title, data_uri(picture)) for title, picture in made if picture is not None],
                "command": command_again(record),
            }
        )
    return found


def command_again(record: SampleRecord) -> str:
    """The command that gates exactly this sample again."""
    provenance = record.provenance
    words = ["qualitygate", "gate", provenance.checkpoint, "--profile", "PROFILE"]
    words += ["--ids", f"{record.id}:{record.id + 1}"]
    words += ["--latents", "LATENTS.npz"] if provenance.seed is None else ["--seed", str(provenance.seed)]
    return shlex.join([*words, "--out", f"sample-{record.id}"])
