"""The metrics there are and which way is better, one measured number with all that makes it comparable, and what `metrics` writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.records import CheckpointOrigin, Interval, Record, SoftwareOrigin


@dataclass(frozen=True)
class Metric:
    """A number of a set of images.

    Attributes:
        name: as in `qualitygate.names`.
        title: as in tables and figures.
        higher_is_better: which way is better.
        needs_real: whether it compares with real images.
    """

    name: str
    title: str
    higher_is_better: bool
    needs_real: bool


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(names.FID, "FID", False, needs_real=True),
        Metric(names.FID_INFINITY, "FID∞", False, needs_real=True),
        Metric(names.KID, "KID", False, needs_real=True),
        Metric(names.PRECISION, "precision", True, needs_real=True),
        Metric(names.RECALL, "recall", True, needs_real=True),
        Metric(names.DENSITY, "density", True, needs_real=True),
        Metric(names.COVERAGE, "coverage", True, needs_real=True),
        Metric(names.REALISM, "realism", True, needs_real=True),
        Metric(names.INCEPTION_SCORE, "IS", True, needs_real=False),
        Metric(names.PPL, "PPL", False, needs_real=False),
        Metric(names.PPL_Z_END, "PPL z, ends", False, needs_real=False),
        Metric(names.PPL_Z_FULL, "PPL z, full", False, needs_real=False),
        Metric(names.PPL_W_END, "PPL w, ends", False, needs_real=False),
        Metric(names.PPL_W_FULL, "PPL w, full", False, needs_real=False),
        Metric(names.DISCRIMINATOR, "D value", True, needs_real=False),
    )
}


def metric(name: str) -> Metric:
    """The metric of that name.

    Raises:
        InputError: there is none.
    """
    if name not in METRICS:
        raise InputError("There is no such metric", repr(name), f"one of {', '.join(METRICS)}")
    return METRICS[name]


class Measurement(Record):
    """A metric of a set of images.

    ``value`` is None where a number would mean nothing; then ``note`` says why.
    """

    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    samples: int
    """Samples that had a part in it."""
    real_samples: int | None = None
    real: str | None = None
    """Content hash of the real set."""
    extractor: str | None = None
    """Key of the extractor, or of the distance: network, weights, size and manner of resizing, precision."""
    settings: dict[str, float | str] = Field(default_factory=dict)
    """What else the number depends on: k, ε, the space of the paths."""
    note: str | None = None

    @model_validator(mode="after")
    def _known(self) -> Self:
        metric(self.metric)
        return self

    @property
    def higher_is_better(self) -> bool:
        return metric(self.metric).higher_is_better


class Outcome(StrEnum):
    """How a measurement stands to another."""

    BETTER = "better"
    WORSE = "worse"
    INCONCLUSIVE = "inconclusive"
    """Their intervals overlap."""


def measured(interval: Interval, like: Measurement, note: str | None = None) -> Measurement:
    """An empty measurement with the number put in."""
    return like.model_copy(update={"value": interval.value, "low": interval.low, "high": interval.high, "note": note or like.note})


def compare(candidate: Measurement, baseline: Measurement) -> Outcome:
    """Whether a measurement is better or worse than another, beyond their intervals; `Outcome.INCONCLUSIVE` where they overlap.

    Raises:
        InputError: the numbers cannot be compared: another metric, extractor (weights, resizing and precision are part of its key),
        real set, or
            settings; another number of samples; no value or interval.
    """
    problems = [*_differences(candidate, baseline), *_missing(candidate, "first"), *_missing(baseline, "second")]
    if problems:
        raise InputError(
            "These numbers cannot be compared",
            "; ".join(problems),
            "the same metric, extractor, resizing, precision, real set and sample size",
            "measure both in the same way",
        )
    (low, high), (base_low, base_high) = _bounds(candidate), _bounds(baseline)
    if low <= base_high and base_low <= high:
        return Outcome.INCONCLUSIVE
    return Outcome.BETTER if (low > base_high) == candidate.higher_is_better else Outcome.WORSE


def _differences(first: Measurement, second: Measurement) -> list[str]:
    """What keeps two numbers apart, in words."""
    fields = ("metric", "extractor", "samples", "real", "real_samples")
    found = [
        f"{name.replace('_', ' ')}: {getattr(first, name)} against {getattr(second, name)}"
        for name in fields
        if getattr(first, name) != getattr(second, name)
    ]
    for name in sorted(first.settings.keys() | second.settings.keys()):
        ours, theirs = first.settings.get(name), second.settings.get(name)
        if ours != theirs:
            found.append(f"{name}: {ours} against {theirs}")
    return found


def _missing(one: Measurement, which: str) -> list[str]:
    if one.value is None or one.low is None or one.high is None:
        return [f"the {which} has no {'value' if one.value is None else 'interval'}{f' ({one.note})' if one.note else ''}"]
    return []


def _bounds(one: Measurement) -> tuple[float, float]:
    assert one.low is not None
    assert one.high is not None
    return one.low, one.high


class GroupRow(Record):
    """One group of the table.

    Attributes:
        group: as in `qualitygate.names`.
        samples: how many it has.
        what: which samples they are, in words.
        measurements: by metric.
        spread: standard deviation over the random groups, by metric; empty for any other group.
    """

    group: str
    samples: int
    what: str
    measurements: dict[str, Measurement]
    spread: dict[str, float] = Field(default_factory=dict)


class GroupOrder(Record):
    """Whether the lowest group is better than chance, and the highest worse: the papers' order.

    Attributes:
        holds: the values are in this order.
        clear: and both lie outside of where 95 % of random groups fall.
    """

    metric: str
    lowest: float
    random: float
    highest: float
    holds: bool
    clear: bool

    @property
    def in_words(self) -> str:
        """What became of it, as the end of a sentence."""
        if self.clear:
            return "holds"
        return "holds, but within what random groups do" if self.holds else "does NOT hold"


class RealInfo(Record):
    """The real set that was compared with."""

    name: str
    digest: str
    samples: int
    preparation: str


class Histogram(Record):
    """How the discriminator's values are distributed, by group, on common bins."""

    edges: tuple[float, ...]
    counts: dict[str, tuple[int, ...]]


class MetricsReport(SoftwareOrigin, CheckpointOrigin):
    """What ``metrics.json`` holds."""

    format: Literal[1] = 1
    profile_id: str | None
    policy_hash: str | None
    precision: str = "float32"
    seed: int
    samples: int
    sampling: dict[str, Any]
    score: str | None
    group_share: float
    extractor: str | None
    distance: str | None
    real: RealInfo | None
    groups: tuple[GroupRow, ...]
    order: tuple[GroupOrder, ...]
    histogram: Histogram | None
    left_out: tuple[str, ...]
    """What was not measured, and why."""
    seconds: float

    def row(self, group: str) -> GroupRow | None:
        """The group of that name, if there is one."""
        return next((row for row in self.groups if row.group == group), None)

    def values(self) -> dict[str, float]:
        """Every value under the name it is logged by; bounds of the whole set and spreads of chance beside them."""
        found: dict[str, float] = {}
        for row in self.groups:
            for name, one in row.measurements.items():
                if one.value is None:
                    continue
                found[names.of_group(name, row.group)] = one.value
                if row.group == names.ALL and one.low is not None and one.high is not None:
                    found |= {names.low_bound(name): one.low, names.high_bound(name): one.high}
            found |= {names.spread(name): value for name, value in row.spread.items()}
        return found
