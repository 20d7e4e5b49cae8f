"""The sample that a check looks at, which grows from look to look, and the metrics of rules as estimates from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from qualitygate import names
from qualitygate.features.cache import SampleFeatures
from qualitygate.features.extractor import Extractor, PerceptualDistance
from qualitygate.gating.profile import Profile
from qualitygate.gating.stage import GateStage
from qualitygate.generators.passes import MICRO_BATCH, Progress, Reporter
from qualitygate.latents import Latents
from qualitygate.metrics.discriminator import discriminator_values
from qualitygate.metrics.estimate import Estimate, NotKnownError, Resampling, mean, mean_of_worst, quantile, wilson
from qualitygate.metrics.measured_set import MeasuredSet, RealSet
from qualitygate.metrics.metric import set_metric
from qualitygate.metrics.path_length import path_lengths
from qualitygate.policy.model import SHARES, TO_BASELINE, Policy, needs_of, score_quantile
from qualitygate.records.gate import Verdict
from qualitygate.scores.local_activation import local_activation
from qualitygate.studies.check.model import CheckedModel

REFERENCE_FROM = 2**47
"""First id of the baseline's images that stand in for real ones: the upper half of all ids, where no sample of a check ever is."""
WORST_SHARE = 0.02
"""Share of a layer's units that count as its worst."""
_MISSING = {"paths": "no path lengths", "discriminator": "the checkpoint has no discriminator"}
_SHARES = {
    names.ACCEPTED_SHARE: (Verdict.ACCEPT,),
    names.CORRECTED_SHARE: (Verdict.CORRECT,),
    names.REJECTED_SHARE: (Verdict.REJECT,),
    names.YIELD: (Verdict.ACCEPT, Verdict.CORRECT),
}


