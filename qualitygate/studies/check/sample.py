"""The sample that a check looks at, which grows from look to look, and the metrics of rules as estimates from it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from qualitygate import names
from qualitygate.features.cache import SampleFeatures
from qualitygate.features.extractor import Extractor, PerceptualDistance
from qualitygate.gating.profile import Profile
from qualitygate.gating.stage import GateStage
from qualitygate.generators.base import Discriminator
from qualitygate.generators.passes import Progress, Reporter, on_host
from qualitygate.latents import Latents
from qualitygate.metrics.estimate import Estimate, NotKnownError, Resampling, mean, mean_of_worst, quantile, wilson
from qualitygate.metrics.measured_set import MeasuredSet, Observer, RealSet
from qualitygate.metrics.metric import set_metric
from qualitygate.metrics.path_length import path_lengths
from qualitygate.policy.model import MOST_COPIES, SHARES, TO_BASELINE, Policy, needs_of, score_quantile
from qualitygate.records.gate import Verdict
from qualitygate.scores.local_activation import in_parts
from qualitygate.studies.check.model import NOT_IN_PROFILE, CheckedModel, CheckInputs

REFERENCE_FROM = 2**47
"""First id of the baseline's images that stand in for real ones: the upper half of all ids, where no sample of a check ever is."""
_MISSING = {"paths": "no path lengths", "discriminator": "the checkpoint has no discriminator"}
_SHARES = {
    names.ACCEPTED_SHARE: (Verdict.ACCEPT,),
    names.CORRECTED_SHARE: (Verdict.CORRECT,),
    names.REJECTED_SHARE: (Verdict.REJECT,),
    names.YIELD: (Verdict.ACCEPT, Verdict.CORRECT),
}


class Sample:
    """What is known of samples 0 … N − 1 of a checkpoint, whose generator is there. The reference profile sets the limits."""

    def __init__(self, model: CheckedModel, policy: Policy, reference_profile: Profile, inputs: CheckInputs) -> None:
        assert model.generator is not None
        self.model, self.generator, self.policy, self.inputs = model, model.generator, policy, inputs
        self.reporter = inputs.reporter or Reporter()
        self.stage = GateStage(self.generator, model.profile, policy, seed=policy.check.seed, reference_profile=reference_profile)
        self.ids = np.empty(0, dtype=np.int64)
        self.columns: dict[str, np.ndarray] = {}  # scores, and 1 or 0 for each verdict under the name of its share, float64 (N,)
        self.features: Tensor | None = None  # float32 (N, F)
        self.discriminator: np.ndarray | None = None  # value of each image, float64 (N,)
        self.curvature: dict[int, np.ndarray] = {}  # CLA of the units of each layer for the first samples, float64 (M, units)
        self.lengths: np.ndarray | None = None  # of the paths of the first samples, float64 (P, paths)
        self._sets: dict[str, MeasuredSet] = {}

    def grow(self, metrics: Collection[str], growth: int) -> None:
        """Make what these metrics need, of as many samples as the policy says, times ``growth``. What is known is not made again."""
        settings, extractor, distance = self.policy.check, self.inputs.extractor, self.inputs.distance
        needs, count, discriminator = {needs_of(metric) for metric in metrics}, settings.samples * growth, self.model.discriminator
        self._sets = {}
        self._gate(count)
        if extractor is not None and needs & {"real", "baseline"}:
            self.features = image_features(self.model, extractor, range(count), settings.seed, self.reporter, self.features)
        if discriminator is not None and "discriminator" in needs:
            self.discriminator = self._grown(self.discriminator, count, "discriminator", partial(self._judged, discriminator))
        if distance is not None and "paths" in needs:
            paths = settings.path_samples * growth
            self.lengths = self._grown(self.lengths, paths, "path lengths", partial(self._laid, distance))
        for layer in {self._worst_layer(metric) for metric in metrics if names.is_worst_unit_cla(metric)}:
            known, walked = self.curvature.get(layer), settings.curvature_samples * growth
            self.curvature[layer] = self._grown(known, walked, f"exact CLA of layer {layer}", partial(self._walked, layer))

    def _gate(self, count: int) -> None:
        """Scores and verdicts of samples 0 … count − 1."""
        start = len(self.ids)
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

    def _judged(self, discriminator: Discriminator, latents: Latents, progress: Progress) -> np.ndarray:
        observer = Observer(None, discriminator, self.generator.device)
        for rows, images in self.generator.image_batches(latents, progress=progress):
            observer.add(images, None if latents.labels is None else latents.labels[rows])
        judged = observer.measured().discriminator
        assert judged is not None, "a check has samples"
        return judged

    def _laid(self, distance: PerceptualDistance, latents: Latents, progress: Progress) -> np.ndarray:
        return path_lengths(self.generator, latents, distance, progress=progress).numpy()

    def _walked(self, layer: int, latents: Latents, progress: Progress) -> np.ndarray:
        scores = [part.unit_score[layer] for part in in_parts(self.generator, latents, (layer,), progress=progress)]
        return torch.cat(scores).numpy()

    def _grown(self, known: np.ndarray | None, count: int, phase: str, values: Callable[[Latents, Progress], np.ndarray]) -> np.ndarray:
        """Values of samples 0 … count − 1, those that are not known yet made now."""
        start = 0 if known is None else len(known)
        with self.reporter.phase(phase, count - start) as progress:
            new = values(self.stage.latents(range(start, count)), progress)
        return new if known is None else np.concatenate([known, new])

    # what it says

    def _worst_layer(self, metric: str) -> int:
        """The layer of a metric of the worst units: the one that it names, or the family's first for curvature."""
        layer = names.split_layer(metric)[1]
        return self.generator.presets.curvature[0] if layer is None else self.generator.layer(layer).index

    def estimate(self, metric: str, reference: RealSet | None, how: Resampling) -> Estimate:
        """A metric of the sample, which has grown as far as the metric needs, held against the reference where it needs one: real images,
        or other images of the baseline. Raises `NotKnownError` where it cannot be told."""
        if metric in SHARES:
            return _finite(metric, mean(self.columns[metric], how, step=1.0))
        if names.is_worst_unit_cla(metric):
            rows = self.curvature[self._worst_layer(metric)]
            return mean_of_worst(rows, max(1, round(0.02 * rows.shape[1])), how)  # two units of a hundred count as the worst
        if (needs := needs_of(metric)) is None:
            return of_profile(metric, self.model.profile, self.columns, how)
        one = set_metric(TO_BASELINE.get(metric, metric))
        measured = self._measured(reference if needs in ("real", "baseline") else None)
        if not measured.has(one.info.needs):
            raise NotKnownError(_MISSING.get(needs, "no features"))
        paths = None if self.lengths is None or needs != "paths" else np.arange(len(self.lengths))
        found = one.compute(measured.group(paths), how)
        if found.left_out and reference is not None and one.name == names.REALISM:
            found = _without_copies(found, measured, reference)
        if not len(found.draws):
            raise NotKnownError(found.note or f"{found.samples} samples are too few for an interval")
        return _finite(metric, found)

    def _measured(self, reference: RealSet | None) -> MeasuredSet:
        """The images as numbers, held against a reference; what is worked out for one metric serves the others."""
        count = len(self.ids) if self.features is None else len(self.features)
        lengths = None if self.lengths is None else torch.from_numpy(self.lengths)
        made = MeasuredSet(count, self.features, self.discriminator, lengths, real=reference)
        return self._sets.setdefault("" if reference is None else reference.digest, made)


