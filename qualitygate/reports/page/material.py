"""What a page is made from: gated sets and what else was found out about their checkpoint, already read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np

from qualitygate import names
from qualitygate.policy.scores import CLA, parse
from qualitygate.records.dynamics import DynamicsRecord
from qualitygate.records.gate import GateSummary, RuleLimit
from qualitygate.reports.exhibit_table import Shown

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from qualitygate.records.metrics import MetricsReport


@dataclass(frozen=True)
class Gated:
    """A gated set.

    Attributes:
        place: where it lies, as the reader knows it.
        summary: what the gate found.
        columns: of ``samples.parquet``, each (N,); empty where records were not read.
        calibration: scores of the calibration's samples by name, each (M,); empty without a profile.
        units: the table of units, or None.
        exhibit: the samples to look at; empty where none were made again.
        drawn_from: samples of the set, where ``columns`` hold only some of them, drawn at random; else None.
        over: by rule, how many samples are over its limit, and of how many the score is known; where it was counted apart from ``columns``.
    """

    place: str
    summary: GateSummary
    columns: Mapping[str, np.ndarray]
    calibration: Mapping[str, np.ndarray]
    units: pd.DataFrame | None
    exhibit: Sequence[Shown]
    drawn_from: int | None = None
    over: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The checkpoint's file name."""
        return PurePath(self.summary.provenance.checkpoint).name or "generator"

    @property
    def verdict(self) -> str:
        """``passed`` or ``failed`` by its suite, ``unjudged`` without one."""
        return self.summary.verdict

    @property
    def rules(self) -> tuple[str, ...]:
        """Scores that rules on samples name, each once; those that corrected samples are judged on are not among them."""
        return tuple(dict.fromkeys(limit.score for limit in rules_on_samples(self.summary.limits)))

    @property
    def headline(self) -> str:
        """The first rule's score."""
        return self.rules[0]

    def finite(self, score: str) -> np.ndarray:
        """Known values of a score."""
        column = np.asarray(self.columns.get(score, ()), dtype=np.float64)
        return column[np.isfinite(column)]

    @cached_property
    def scores(self) -> tuple[str, ...]:
        """Scores worth a line of a table: those of rules, then other counts over layers, CLA and risk."""
        others = filter(shown_score, self.columns)
        return tuple(name for name in dict.fromkeys((*self.rules, *others)) if len(self.finite(name)))

    @property
    def drawn(self) -> str:
        """Which samples figures and quantiles are of, as a sentence; empty where they are of all."""
        if self.drawn_from is None:
            return ""
        return f"Of {len(self.columns[names.ID]):,} samples drawn at random from all {self.drawn_from:,}."


def rules_on_samples(limits: Iterable[RuleLimit]) -> tuple[RuleLimit, ...]:
    """The limits that samples are held against; those that corrected samples are judged on are left out."""
    return tuple(limit for limit in limits if limit.rule != "correction")


def shown_score(name: str) -> bool:
    """Whether a column is a score that pages tell of even if no rule is on it: counts over layers, CLA, risk."""
    found = parse(name)
    return found is not None and (found.layer is None or found.score is CLA)


@dataclass(frozen=True)
class UnitPage:
    """A study of units.

    Attributes:
        table: of unit scores, with their mean rank.
        sheets: what the units draw, by title.
    """

    table: pd.DataFrame
    sheets: Mapping[str, Image.Image]


@dataclass(frozen=True)
class Measured:
    """Set metrics, and the table of samples they are made of (columns by name; empty if it is not there)."""

    report: MetricsReport
    columns: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Material:
    """Everything that one report shows; what is None is left out, and the page says how to get it."""

    gated: Gated
    metrics: Measured | None = None
    units: UnitPage | None = None
    dynamics: DynamicsRecord | None = None
    baseline: Gated | None = None