@dataclass
class Sample:
    """What is known of samples 0 … N − 1 of a checkpoint.

    Args:
        model: the checkpoint; its generator is there.
        policy: what its samples are judged by.
        reference_profile: profile that sets the limits.
        reporter: shows progress.

    Attributes:
        columns: scores, and 1 or 0 for each verdict under the name of its share, float64 (N,).
        features: float32 (N, F).
        discriminator: value of each image, float64 (N,).
        curvature: CLA of the units of each layer for the first samples, float64 (M, units).
        lengths: path lengths of the first samples, float64 (P, paths).
    """

    model: CheckedModel
    policy: Policy
    reference_profile: Profile
    reporter: Reporter
    ids: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    features: Tensor | None = None
    discriminator: np.ndarray | None = None
    curvature: dict[int, np.ndarray] = field(default_factory=dict)
    lengths: Tensor | None = None

    def __post_init__(self) -> None:
        assert self.model.generator is not None
        self.generator = self.model.generator
        self.seed = self.policy.check.seed
        self.stage = GateStage(self.generator, self.model.profile, self.policy, seed=self.seed, reference_profile=self.reference_profile)
        self._sets: dict[tuple[str, int], MeasuredSet] = {}

    # growing

    def gate(self, count: int) -> None:
        """Scores and verdicts of samples 0 … count − 1, those that are not known yet."""
        start = len(self.ids)
        if start >= count:
            return
        with self.reporter.phase("gate", count - start) as progress:
            for block in self.stage.blocks(range(start, count)):
                verdict = block.decisions.verdict
                new = {name: column for name, column in block.columns.items() if not names.is_trial(name)}
                new |= {share: np.isin(verdict, kinds).astype(np.float64) for share, kinds in _SHARES.items()}
                new[names.BORDERLINE_SHARE] = block.decisions.borderline.astype(np.float64)
                self.ids = np.concatenate([self.ids, block.latents.ids])
                for name, values in new.items():
                    self.columns[name] = np.concatenate([self.columns.get(name, np.empty(0)), values])
                progress(len(block.latents))

    def extract(self, extractor: Extractor, count: int) -> None:
        """Features of the untouched images of samples 0 … count − 1; made once for a checkpoint, whichever command asks."""
        if self.features is None or len(self.features) < count:
            self.features = image_features(self.model, extractor, range(count), self.seed, self.reporter, self.features)

    def discriminate(self, count: int) -> None:
        """The discriminator's value of the untouched images of samples 0 … count − 1."""
        discriminator = self.model.discriminator
        if discriminator is None:
            return

        def values(latents: Latents, progress: Progress) -> np.ndarray:
            labels = latents.labels
            return np.concatenate(
                [
                    discriminator_values(discriminator, images, None if labels is None else labels[rows])
                    for rows, images in self.generator.image_batches(latents, progress=progress)
                ]
            )

        self.discriminator = self._grown(self.discriminator, count, "discriminator", values)

    def walk(self, layer: int, count: int) -> None:
        """Exact CLA of the units of a layer for samples 0 … count − 1."""

        def values(latents: Latents, progress: Progress) -> np.ndarray:
            parts = (latents[at : at + MICRO_BATCH] for at in range(0, len(latents), MICRO_BATCH))
            scores = [local_activation(self.generator, part, (layer,), progress=progress).unit_score[layer] for part in parts]
            return torch.cat(scores).cpu().numpy()

        self.curvature[layer] = self._grown(self.curvature.get(layer), count, f"exact CLA of layer {layer}", values)

    def lay_paths(self, distance: PerceptualDistance, count: int) -> None:
        """Path lengths of samples 0 … count − 1."""

        def values(latents: Latents, progress: Progress) -> np.ndarray:
            return path_lengths(self.generator, latents, distance, progress=progress).numpy()

        known = None if self.lengths is None else self.lengths.numpy()
        self.lengths = torch.from_numpy(self._grown(known, count, "path lengths", values))

    def _grown(self, known: np.ndarray | None, count: int, phase: str, values: Callable[[Latents, Progress], np.ndarray]) -> np.ndarray:
        """Values of samples 0 … count − 1, those that are not known yet made now."""
        start = 0 if known is None else len(known)
        if known is not None and start >= count:
            return known
        with self.reporter.phase(phase, count - start) as progress:
            new = values(self.stage.latents(range(start, count)), progress)
        return new if known is None else np.concatenate([known, new])

    # what it says

    def worst_layer(self, metric: str) -> int:
        """The layer of a metric of the worst units: the one that it names, or the family's first for curvature."""
        layer = names.split_layer(metric)[1]
        return self.generator.presets.curvature[0] if layer is None else self.generator.layer(layer).index

    def estimate(self, metric: str, reference: RealSet | None, how: Resampling) -> Estimate:
        """A metric of the sample, which was measured as far as the metric needs.

        Args:
            metric: its name.
            reference: the images it is held against, where the metric needs some: real ones, or other images of the baseline.
            how: it is drawn again.

        Raises:
            NotKnownError: it cannot be told, of this checkpoint or of so few samples.
        """
        if metric in SHARES:
            return _finite(metric, mean(self.columns[metric], how, step=1.0))
        if names.is_worst_unit_cla(metric):
            rows = self.curvature[self.worst_layer(metric)]
            return mean_of_worst(rows, max(1, round(WORST_SHARE * rows.shape[1])), how)
        if (needs := needs_of(metric)) is None:
            return of_profile(metric, self.model.profile, self.columns, how)
        one = set_metric(TO_BASELINE.get(metric, metric))
        measured = self._measured(reference) if needs in ("real", "baseline") else self._measured(None)
        if not measured.has(one.info.needs):
            raise NotKnownError(_MISSING.get(needs, "no features"))
        paths = self.lengths if needs == "paths" else None
        found = one.compute(measured.group(None if paths is None else np.arange(len(paths))), how)
        if found.left_out and reference is not None and measured.real is not None:
            raise NotKnownError(
                f"{found.left_out} of {found.samples} images equal one of {reference.name}: their {one.info.title} is infinite"
            )
        if not len(found.draws):
            raise NotKnownError(found.note or f"{found.samples} samples are too few for an interval")
        return _finite(metric, found)

    def _measured(self, reference: RealSet | None) -> MeasuredSet:
        """The images as numbers, held against a reference; what is worked out for one metric serves the others."""
        count = len(self.ids) if self.features is None else len(self.features)
        key = ("" if reference is None else reference.digest, count)
        if key not in self._sets:
            self._sets = {old: one for old, one in self._sets.items() if old[1] == count}
            self._sets[key] = MeasuredSet(count, self.features, self.discriminator, self.lengths, real=reference)
        return self._sets[key]


