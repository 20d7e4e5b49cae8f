"""The sample that a check looks at, which grows from look to look, and the metrics of rules as estimates from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from qualitygate import names
from qualitygate.features.cache import SampleFeatures
from qualitygate.features.extractor import Extractor, PerceptualDistance, extract
from qualitygate.gating.profile import Profile
from qualitygate.gating.stage import GateStage
from qualitygate.generators.base import Generator, sample_latents
from qualitygate.generators.passes import MICRO_BATCH, Progress, Reporter, micro_batches, scored_pass
from qualitygate.latents import Latents
from qualitygate.metrics import manifold
from qualitygate.metrics.compare import Estimate, Kind, mean_of, quantile_of, resampled, worst_of
from qualitygate.metrics.estimate import blocks_of
from qualitygate.metrics.frechet import GaussianStatistics, frechet_distance
from qualitygate.metrics.kernel import kernel_distance, kernel_distances_without
from qualitygate.metrics.measured_set import RealSet, discriminator_values
from qualitygate.metrics.path_length import PER_SAMPLE, kept, path_lengths
from qualitygate.policy.model import SHARES, TO_BASELINE, Policy, score_quantile
from qualitygate.records.gate import Verdict
from qualitygate.scores.local_activation import local_activation
from qualitygate.studies.check.model import Subject

REFERENCE_FROM = 2**47
"""First id of the baseline's images that stand in for real ones: the upper half of all ids, where no sample of a check ever is."""


def images_of(generator: Generator, latents: Latents, progress: Progress) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Images as the generator makes them, untouched, and their labels; a micro-batch at a time."""
    for rows, batch in micro_batches(latents):
        valid = rows.stop - rows.start
        with scored_pass():
            images = generator(batch)[:valid]
        yield images, None if batch.labels is None else batch.labels[:valid]
        progress(valid)


def image_features(
    subject: Subject, extractor: Extractor, ids: range, seed: int, reporter: Reporter, earlier: Tensor | None = None
) -> Tensor:
    """Features of a subject's images: float32 (N, F) on its device. Made once for a checkpoint, whichever command asks.

    Args:
        subject: with its generator.
        extractor: makes them.
        ids: of the samples.
        seed: of the samples.
        reporter: shows progress.
        earlier: of the first of these ids, from an earlier look; what is not kept in the cache is not made again either.
    """
    generator, sampling = subject.generator, subject.profile.info.sampling
    assert generator is not None

    shelf = SampleFeatures(generator, sampling, seed, extractor, ids.start)
    found = shelf.known(len(ids))
    if earlier is not None and len(earlier) > len(found):
        found = earlier.cpu().numpy()
    if rest := ids[len(found) :]:
        with reporter.phase("features", len(rest)) as progress:
            latents = sample_latents(generator, rest, seed, sampling=sampling)
            made = extract(extractor, (images for images, _ in images_of(generator, latents, progress)))
        found = np.concatenate([found, made])
        shelf.keep(found)
    return torch.from_numpy(found).to(generator.device)


def reference_set(baseline: Subject, extractor: Extractor, count: int, seed: int, reporter: Reporter) -> RealSet:
    """Images of the baseline in the place of real ones. None of them is in the sample that the check looks at: so the baseline's own
    sample stands to them as another model's does, and its value is no trivial 1."""
    ids = range(REFERENCE_FROM, REFERENCE_FROM + count)
    features = image_features(baseline, extractor, ids, seed, reporter)
    return RealSet(f"images of {baseline.profile.info.checkpoint}", baseline.sha256, features)


