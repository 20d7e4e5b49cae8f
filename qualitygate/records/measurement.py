"""One measured number with all that makes it comparable, and the comparison that refuses what is not."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator

from qualitygate.errors import InputError
from qualitygate.records.metrics import metric


@dataclass(frozen=True)
class Interval:
    """A value and where the true one most likely lies."""

    value: float
    low: float
    high: float
    bias: float | None = None
    """Estimate of how much too large the value is because the sample is small; None where it is not biased."""


class Measurement(BaseModel):
    """A metric of a set of images.

    ``value`` is None where a number would mean nothing; then ``note`` says why.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

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
    settings: dict[str, float | str] = {}
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
