"""A metric of a rule as an estimate: what a subject's sample, or its profile, says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qualitygate import names
from qualitygate.gating.comparison import Estimate, Kind, mean_of, quantile_of, resampled, worst_of
from qualitygate.gating.profile import Profile
from qualitygate.metrics import manifold
from qualitygate.metrics.frechet import GaussianStatistics, frechet_distance
from qualitygate.metrics.intervals import blocks_of
from qualitygate.metrics.kernel import kernel_distance, kernel_distances_without
from qualitygate.metrics.path_length import kept
from qualitygate.metrics.real_set import RealSet
from qualitygate.policy.model import SHARES, TO_BASELINE, score_quantile
from qualitygate.studies.check.sample import Sample

WORST_SHARE = 0.02
"""Share of a layer's units that count as its worst."""


@dataclass(frozen=True)
class Drawing:
    """How numbers are drawn again.

    Attributes:
        draws: resamples of a bootstrap.
        seed: of them; two subjects with equal seeds are paired.
        tail: chance left beyond each end of an interval.
    """

    draws: int
    seed: int
    tail: float


class NotKnownError(Exception):
    """A metric that cannot be told; the message says why."""


def of_sample(metric: str, sample: Sample, reference: RealSet | None, how: Drawing) -> Estimate:
    """The metric of a sample.

    Args:
        metric: its name.
        sample: measured as far as the metric needs.
        reference: the images it is held against, where the metric needs some: real ones, or other images of the baseline.
        how: numbers are drawn again.

    Raises:
        NotKnownError: it cannot be told, of this checkpoint or of so few samples.
    """
    if metric in SHARES:
        return _mean(metric, sample.columns[metric], how, step=1.0)
    if (quantile := score_quantile(metric)) is not None:
        return _quantile(sample.columns, *quantile, how)
    if names.is_worst_unit_cla(metric):
        rows = sample.curvature[worst_layer(metric, sample)]
        worst = max(1, round(WORST_SHARE * rows.shape[1]))
        value = float(np.sort(rows.mean(axis=0))[-worst:].mean())
        return resampled(value, worst_of(rows, worst), len(rows), draws=how.draws, seed=how.seed)
    if metric == names.PPL:
        if sample.lengths is None:
            raise NotKnownError("no path lengths")
        return _path_length(sample.lengths, how)
    if metric == names.DISCRIMINATOR:
        if sample.discriminator is None:
            raise NotKnownError("the checkpoint has no discriminator")
        return _mean(metric, sample.discriminator, how)
    if reference is not None and sample.features is not None:
        return _against(TO_BASELINE.get(metric, metric), sample.features, reference, how)
    return of_profile(metric, sample.subject.profile, sample.columns, how)


def of_profile(metric: str, profile: Profile, columns: Mapping[str, np.ndarray], how: Drawing) -> Estimate:
    """The metric as far as a profile tells it: of its neurons and units, and quantiles of the given columns.

    Raises:
        NotKnownError: a profile does not hold it.
    """
    if (at := names.low_rate_share_at(metric)) is not None:
        return _low_rate_share(profile, at, how.tail)
    if metric == names.DEAD_UNITS:
        dead = np.asarray(profile.units[names.UNIT_DEAD]) == 1.0
        share = float(dead.mean())
        return Estimate(share, np.full(2, share), Kind.BOUNDS, profile.rates.samples)
    if (quantile := score_quantile(metric)) is not None:
        return _quantile(columns, *quantile, how)
    raise NotKnownError("a profile alone does not tell it: give the baseline's checkpoint")


def worst_layer(metric: str, sample: Sample) -> int:
    """The layer of a metric of the worst units: the one that it names, or the family's first for curvature."""
    layer = names.layer_of(metric)
    return sample.generator.presets.curvature[0] if layer is None else sample.generator.layer(layer).index


def _mean(metric: str, values: np.ndarray, how: Drawing, step: float = 0.0) -> Estimate:
    """Mean of values that are all finite; ``step`` is the range of one."""
    _check_finite(metric, values)
    value = float(values.mean())
    return resampled(value, mean_of(values), len(values), draws=how.draws, seed=how.seed, step=step / len(values))


def _check_finite(what: str, values: np.ndarray) -> None:
    """Raises `NotKnownError` if any value is not a number: what is left of the others says nothing of the whole sample."""
    if unknown := int((~np.isfinite(values)).sum()):
        raise NotKnownError(f"{unknown} of {len(values)} values of {what} are not finite")