def of_profile(metric: str, profile: Profile, columns: Mapping[str, np.ndarray], how: Resampling) -> Estimate:
    """The metric as far as a profile tells it: of its neurons and units, and quantiles of the given columns.

    Raises:
        NotKnownError: a profile does not hold it.
    """
    if (at := names.low_rate_share_at(metric)) is not None:
        return _low_rate_share(profile, at, how.tail)
    if metric == names.DEAD_UNITS:
        share = float((np.asarray(profile.units[names.UNIT_DEAD]) == 1.0).mean())
        return Estimate.between(share, share, share, profile.rates.samples)
    if (found := score_quantile(metric)) is not None:
        score, q = found
        if score not in columns:
            raise NotKnownError(f"{score} was not scored")
        _check_finite(score, int((~np.isfinite(columns[score])).sum()), len(columns[score]))
        return quantile(columns[score], q, how)
    raise NotKnownError("a profile alone does not tell it: give the baseline's checkpoint")


def image_features(
    model: CheckedModel, extractor: Extractor, ids: range, seed: int, reporter: Reporter, earlier: Tensor | None = None
) -> Tensor:
    """Features of a checkpoint's images: float32 (N, F) on its device. Made once for a checkpoint, whichever command asks; nor are those
    of an earlier look at the first of these ids, where there is no cache."""
    generator = model.generator
    assert generator is not None
    known = None if earlier is None else earlier.cpu().numpy()
    features = SampleFeatures(generator, model.profile.info.sampling, seed, extractor, ids.start).get(len(ids), reporter, known)
    return torch.from_numpy(features).to(generator.device)


def reference_set(baseline: CheckedModel, extractor: Extractor, count: int, seed: int, reporter: Reporter) -> RealSet:
    """Images of the baseline in the place of real ones. None of them is in the sample that the check looks at: so the baseline's own
    sample stands to them as another model's does, and its value is no trivial 1."""
    ids = range(REFERENCE_FROM, REFERENCE_FROM + count)
    features = image_features(baseline, extractor, ids, seed, reporter)
    return RealSet(f"images of {baseline.profile.info.checkpoint}", baseline.sha256, features)


def _low_rate_share(profile: Profile, at: float, tail: float) -> Estimate:
    """Share of the neurons of all calibrated layers with a rate of at most R, and its bounds: neurons whose rate lies so close to R that
    its Wilson interval reaches it count on neither side. That holds however the neurons depend on each other."""
    rates = profile.rates
    hits = np.concatenate([rates.counts[layer].flatten().numpy() for layer in rates.layers])
    low, high = wilson(hits, rates.samples, tail)
    share = float((hits / rates.samples <= at).mean())
    return Estimate.between(share, float((high <= at).mean()), float((low <= at).mean()), rates.samples)


def _finite(metric: str, found: Estimate) -> Estimate:
    _check_finite(metric, found.left_out, found.samples)
    return found


def _check_finite(what: str, unknown: int, count: int) -> None:
    """Raises `NotKnownError` if any value is not a number: what is left of the others says nothing of the whole sample."""
    if unknown:
        raise NotKnownError(f"{unknown} of {count} values of {what} are not finite")
