"""What a set metric is, where each is found, and the evaluator that measures groups with all of them.

Intervals are over draws of the generated samples: a bootstrap for means over them, a jackknife over ten blocks for the others. The real
set is taken as it is.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qualitygate.metrics.estimate import Estimate, NotKnownError, Resampling
from qualitygate.plugins import Table, resolve
from qualitygate.records.metrics import METRICS, Measurement, Metric, all_metrics, metric

if TYPE_CHECKING:
    from qualitygate.metrics.measured_set import Group, MeasuredSet


class SetMetric(ABC):
    """A number of a group of images; its info holds name, title and direction, and what it needs."""

    def __init__(self, info: Metric) -> None:
        self.info = info

    @property
    def name(self) -> str:
        return self.info.name

    @abstractmethod
    def compute(self, group: Group, how: Resampling | None) -> Estimate:
        """The number of a group that has what the metric needs, and how it varies as the samples are drawn again; without ``how``, the bare
        value.

        Raises:
            NotKnownError: there is none of so few samples; the message says why, beginning with ``too few`` where that is it.
        """

    def settings(self, group: Group) -> Mapping[str, float | str]:
        """What else the number depends on: only numbers of equal settings can be compared."""
        return {}


PLUGINS: Table[SetMetric] = Table("metrics", {}, SetMetric)
"""Those of other packages; ours are rows of `qualitygate.records.metrics.METRICS`."""


def set_metric(name: str) -> SetMetric:
    """The metric of that name: ours, or another package's.

    Raises:
        InputError: there is none.
    """
    info = metric(name)
    return resolve(f"qualitygate.metrics.{info.where}")(info) if name in METRICS else PLUGINS[name]


@dataclass(frozen=True)
class Evaluator:
    """What groups are measured with.

    Attributes:
        extractor: key of the extractor, and of how real images were brought to size.
        distance: key of the distance of path lengths.
        path_samples: samples of a group whose paths count, at most: groups are compared at one size.
        seed: of the intervals.
        intervals: whether to work them out; without, a measurement is a bare value.
    """

    extractor: str | None = None
    distance: str | None = None
    path_samples: int | None = None
    seed: int = 0
    intervals: bool = True

    def measure(self, measured: MeasuredSet, rows: np.ndarray | None = None, *, leave_out: Collection[str] = ()) -> dict[str, Measurement]:
        """Every metric of groups that can be measured of rows (n,) of a set, by default of all, by name; some may be left out."""
        found = {}
        for name, info in all_metrics().items():
            if info.of_groups and name not in leave_out and measured.has(info.needs):
                group = measured.group(rows)
                if info.needs == "paths" and measured.lengths is not None:  # the first samples whose paths were measured
                    known = ~measured.lengths[group.rows].isnan().any(dim=1).numpy()
                    group = measured.group(group.rows[known][: self.path_samples])
                if len(group):
                    found[name] = self.measurement(name, group)
        return found

    def measurement(self, name: str, group: Group) -> Measurement:
        """One metric of a group, which holds what the metric needs; without a value where it would mean nothing."""
        one, real = set_metric(name), group.of.real
        needs, info = one.info.needs, {"metric": name, "samples": len(group), "settings": dict(one.settings(group))}
        info["extractor"] = {"paths": self.distance, "discriminator": None}.get(needs, self.extractor)
        if needs == "real" and real is not None:
            info |= {"real_samples": len(real.features), "real": real.digest}
        try:
            found = one.compute(group, Resampling(self.seed) if self.intervals else None)
        except NotKnownError as reason:
            return Measurement(value=None, note=str(reason), **info)
        if len(found.draws):
            interval, (least, most) = found.interval(), (0.0, 1.0) if one.info.share else (-math.inf, math.inf)
            info |= {"low": max(interval.low, least), "high": min(interval.high, most)}
        if len(found.blocks):
            info["blocks"] = tuple(found.blocks.tolist())
        return Measurement(value=found.value if math.isfinite(found.value) else None, note=found.note, **info)