def _quantile(columns: Mapping[str, np.ndarray], score: str, q: float, how: Drawing) -> Estimate:
    if score not in columns:
        raise NotKnownError(f"{score} was not scored")
    values = columns[score]
    _check_finite(score, values)
    return resampled(float(np.quantile(values, q)), quantile_of(values, q), len(values), draws=how.draws, seed=how.seed)


def _low_rate_share(profile: Profile, at: float, tail: float) -> Estimate:
    """Share of the neurons of all calibrated layers with a rate of at most R, and its bounds: neurons whose rate lies so close to R that
    its Wilson interval reaches it count on neither side. That holds however the neurons depend on each other."""
    from statistics import NormalDist

    n, z = profile.rates.samples, NormalDist().inv_cdf(1.0 - tail)
    rate = np.concatenate([profile.rates.counts[layer].flatten().numpy() / n for layer in profile.rates.layers])
    middle, reach = (rate + z**2 / (2 * n), z * np.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2)))
    low, high = (middle - reach) / (1 + z**2 / n), (middle + reach) / (1 + z**2 / n)
    bounds = np.array([(high <= at).mean(), (low <= at).mean()])
    return Estimate(float((rate <= at).mean()), bounds, Kind.BOUNDS, n)


def _path_length(lengths: Tensor, how: Drawing) -> Estimate:
    """Mean over all paths, the tails dropped once for the whole sample."""
    counted = kept(lengths)
    sums, counts = (lengths * counted).sum(dim=1).numpy(), counted.sum(dim=1).double().numpy()
    return resampled(
        float(sums.sum() / counts.sum()),
        lambda rows: sums[rows].sum(axis=1) / counts[rows].sum(axis=1),
        len(sums),
        draws=how.draws,
        seed=how.seed,
    )


def _against(metric: str, features: Tensor, real: RealSet, how: Drawing) -> Estimate:
    if metric == names.PRECISION:
        return _mean(metric, _numpy(manifold.balls_around(features, real.features, real.radii) > 0), how, step=1.0)
    if metric == names.DENSITY:
        inside = manifold.balls_around(features, real.features, real.radii, strict=True)
        return _mean(metric, _numpy(inside) / real.k, how)
    if metric == names.REALISM:
        return _realism(features, real, how)
    blocks = [torch.from_numpy(block).to(features.device) for block in blocks_of(len(features), seed=how.seed)]
    if metric == names.FID:
        value, left = _fid(features, real, blocks)
    elif metric == names.KID:
        rows = real.kernel.rows(features)
        value = kernel_distance(features, real.kernel, rows)
        left = kernel_distances_without(features, real.kernel, rows, blocks)
    else:
        value, left = (_covered(metric, features, real), [_covered(metric, _without(features, one), real) for one in blocks])
    return Estimate(value, np.array(left), Kind.JACKKNIFE, len(features))


def _realism(features: Tensor, real: RealSet, how: Drawing) -> Estimate:
    """Mean realism; a copy of a reference image has no finite one, and no cap would be more than a guess."""
    values = _numpy(manifold.realism(features, real.features, real.radii))
    if copies := int(np.isposinf(values).sum()):
        raise NotKnownError(f"{copies} of {len(values)} images equal one of {real.name}: their realism is infinite")
    return _mean(names.REALISM, values, how)


def _covered(metric: str, features: Tensor, real: RealSet) -> float:
    """Recall or coverage: a share of the real images, and a number of the whole generated set."""
    if metric == names.RECALL:
        inside = manifold.recall(features, real.features, real.k)
    else:
        inside = manifold.coverage(features, real.features, real.radii)
    return float(inside.double().mean())


def _fid(features: Tensor, real: RealSet, blocks: list[Tensor]) -> tuple[float, list[float]]:
    fewest, width = min(len(features) - len(blocks[0]), len(real.features)), features.shape[1]
    if fewest <= width:
        raise NotKnownError(f"{fewest} images are too few for FID with {width} features: ask for kid")
    all_ = GaussianStatistics.of(features)
    without = [frechet_distance(all_ - GaussianStatistics.of(features[block]), real.statistics) for block in blocks]
    return frechet_distance(all_, real.statistics), without


def _without(features: Tensor, block: Tensor) -> Tensor:
    keep = torch.ones(len(features), dtype=torch.bool, device=features.device)
    keep[block] = False
    return features[keep]


def _numpy(values: Tensor) -> np.ndarray:
    return values.double().cpu().numpy()