def of_profile(metric: str, profile: Profile, columns: Mapping[str, np.ndarray], how: Resampling) -> Estimate:
    """The metric as far as a profile tells it: of its neurons and units, quantiles of the given columns. Raises `NotKnownError`."""
    if (at := names.low_rate_share_at(metric)) is not None:
        # neurons whose rate lies so close to R that its Wilson interval reaches it count on neither side of the bounds: that holds however
        # the neurons depend on each other
        rates = profile.rates
        hits = np.concatenate([rates.counts[layer].flatten().numpy() for layer in rates.layers])
        low, high = wilson(hits, rates.samples, how.tail)
        share = float((hits / rates.samples <= at).mean())
        return Estimate.between(share, float((high <= at).mean()), float((low <= at).mean()), rates.samples)
    if metric == names.DEAD_UNITS:
        share = float((np.asarray(profile.units[names.UNIT_DEAD]) == 1.0).mean())
        return Estimate.between(share, share, share, profile.rates.samples)
    if (found := score_quantile(metric)) is not None:
        score, q = found
        if score not in columns:
            raise NotKnownError(f"{score} was not scored")
        _check_finite(score, int((~np.isfinite(columns[score])).sum()), len(columns[score]))
        return quantile(columns[score], q, how)
    raise NotKnownError(NOT_IN_PROFILE)


def image_features(
    model: CheckedModel, extractor: Extractor, ids: range, seed: int, reporter: Reporter, earlier: Tensor | None = None
) -> Tensor:
    """Features of a checkpoint's images: float32 (N, F) on its device. Made once for a checkpoint, whichever command asks; nor are those
    of an earlier look at the first of these ids, where there is no cache."""
    generator = model.generator
    assert generator is not None
    known = None if earlier is None else on_host(earlier).numpy()
    features = SampleFeatures(generator, model.profile.info.sampling, seed, extractor, ids.start).get(len(ids), reporter, known)
    return torch.from_numpy(features).to(generator.device)


def reference_set(baseline: CheckedModel, extractor: Extractor, count: int, seed: int, reporter: Reporter) -> RealSet:
    """Images of the baseline in the place of real ones. None of them is in the sample that the check looks at: so the baseline's own
    sample stands to them as another model's does, and its value is no trivial 1."""
    ids = range(REFERENCE_FROM, REFERENCE_FROM + count)
    features = image_features(baseline, extractor, ids, seed, reporter)
    return RealSet(f"images of {baseline.profile.info.checkpoint}", baseline.sha256, features)


def _without_copies(found: Estimate, measured: MeasuredSet, reference: RealSet) -> Estimate:
    """Mean realism without copies of the reference, where these are few enough for the others to stand for the sample."""
    copies = int(measured.copied.sum())
    if copies > MOST_COPIES * found.samples:
        what = f"{copies} of {found.samples} images equal one of {reference.name}, or nearly"
        raise NotKnownError(f"{what}: more than {MOST_COPIES:.0%} cannot be left out")
    return replace(found, left_out=found.left_out - copies)


def _finite(metric: str, found: Estimate) -> Estimate:
    _check_finite(metric, found.left_out, found.samples)
    return found


def _check_finite(what: str, unknown: int, count: int) -> None:
    """Raises `NotKnownError` if any value is not a number: what is left of the others says nothing of the whole sample."""
    if unknown:
        raise NotKnownError(f"{unknown} of {count} values of {what} are not finite")
