"""What a set metric is, where each is found, and the evaluator that measures groups with all of them.

Intervals are over draws of the generated samples: a bootstrap for means over them, a jackknife over ten blocks for the others. The real
set is taken as it is.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np

from qualitygate.metrics.estimate import Estimate, NotKnownError, Resampling
from qualitygate.records.metrics import METRICS, Measurement, Metric, all_metrics, metric, plugin

if TYPE_CHECKING:
    from qualitygate.metrics.measured_set import Group, MeasuredSet


class SetMetric(ABC):
    """A number of a group of images.

    Args:
        info: its name, title and direction, and what it needs.
    """

    def __init__(self, info: Metric) -> None:
        self.info = info

    @abstractmethod
    def compute(self, group: Group, how: Resampling | None) -> Estimate:
        """The number of a group that has what the metric needs.

        Args:
            group: the samples.
            how: they are drawn again for the interval; None: the bare value.

        Raises:
            NotKnownError: there is none of so few samples; the message says why, beginning with ``too few`` where that is it.
        """

    def settings(self, group: Group) -> Mapping[str, float | str]:
        """What else the number depends on: only numbers of equal settings can be compared."""
        return {}


def set_metric(name: str) -> SetMetric:
    """The metric of that name: ours, or another package's.

    Raises:
        InputError: there is none.
    """
    info = metric(name)
    if name not in METRICS:
        return plugin(name)
    module, _, kind = info.where.partition(":")
    return getattr(import_module(f"qualitygate.metrics.{module}"), kind)(info)


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
        """Every metric of groups that can be measured of this one, by name.

        Args:
<<<<<<< HEAD
            subject: the population.
            rows: the group, int64 (n,); by default all of it.
=======
            measured: the whole set.
            rows: the group (n,); by default all of it.
            leave_out: metrics not to measure.
