"""All metrics of a group of samples: those that need real images, and those that do not.

What a sample is worth by itself (see `Standing`) is found out once for the whole population; recall, coverage, FID and the rest of KID
are worked out for each group.

Intervals are over draws of the generated samples: a bootstrap for means over them, a jackknife over ten blocks for FID and KID. Those
of recall and coverage, means over the real samples, are a bootstrap over these, and so too narrow: random groups of the same size show
the rest. The real set is taken as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qualitygate import names
from qualitygate.metrics import manifold
from qualitygate.metrics.estimate import LEVEL, JackknifeInterval, blocks_of, bootstrap_mean, bootstrap_ratio, jackknife, student_t
from qualitygate.metrics.frechet import GaussianStatistics, extrapolated_frechet_distance, frechet_distance
from qualitygate.metrics.inception_score import SPLITS, inception_score
from qualitygate.metrics.kernel import kernel_distance, kernel_distances_without
from qualitygate.metrics.measured_set import Population, RealSet, Standing
from qualitygate.metrics.path_length import PER_SAMPLE, PathSettings, kept
from qualitygate.records import Interval
from qualitygate.records.metrics import Measurement, measured

_FEWEST_FOR_BLOCKS = 4
_ONE_SAMPLE = "one sample: no interval"  # a bootstrap would make one of width 0


@dataclass(frozen=True)
class Subject:
    """A population and how it stands to the real set, ready to be measured in groups."""

    population: Population
    standing: Standing | None


@dataclass(frozen=True)
class Ruler:
    """What groups are measured with.

    Attributes:
        real: the real set; None: only metrics that need none.
        extractor: key of the extractor, and of how real images were brought to size.
        distance: key of the distance of path lengths.
        paths: how the paths of each sample were laid.
        path_samples: samples of a group whose paths count, at most: groups are compared at one size.
        seed: of the intervals.
        intervals: whether to work them out; without, a measurement is a bare value.
    """

    real: RealSet | None = None
    extractor: str | None = None
    distance: str | None = None
    paths: PathSettings = PER_SAMPLE
    path_samples: int | None = None
    seed: int = 0
    intervals: bool = True

    def subject(self, population: Population) -> Subject:
        """The population with its standing."""
        if self.real is None or population.features is None:
            return Subject(population, None)
        return Subject(population, Standing.of(population.features, self.real))

    def measure(self, subject: Subject, rows: np.ndarray | None = None) -> dict[str, Measurement]:
        """Every metric that can be measured of the group, by name.

        Args:
            subject: the population.
            rows: the group, int64 (n,); by default all of it.
        """
        population = subject.population
        rows = np.arange(population.count) if rows is None else rows
        found = self._against_real(subject, rows) if subject.standing is not None else {}
        if population.discriminator is not None:
            empty = Measurement(metric=names.DISCRIMINATOR, value=None, samples=len(rows))
            found[names.DISCRIMINATOR] = self._mean(population.discriminator[rows], empty)
        if population.lengths is not None:
            known = population.lengths[rows]
            known = known[~known.isnan().any(dim=1)][: self.path_samples]
            if len(known):
                found[names.PPL] = self.path_length(known)
        return found

    def path_length(self, lengths: Tensor, name: str = names.PPL) -> Measurement:
        """PPL of a group: the mean over all paths of its samples, the tails of them all dropped; resamples keep what was dropped.

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


def inception_measurement(probabilities: Tensor, extractor: str) -> Measurement:
    """The inception score of a set: mean over its splits, the interval from how these differ.

    Args:
        probabilities: (N, classes).
        extractor: key of what they come from.
    """
    samples = len(probabilities)
    empty = Measurement(metric=names.INCEPTION_SCORE, value=None, samples=samples, extractor=extractor, settings={"splits": float(SPLITS)})
    if samples < SPLITS:
        return empty.model_copy(update={"note": f"too few: {samples} samples for {SPLITS} splits"})
    mean, spread = inception_score(probabilities)
    reach = student_t(LEVEL, SPLITS - 1) * spread / (SPLITS - 1) ** 0.5
    return measured(Interval(mean, mean - reach, mean + reach), empty)


def _too_few(samples: int, width: int) -> str:
    return f"too few: {samples:,} samples for {width:,} features; KID has no such limit"
