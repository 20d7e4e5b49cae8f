"""What pages are made from: gated sets and what else was found out about their checkpoint, already read; and the exhibit as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from qualitygate import names, storage
from qualitygate.policy.scores import CLA, parse
from qualitygate.records.dynamics import DynamicsRecord
from qualitygate.records.gate import ExhibitItem, ExhibitRole, GateSummary, RuleLimit, SampleRecord
from qualitygate.reports.pictures import blend_heat, picture, webp
from qualitygate.reports.style import floats

if TYPE_CHECKING:
    import pandas as pd

    from qualitygate.records.metrics import MetricsReport

EXHIBIT = "exhibit.parquet"
SIDE = 224  # longer side of a picture, in pixels, at most; smaller images keep their size


@dataclass(frozen=True)
class Shown:
    """One sample of a written exhibit; pictures are WebP files."""

    roles: tuple[ExhibitRole, ...]
    record: SampleRecord
    image: bytes  # as it came out of the untouched generator
    corrected: bytes | None  # after the correction that was kept or the strongest one tried
    heat: bytes | None  # where low-rate neurons fire, over the image in grey; None if activations were not finite


@dataclass(frozen=True)
class Gated:
    """A gated set."""

    place: str  # as the reader knows it
    summary: GateSummary
    columns: Mapping[str, np.ndarray]  # of ``samples.parquet``, each (N,); empty where records were not read
    calibration: Mapping[str, np.ndarray]  # scores of the calibration's samples, each (M,); empty without a profile
    units: pd.DataFrame | None
    exhibit: Sequence[Shown]  # empty where no samples were made again
    drawn_from: int | None = None  # samples of the set, where `columns` hold only some of them, drawn at random
    over: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """By rule, how many samples are over its limit, and of how many the score is known; where it was counted apart from `columns`."""

    @property
    def name(self) -> str:
        """The checkpoint's file name."""
        return PurePath(self.summary.provenance.checkpoint).name or "generator"

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
        column = floats(self.columns.get(score, ()))
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


def more_is_worse(name: str) -> bool:
    """Whether the high values of a score are the bad ones."""
    found = parse(name)
    return found is None or found.score.higher_is_worse


@dataclass(frozen=True)
class UnitPage:
    """A study of units: the table of their scores, with their mean rank, and what they draw, by title."""

    table: pd.DataFrame
    sheets: Mapping[str, Image.Image]


@dataclass(frozen=True)
class MeasuredMetrics:
    """Set metrics, and the table of samples they are made of (columns by name; empty if it is not there)."""

    report: MetricsReport
    columns: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Material:
    """A gated set and what else pages show of its checkpoint; what is None is left out, and the report says how to get it."""

    gated: Gated
    metrics: MeasuredMetrics | None = None
    units: UnitPage | None = None
    dynamics: DynamicsRecord | None = None
    baseline: Gated | None = None


def exhibit_columns(items: Sequence[ExhibitItem]) -> dict[str, list[Any]]:
    """Columns of ``exhibit.parquet``: one row for every sample, in the order in which they first stand in the exhibit.

    Heat is scaled to the hottest place of the whole exhibit.
    """
    roles: dict[int, list[str]] = {}
    first: list[ExhibitItem] = []
    for item in items:
        if item.record.id not in roles:
            first.append(item)
        roles.setdefault(item.record.id, []).append(item.role.value)
    finite = [item.heatmap for item in first if np.isfinite(item.heatmap).all()]
    hottest = max((float(heat.max()) for heat in finite), default=0.0) or 1.0
    return {
        "roles": list(roles.values()),
        "record": [item.record.model_dump_json() for item in first],
        "image": [_small(item.image) for item in first],
        "corrected": [None if item.corrected is None else _small(item.corrected) for item in first],
        "heat": [_heat(item, hottest) for item in first],
    }


def read_exhibit(path: str | Path) -> list[Shown]:
    """What `exhibit_columns` made; `ProfileError` where it is not there or cannot be read."""
    table, _ = storage.read_table(path)
    pictures = ("image", "corrected", "heat")
    return [
        Shown(tuple(map(ExhibitRole, row["roles"])), SampleRecord.model_validate_json(row["record"]), *(row[name] for name in pictures))
        for row in table.to_pylist()
    ]


def _small(pixels: np.ndarray) -> bytes:
    return webp(picture(pixels, min(SIDE, max(pixels.shape[:2]))))


def _heat(item: ExhibitItem, hottest: float) -> bytes | None:
    if not np.isfinite(item.heatmap).all():
        return None
    below = picture(item.image, min(SIDE, max(128, *item.image.shape[:2])))
    return webp(blend_heat(below, item.heatmap, hottest))
