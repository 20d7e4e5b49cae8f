"""The scores that a policy can name: what each is called, how it is read, which way is worse, and how exactly it is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qualitygate import names
from qualitygate.plugins import Table

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Score:
    """A number for each sample.

    Attributes:
        name: its column; with ``/layer_K`` behind it at one layer.
        read_by: ``"module:name"`` of what reads it off the activations of the early pass, imported when it is first needed. Called with
            the activation rates, the values of R, the device and the indices of the layers to read, it gives a function of a layer's index
            and its activation (N, units, height, width): the score of each sample, (N, 1), or (N, number of R) if `by_rate`. Scores that
            share a reader stand side by side. None for CLA and the risk, which the gate computes in ways of their own.
        by_layer: there is a column for each layer.
        total: there is one without a layer: the sum over the detection layers, if there are columns by layer.
        by_rate: there is one for each value of R: ``name_R``.
        higher_is_worse: the direction.
        tolerance: how far it may differ between devices and shapes of a pass.
        relative: `tolerance` is a share of the limit.
        always: computed for every policy; any other where a policy names it.
    """

    name: str
    read_by: str | None = None
    by_layer: bool = True
    total: bool = True
    by_rate: bool = False
    higher_is_worse: bool = True
    tolerance: float = 1e-4
    relative: bool = True
    always: bool = False

    def column(self, rate: float | None = None, layer: int | None = None) -> str:
        """Its column at a value of R and a layer."""
        return names.of_layer(self.name if rate is None else f"{self.name}_{names.rate(rate)}", layer)

    def columns(self, rates: Sequence[float], layer: int | None = None) -> list[str]:
        """Its columns at a layer, one for each value of R if it has any."""
        return [self.column(rate, layer) for rate in (rates if self.by_rate else (None,))]

    def badness(self, values: np.ndarray) -> np.ndarray:
        """The values, higher = worse."""
        return values if self.higher_is_worse else -values


@dataclass(frozen=True)
class ScoreColumn:
    """A column that holds a score: of one R, where the score has one, and of one layer, or of all."""

    score: Score
    rate: float | None = None
    layer: int | None = None


_COUNTER = "qualitygate.scores.low_rate:LowRateCounter"
# a count may differ by the neurons whose activation is within rounding of 0
NEVER_SEEN = Score(names.NEVER_SEEN, _COUNTER, tolerance=2.0, relative=False, always=True)
LOW_RATE = Score("low_rate", _COUNTER, by_rate=True, tolerance=2.0, relative=False, always=True)
CLA = Score("cla", total=False)
RISK = Score(names.RISK, by_layer=False)

_OURS = {"never_seen_active": "NEVER_SEEN", "low_rate": "LOW_RATE", "cla": "CLA", "risk": "RISK"}
SCORES: Table[Score] = Table("scores", {name: f"{__name__}:{row}" for name, row in _OURS.items()}, Score)
"""Every score by its name, those of plug-ins included."""


def parse(column: str) -> ScoreColumn | None:
    """What a column holds, or None if it is no score, or not written as we write it."""
    stem, layer = names.split_layer(column)
    score, rate = SCORES.get(stem), None
    if score is None:
        name, _, digits = stem.rpartition("_")
        score, rate = SCORES.get(name), names.number(digits)
    there_is = score is not None and (rate is not None) == score.by_rate and (score.total if layer is None else score.by_layer)
    return ScoreColumn(score, rate, layer) if score is not None and there_is and score.column(rate, layer) == column else None


def cla_layer(column: str) -> int | None:
    """Layer of a column of CLA; None for any other."""
    found = parse(column)
    return found.layer if found is not None and found.score is CLA else None


def score_of(column: str) -> Score:
    """The score that a column holds; of one that is not known, a score like most others: higher is worse."""
    found = parse(column)
    return Score(column) if found is None else found.score


def badness(column: str, values: np.ndarray) -> np.ndarray:
    """Values of a column, higher = worse."""
    return score_of(column).badness(values)
