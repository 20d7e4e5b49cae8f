"""What is asked of a training run: which snapshots, what is scored of each, and on which moves of a metric an alarm goes off."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from qualitygate.errors import InputError
from qualitygate.requests import Flag, GeneratorRequest, OnDevice, Request, WithExtractor, WithReal, WithTracking

if TYPE_CHECKING:
    from qualitygate.generators.base import Generator

Point = tuple[float, Mapping[str, float]]
"""How far the training was, and the metrics there."""

_ALARM = re.compile(r"(?P<metric>\S+)\s+x(?P<factor>[0-9.]+)\s+in\s+(?P<within>[0-9.]+)")


class ScoringSizes(Request):
    """How much is scored of a snapshot, the same for all."""

    samples: int = Field(16, ge=1, description="Latents that go through every snapshot.")
    seed: int = Field(1, ge=0, description="Of these latents.")
    axes: int | None = Field(None, ge=1, description="Axes of z for CLA: fewer are an estimate. Default: all.")
    rate: float = Field(0.1, gt=0.0, le=1.0, description="R of low-rate neurons.")
    rate_samples: int = Field(2048, ge=1, description="Latents of the estimate of the activation rates.")


class ScoringSettings(ScoringSizes):
    """What is scored, the same for every snapshot: numbers of different settings are never laid side by side. CLA is of ``layers``,
    low-rate neurons are followed in ``early`` ones, both by index and by default the family's; set metrics see ``metric_samples``
    images."""

    layers: tuple[int, ...] | None = None
    early: tuple[int, ...] | None = None
    metric_samples: int = Field(1000, ge=2)

    def present_layers(self, generator: Generator) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Layers of CLA, and of low-rate neurons, as far as the generator has them. While it grows, the late ones are missing."""
        presets = generator.presets
        wanted = presets.curvature if self.layers is None else self.layers
        followed = presets.low_rate if self.early is None else self.early
        curvature, early = (tuple(layer for layer in sorted(set(of)) if 0 <= layer < len(generator.layers)) for of in (wanted, followed))
        if not curvature:
            found = f"layers 0 … {generator.layers[-1].index}"
            raise InputError("The snapshot has none of the layers to score", found, f"one of {wanted}")
        return curvature, early

    def chosen_axes(self, latent_size: int) -> list[int] | None:
        """The axes of z that CLA is averaged over; None for all."""
        if self.axes is None or self.axes >= latent_size:
            return None
        return np.linspace(0, latent_size, self.axes, endpoint=False).astype(int).tolist()


class Alarm(Request):
    """A metric that became so many times what it was (2 = doubled; below 1 a fall: 0.5 = halved) within a stretch of training, whose length
    is in the unit of the training progress (kimg, or steps)."""

    metric: str
    factor: float = Field(gt=0.0)
    within: float = Field(gt=0.0)

    def __str__(self) -> str:
        return f"{self.metric} x{self.factor:g} in {self.within:g}"


@dataclass(frozen=True)
class RaisedAlarm:
    """An alarm that went off: the metric was ``before`` at ``since`` and is ``value`` at ``at``."""

    alarm: Alarm
    since: float
    at: float
    before: float
    value: float

    def __str__(self) -> str:
        return f"{self.alarm.metric} went from {self.before:.4g} at {self.since:g} to {self.value:.4g} at {self.at:g}"


def parse_alarm(text: str) -> Alarm:
    """An alarm as people write it: ``dynamics/cla_unit_q0.99/layer_3 x2 in 200``. Raises `InputError` if it is not of this form, or has a
    factor or length that can never or always be met."""
    found = _ALARM.fullmatch(text.strip())
    try:
        if found is None or float(found["factor"]) == 1.0:
            raise ValueError("not of this form" if found is None else "a factor of 1 is always met")
        return Alarm.model_validate(found.groupdict())
    except ValueError as error:
        needed = "METRIC xFACTOR in LENGTH, for example 'dynamics/cla_unit_q0.99/layer_3 x2 in 200'"
        raise InputError("This is no alarm", f"{text!r}: {str(error).splitlines()[0]}", needed) from error


