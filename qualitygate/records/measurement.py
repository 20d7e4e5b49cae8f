"""One measured number with all that makes it comparable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator

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
    blocks: tuple[float, ...] | None = None
    """The value without each block of the samples: two records that keep them are compared by the interval of their difference."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        metric(self.metric)
        return self

    @property
    def higher_is_better(self) -> bool:
        return metric(self.metric).higher_is_better
