"""Rules on how a metric moves: "the CLA of the 99th percentile unit doubled in 200 kimg"."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field

from qualitygate.errors import InputError

Point = tuple[float, Mapping[str, float]]
"""How far the training was, and the metrics there."""

_WRITTEN = re.compile(r"(?P<metric>\S+)\s+x(?P<factor>[0-9.]+)\s+in\s+(?P<within>[0-9.]+)")
_NEEDED = "METRIC xFACTOR in LENGTH, for example 'dynamics/cla_unit_q0.99/layer_3 x2 in 200'"


class Alarm(BaseModel):
    """A metric that became so many times what it was, within a stretch of training.

    Attributes:
        metric: its name.
        factor: 2 = doubled; below 1 a fall: 0.5 = halved.
        within: length of the stretch, in the unit of the training progress (kimg, or steps).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    factor: float = Field(gt=0.0)
    within: float = Field(gt=0.0)

    def __str__(self) -> str:
        return f"{self.metric} x{self.factor:g} in {self.within:g}"


class Raised(BaseModel):
    """An alarm that went off: the metric was ``before`` at ``since`` and is ``value`` at ``at``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    alarm: Alarm
    since: float
    at: float
    before: float
    value: float

    def __str__(self) -> str:
        return f"{self.alarm.metric} went from {self.before:.4g} at {self.since:g} to {self.value:.4g} at {self.at:g}"


def parse_alarm(text: str) -> Alarm:
    """An alarm as people write it: ``dynamics/cla_unit_q0.99/layer_3 x2 in 200``.

    Raises:
        InputError: not of this form, or a factor or length that can never or always be met.
    """
    found = _WRITTEN.fullmatch(text.strip())
    try:
        if found is None:
            raise ValueError("not of this form")
        alarm = Alarm(metric=found["metric"], factor=float(found["factor"]), within=float(found["within"]))
        if alarm.factor == 1.0:
            raise ValueError("a factor of 1 is always met")
    except ValueError as error:
        raise InputError("This is no alarm", f"{text!r}: {str(error).splitlines()[0]}", _NEEDED) from error
    return alarm


def raised(course: Sequence[Point], alarms: Sequence[Alarm]) -> list[Raised]:
    """The alarms that go off along a course, each once for every time its condition begins to hold.

    Points without the metric, or where it is not finite, are passed over. A ratio needs a base: a value of 0 is none.
    """
    found = []
    for alarm in alarms:
        series = [(at, metrics[alarm.metric]) for at, metrics in course if math.isfinite(metrics.get(alarm.metric, math.nan))]
        before: Raised | None = None
        for place in range(len(series)):
            now = _at(alarm, series[: place + 1])
            if now is not None and before is None:
                found.append(now)
            before = now
    return sorted(found, key=lambda one: one.at)


def _at(alarm: Alarm, series: Sequence[tuple[float, float]]) -> Raised | None:
    """Whether the alarm's condition holds at the last point, against the most favourable base within the stretch."""
    at, value = series[-1]
    bases = [(base, since) for since, base in series[:-1] if at - since <= alarm.within and base > 0]
    if not bases:
        return None
    base, since = min(bases) if alarm.factor > 1 else max(bases)
    met = value >= alarm.factor * base if alarm.factor > 1 else value <= alarm.factor * base
    return Raised(alarm=alarm, since=since, at=at, before=base, value=value) if met else None