def raised_alarms(points: Sequence[Point], alarms: Sequence[Alarm]) -> list[RaisedAlarm]:
    """The alarms that go off along a training, each once for every time its condition begins to hold. Points without the metric, or where
    it is not finite, are passed over. A ratio needs a base: a value of 0 is none."""
    found = []
    for alarm in alarms:
        rises, on = alarm.factor > 1, False
        series = [(at, metrics[alarm.metric]) for at, metrics in points if math.isfinite(metrics.get(alarm.metric, math.nan))]
        for place, (at, value) in enumerate(series):
            bases = [(base, since) for since, base in series[:place] if at - since <= alarm.within and base > 0]
            before, since = (min if rises else max)(bases, default=(math.nan, at))  # the most favourable one
            met = value >= alarm.factor * before if rises else value <= alarm.factor * before
            if met and not on:
                found.append(RaisedAlarm(alarm, since, at, before, value))
            on = met
    return sorted(found, key=lambda one: one.at)


class DynamicsRequest(ScoringSizes, OnDevice, WithReal, WithExtractor, WithTracking):
    """Which snapshots of a training run are scored, and how."""

    snapshots: Annotated[tuple[str, ...], Flag(argument=True)] = Field(
        description="Folders, patterns, files, https://…, models:/…, or runs:/RUN for the logged models of an MLflow run."
    )
    out: Path = Field(Path("dynamics"), description="Folder for numbers and figures; scores in it are used again.")
    layers: Annotated[str | None, Flag(metavar="A,B,…")] = Field(None, description="Layers of CLA; default: the family's.")
    images: int = Field(1000, ge=2, description="Images of each snapshot that are held against the real ones.")
    unit: Annotated[str | None, Flag(metavar="LAYER/UNIT")] = Field(
        None, description="Unit to follow in the figure; default: the one whose CLA rose most."
    )
    alarm: tuple[str, ...] | None = Field(None, description="'METRIC xFACTOR in LENGTH', repeatable; exit code 1 where one goes off.")
    track: bool = Field(True, description="Log to MLflow, each snapshot to a logged model of its own.")

    @property
    def settings(self) -> ScoringSettings:
        if self.layers is not None and not all(part.isdigit() for part in self.layers.split(",")):
            raise InputError("These are no layers", repr(self.layers), "indices with commas, for example --layers 2,3")
        layers = None if self.layers is None else tuple(map(int, self.layers.split(",")))
        return ScoringSettings(layers=layers, metric_samples=self.images, **self.model_dump(include=set(ScoringSizes.model_fields)))

    @property
    def alarms(self) -> list[Alarm]:
        return [parse_alarm(text) for text in self.alarm or ()]

    @property
    def followed(self) -> tuple[int | None, int | None]:
        """Layer and unit to follow; None where they are to be found."""
        if self.unit is None:
            return None, None
        layer, _, unit = self.unit.partition("/")
        if not layer.isdigit() or not unit.isdigit():
            raise InputError("This is no unit", repr(self.unit), "LAYER/UNIT, for example --unit 3/11")
        return int(layer), int(unit)


class PatternRequest(GeneratorRequest):
    """Which neuron's activation is drawn, around which sample."""

    sample: Annotated[int, Flag("--id")] = Field(0, ge=0, description="Id of the sample.")
    seed: int = Field(1, ge=0, description="Of the sample.")
    at: Annotated[str | None, Flag(metavar="LAYER/UNIT/Y/X")] = Field(
        None, description="The neuron; parts from the right may be left out, and are found by CLA."
    )
    plane: Annotated[str | None, Flag(metavar="A,B")] = Field(
        None, description="The two axes of the surface; default: the most local ones."
    )
    out: Path = Field(Path("pattern.png"), description="The figure to write.")

    @property
    def axes(self) -> tuple[int, int] | None:
        if self.plane is None:
            return None
        first, _, second = self.plane.partition(",")
        if not first.isdigit() or not second.isdigit() or first == second:
            raise InputError("These are no two axes", repr(self.plane), "A,B, for example --plane 3,14")
        return int(first), int(second)