@dataclass
class Sample:
    """What is known of samples 0 … N − 1 of a subject.

    Args:
        subject: the checkpoint; its generator is there.
        policy: what its samples are judged by.
        ruler: profile that sets the limits.
        reporter: shows progress.

    Attributes:
        columns: scores, and 1 or 0 for each verdict under the name of its share, float64 (N,).
        features: float32 (N, F).
        discriminator: value of each image, float64 (N,).
        curvature: CLA of the units of each layer for the first samples, float64 (M, units).
        lengths: path lengths of the first samples, float64 (P, paths).
    """

    subject: Subject
    policy: Policy
    ruler: Profile
    reporter: Reporter
    ids: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    features: Tensor | None = None
    discriminator: np.ndarray | None = None
    curvature: dict[int, np.ndarray] = field(default_factory=dict)
    lengths: Tensor | None = None

    def __post_init__(self) -> None:
        assert self.subject.generator is not None
        self.generator = self.subject.generator
        self.stage = GateStage(self.generator, self.subject.profile, self.policy, seed=self.policy.check.seed, ruler=self.ruler)

    def gate(self, count: int) -> None:
        """Scores and verdicts of samples 0 … count − 1, those that are not known yet."""
        start = len(self.ids)
        if start >= count:
            return
        with self.reporter.phase("gate", count - start) as progress:
            for block in self.stage.blocks(range(start, count)):
                verdict, scores = block.decisions.verdict, dict(block.columns)
                parts = {name: column for name, column in scores.items() if not names.is_trial(name)}
                self._append(block.latents.ids, {**parts, **_verdict_columns(verdict, block.decisions.borderline)})
                progress(len(block.latents))

    def extract(self, extractor: Extractor, count: int) -> None:
        """Features of the untouched images of samples 0 … count − 1; made once for a checkpoint, whichever command asks."""
        if self.features is not None and len(self.features) >= count:
            return
        seed = self.policy.check.seed
        self.features = image_features(self.subject, extractor, range(count), seed, self.reporter, self.features)

    def judge(self, count: int) -> None:
        """The discriminator's value of the untouched images of samples 0 … count − 1."""
        judge = self.subject.discriminator
        start = 0 if self.discriminator is None else len(self.discriminator)
        if judge is None or start >= count:
            return
        with self.reporter.phase("discriminator", count - start) as progress:
            values = [
                discriminator_values(judge, images, labels)
                for images, labels in images_of(self.generator, self.stage.latents(range(start, count)), progress)
            ]
        self.discriminator = np.concatenate([*([] if self.discriminator is None else [self.discriminator]), *values])

    def walk(self, layer: int, count: int) -> None:
        """Exact CLA of the units of a layer for samples 0 … count − 1."""
        known = self.curvature.get(layer)
        start = 0 if known is None else len(known)
        if start >= count:
            return
        with self.reporter.phase(f"exact CLA of layer {layer}", count - start) as progress:
            latents = self.stage.latents(range(start, count))
            parts = [
                local_activation(self.generator, latents[at : at + MICRO_BATCH], (layer,), progress=progress).unit_score[layer]
                for at in range(0, len(latents), MICRO_BATCH)
            ]
            rows = torch.cat(parts).cpu().numpy()
        self.curvature[layer] = rows if known is None else np.concatenate([known, rows])

    def lay_paths(self, distance: PerceptualDistance, count: int) -> None:
        """Path lengths of samples 0 … count − 1."""
        start = 0 if self.lengths is None else len(self.lengths)
        if start >= count:
            return
        with self.reporter.phase("path lengths", count - start) as progress:
            new = path_lengths(self.generator, self.stage.latents(range(start, count)), distance, PER_SAMPLE, progress=progress)
        self.lengths = new if self.lengths is None else torch.cat([self.lengths, new])

    def _append(self, ids: np.ndarray, columns: dict[str, np.ndarray]) -> None:
        self.ids = np.concatenate([self.ids, ids])
        for name, values in columns.items():
            self.columns[name] = np.concatenate([self.columns.get(name, np.empty(0)), values])


def _verdict_columns(verdict: np.ndarray, borderline: np.ndarray) -> dict[str, np.ndarray]:
    """1 for the samples that count for a share, else 0, under the share's name."""
    kinds = {
        names.ACCEPTED_SHARE: (Verdict.ACCEPT,),
        names.CORRECTED_SHARE: (Verdict.CORRECT,),
        names.REJECTED_SHARE: (Verdict.REJECT,),
        names.YIELD: (Verdict.ACCEPT, Verdict.CORRECT),
    }
    columns = {share: np.isin(verdict, kind).astype(np.float64) for share, kind in kinds.items()}
    return columns | {names.BORDERLINE_SHARE: borderline.astype(np.float64)}


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