>>>>>>> main
        """
        found = {}
        for name, info in all_metrics().items():
            if info.of_groups and name not in leave_out and measured.has(info.needs):
                group = self._with_paths(measured.group(rows)) if info.needs == "paths" else measured.group(rows)
                if len(group):
                    found[name] = self.measurement(name, group)
        return found

    def measurement(self, name: str, group: Group) -> Measurement:
        """One metric of a group, which holds what the metric needs; without a value where it would mean nothing."""
        one, real = set_metric(name), group.of.real
        empty = Measurement(metric=name, value=None, samples=len(group), settings=dict(one.settings(group)))
        if one.info.needs == "real" and real is not None:
            against = {"real_samples": len(real.features), "real": real.digest, "extractor": self.extractor}
            empty = empty.model_copy(update=against)
        elif one.info.needs != "discriminator":
            empty = empty.model_copy(update={"extractor": self.distance if one.info.needs == "paths" else self.extractor})
        try:
            found = one.compute(group, Resampling(self.seed) if self.intervals else None)
        except NotKnownError as reason:
            return empty.model_copy(update={"note": str(reason)})
        return empty.model_copy(update=_numbers(found))

<<<<<<< HEAD
        Args:
            lengths: float64 (N, paths).
            name: of the metric.
        """
        counted = kept(lengths)
        sums, counts = ((lengths * counted).sum(dim=1).numpy(), counted.sum(dim=1).numpy())
        settings = {"space": self.paths.space, "where": self.paths.where, "epsilon": self.paths.epsilon, "paths": float(lengths.shape[1])}
        empty = Measurement(metric=name, value=None, samples=len(lengths), extractor=self.distance, settings=settings)
        if len(lengths) < 2 or not self.intervals:
            note = _ONE_SAMPLE if len(lengths) < 2 else None
            return empty.model_copy(update={"value": float(sums.sum() / counts.sum()), "note": note})
        return measured(bootstrap_ratio(sums, counts, seed=self.seed), empty)

    def extrapolated_fid(self, features: Tensor) -> Measurement:
        """FID of a whole set of features (N, F) as its size goes to infinity, or why there is none."""
        assert self.real is not None
        empty, width = self._empty(names.FID_INFINITY, len(features)), features.shape[1]
        if len(features) < 2 * (width + 1) or len(self.real.features) <= width:
            return empty.model_copy(update={"note": _too_few(min(len(features) // 2, len(self.real.features)), width)})
        value = extrapolated_frechet_distance(features, self.real.statistics, seed=self.seed)
        return empty.model_copy(update={"value": value, "note": "a straight line in 1/N, read off at 0; no interval"})

    def _against_real(self, subject: Subject, rows: np.ndarray) -> dict[str, Measurement]:
        standing, real = subject.standing, self.real
        assert standing is not None
        assert real is not None
        assert subject.population.features is not None
        at = torch.from_numpy(rows).to(subject.population.features.device)
        features = subject.population.features[at]
        k = self._empty(names.PRECISION, len(rows), k=float(real.k))
        columns = {names.PRECISION: standing.inside[rows], names.DENSITY: standing.density[rows], names.REALISM: standing.realism[rows]}
        if len(rows) > real.k:
            columns[names.RECALL] = manifold.recall(features, real.features, real.k).double().cpu().numpy()
            columns[names.COVERAGE] = manifold.coverage(features, real.features, real.radii).double().cpu().numpy()
        found = {name: self._mean(column, k.model_copy(update={"metric": name})) for name, column in columns.items()}
        found[names.FID] = self._fid(features, real)
        found[names.KID] = self._kid(features, standing.kernel[at], real)
        return found

    def _mean(self, values: np.ndarray, empty: Measurement) -> Measurement:
        finite = values[np.isfinite(values)]
        left = len(values) - len(finite)
        notes = [f"{left} of infinite value (copies of real images) are left out"] * bool(left)
        note = "; ".join(notes + [_ONE_SAMPLE] * (len(finite) == 1)) or None
        if len(finite) < 2 or not self.intervals:
            return empty.model_copy(update={"value": float(finite.mean()) if len(finite) else None, "note": note})
        return measured(bootstrap_mean(finite, seed=self.seed), empty, note)

    def _fid(self, features: Tensor, real: RealSet) -> Measurement:
        empty, width = self._empty(names.FID, len(features)), features.shape[1]
        if (fewest := min(len(features), len(real.features))) <= width:
            return empty.model_copy(update={"note": _too_few(fewest, width)})
        whole = GaussianStatistics.of(features)

        def without(blocks: list[Tensor]) -> list[float]:
            return [frechet_distance(whole - GaussianStatistics.of(features[block]), real.statistics) for block in blocks]

        found = self._jackknifed(frechet_distance(whole, real.statistics), without, features, empty)
        if isinstance(found, Measurement):
            return found
        return measured(found, empty, f"too large by about {found.bias:.2g} at this number of samples")

    def _kid(self, features: Tensor, kernel: Tensor, real: RealSet) -> Measurement:
        empty = self._empty(names.KID, len(features))
        if len(features) < _FEWEST_FOR_BLOCKS:
            return empty.model_copy(update={"note": f"too few: {len(features)} samples"})

        def without(blocks: list[Tensor]) -> list[float]:
            return kernel_distances_without(features, real.kernel, kernel, blocks)

        found = self._jackknifed(kernel_distance(features, real.kernel, kernel), without, features, empty)
        return found if isinstance(found, Measurement) else measured(found, empty)

    def _jackknifed(
        self, value: float, without: Callable[[list[Tensor]], list[float]], features: Tensor, empty: Measurement
    ) -> JackknifeInterval | Measurement:
        """The value with its interval, or bare where none is asked for."""
        if not self.intervals:
            return empty.model_copy(update={"value": value})
        blocks = [torch.from_numpy(block).to(features.device) for block in blocks_of(len(features), seed=self.seed)]
        return jackknife(value, without(blocks))

    def _empty(self, name: str, samples: int, **settings: float | str) -> Measurement:
        """A measurement against the real set, without its number."""
        assert self.real is not None
        return Measurement(
            metric=name,
            value=None,
            samples=samples,
            real_samples=len(self.real.features),
            real=self.real.digest,
            extractor=self.extractor,
            settings=settings,
        )
=======
    def _with_paths(self, group: Group) -> Group:
        """The first samples of a group whose paths were measured."""
        assert group.of.lengths is not None
        known = group.rows[~group.of.lengths[group.rows].isnan().any(dim=1).numpy()]
        return group.of.group(known[: self.path_samples])
>>>>>>> main


def _numbers(found: Estimate) -> dict[str, object]:
    """What a measurement keeps of an estimate."""
    numbers: dict[str, object] = {"value": found.value if math.isfinite(found.value) else None, "note": found.note}
    if len(found.draws):
        interval = found.interval()
        numbers |= {"low": interval.low, "high": interval.high}
    if len(found.blocks):
        numbers["blocks"] = tuple(found.blocks.tolist())
    return numbers
