"""What the parts of a policy share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from qualitygate import names

Rate = float
"""An activation rate R, in (0, 1]."""


class Part(BaseModel):
    """A part of a policy: unknown keys are errors, nothing changes after it was read."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Limit(Part):
    """A limit: a quantile of the calibration's scores, or an absolute value. Exactly one of the two."""

    quantile: float | None = Field(None, gt=0.0, lt=1.0, description="quantile of this score in the calibration, in (0, 1)")
    value: float | None = Field(None, allow_inf_nan=False, description="the limit itself")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.quantile is None) == (self.value is None):
            raise ValueError("a limit is either a quantile or a value, exactly one of them")
        return self

    def __str__(self) -> str:
        return f"quantile {self.quantile:g}" if self.quantile is not None else "absolute"


def check_rates(rates: Sequence[float], *, falling: bool = False) -> None:
    """Rates in order, each with a short name of its own.

    Raises:
        ValueError: out of range, out of order, or two of one name.
    """
    if not all(0.0 < rate <= 1.0 for rate in rates):
        raise ValueError("every rate must lie in (0, 1]")
    check_order(rates, "rates", falling=falling)


def check_order(values: Sequence[float], what: str, *, falling: bool = False) -> None:
    """Strengths from the least to the most correction, each with a short name of its own.

    Raises:
        ValueError: they are not.
    """
    in_order = values[::-1] if falling else values
    if any(after <= before for before, after in pairwise(in_order)):
        raise ValueError(f"{what} must {'fall' if falling else 'rise'}, each once")
    for value in values:
        if not names.has_short_name(value):  # two of them would share one column
            raise ValueError(f"{value!r} has no short name: use at most 6 digits, and at least 0.0001")
