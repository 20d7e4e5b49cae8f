"""The samples of a validation: every score of them in every setting that a policy can ask for, their images as numbers, their classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from qualitygate import names
from qualitygate.errors import PolicyError
from qualitygate.features.extractor import Extractor
from qualitygate.features.images import ImageSet
from qualitygate.gating.curvature import exact_curvature
from qualitygate.gating.profile import Profile, detection_layers, setting_of
from qualitygate.gating.scoring import Scorer, add_totals, class_counts, class_rates, joined
from qualitygate.generators.base import Discriminator, Generator, sample_latents
from qualitygate.generators.passes import Reporter, on_host
from qualitygate.latents import Latents
from qualitygate.metrics.measured_set import MeasuredSet, RealSet
from qualitygate.metrics.metric import Evaluator
from qualitygate.records.validation import ScoreSetting, named_setting
from qualitygate.studies.observation import SampleSource
from qualitygate.studies.validate import ValidationSizes
from qualitygate.units.labels import Labels

ScoredSetting = tuple[ScoreSetting, np.ndarray]
"""A setting and its score of each sample, float64 (N,), NaN where there is none."""
_BLOCK = 2**24  # distances held at once


@dataclass(frozen=True)
class ValidationInputs:
    """What a checkpoint is validated with: real images need an extractor, and may have classes, int64 (M,); labels are of samples of the
    calibration's seed, as those of `qualitygate label`, unless another is given."""

    generator: Generator
    profile: Profile
    discriminator: Discriminator | None = None
    extractor: Extractor | None = None
    real: ImageSet | None = None
    real_classes: np.ndarray | None = None
    labels: Labels | None = None
    label_seed: int | None = None


@dataclass(frozen=True)
class ScoreTable:
    """Scores of N samples: columns by name and layer, with the policy's sums and its risk, float64 (N,); and every setting."""

    columns: dict[str, np.ndarray]
    settings: tuple[ScoredSetting, ...]

    def of(self, setting: ScoreSetting) -> np.ndarray | None:
        """Score of each sample, float64 (N,); None where it was not scored."""
        return next((values for one, values in self.settings if one.same_score(setting)), None)


@dataclass(frozen=True)
class ValidationSamples:
    """N samples of a checkpoint: their scores, their images, held against real ones if there are any, and their classes, int64 (N,), if
    there are any; then also low-rate counts against the rates of each class, and a remark on what these were estimated from."""

    latents: Latents
    table: ScoreTable
    evaluator: Evaluator
    measured: MeasuredSet
    classes: np.ndarray | None
    by_class: tuple[ScoredSetting, ...] = ()
    remarks: tuple[str, ...] = ()


def collect_samples(inputs: ValidationInputs, sizes: ValidationSizes, reporter: Reporter) -> ValidationSamples:
    """Make the samples and their scores; make their images only where something is told of them."""
    generator, profile = inputs.generator, inputs.profile
    real = RealSet.of(inputs.real, inputs.extractor, generator.device, reporter) if inputs.real is not None else None
    evaluator = Evaluator(None if real is None else real.key, seed=sizes.seed)
    extractor = inputs.extractor if real is not None else None
    source = SampleSource(generator, extractor, inputs.discriminator, sizes.seed, profile.info.sampling, reporter, real)
    latents = source.latents(sizes.samples)
    table = score_table(generator, profile, latents, sizes.curvature, reporter)
    shown = real is not None or inputs.discriminator is not None
    measured = source.collect(sizes.samples).untouched if shown else MeasuredSet(sizes.samples)
    samples = partial(ValidationSamples, latents, table, evaluator, measured)
    classes_of = partial(_classes, real, inputs.real_classes)
    if (classes := classes_of(latents, measured)) is None:
        return samples(None)

    info = profile.info
    ids = range(min(sizes.class_samples, info.calibration.rate_samples))  # other samples than these: the first of the calibration's
    others = sample_latents(generator, ids, info.calibration.seed, sampling=info.sampling)
    unseen = MeasuredSet(len(others)) if others.labels is not None else source.regenerate(others, "images of classes")
    of_others = classes_of(others, unseen)
    assert of_others is not None  # what gives the samples a class gives the others one
    with reporter.phase("rates by class", len(others)) as progress:
        rates = class_rates(generator, others, of_others, info.layers, progress)
    columns = class_counts(generator, latents, classes, rates, info.rates, info.layers)
    settings = _count_settings(columns, info.rates, info.layers, detection_layers(profile.policy, info.chain))
    counts = np.bincount(of_others)
    remark = f"rates by class: {(counts > 0).sum()} classes of {counts[counts > 0].min():,} to {counts.max():,} samples"
    return samples(classes, tuple((one.model_copy(update={"by_class": True}), values) for one, values in settings), (remark,))


def _classes(real: RealSet | None, real_classes: np.ndarray | None, latents: Latents, measured: MeasuredSet) -> np.ndarray | None:
    """Class of each sample, int64 (N,): its label, else that of the real image it is nearest to; None where there are no classes."""
    if latents.labels is not None:
        return latents.labels.numpy() if latents.labels.ndim == 1 else None
    if real_classes is None or real is None or measured.features is None:
        return None
    parts = measured.features.split(max(1, _BLOCK // len(real.features)))
    nearest = torch.cat([torch.cdist(part, real.features).argmin(dim=1) for part in parts])
    return real_classes[on_host(nearest).numpy()]


def score_table(generator: Generator, profile: Profile, latents: Latents, curvature: int, reporter: Reporter) -> ScoreTable:
    """Low-rate counts at every R and layer that the profile knows, single and summed; never-seen neurons; exact CLA of the first samples,
    as many as ``curvature`` says, where the family's presets or the policy look at it; the joined risk."""
    at, layers, detection = profile.info.rates, profile.info.layers, detection_layers(profile.policy, profile.info.chain)
    scorer = Scorer(generator, profile.rates.to(generator.device), at, layers)
    parts: list[dict[str, np.ndarray]] = []
    with reporter.phase("scores", len(latents)) as progress:
        for rows, part, _ in scorer.over(latents):
            parts.append(part)
            progress(rows.stop - rows.start)
    columns = joined(parts)
    walked = tuple(sorted({*generator.presets.curvature, *profile.policy.curvature_layers()}))
    first = min(curvature, len(latents))
    if first and latents.space == "z":
        with reporter.phase("exact CLA", first) as progress:
            exact = exact_curvature(generator, latents[:first], walked, progress=progress)
        rest = len(latents) - first
        columns |= {name: np.pad(values, (0, rest), constant_values=np.nan) for name, values in exact.items()}
    settings = list(_count_settings(columns, at, layers, detection))
    settings += [(ScoreSetting(score=name), columns[name]) for name in map(names.cla, walked) if name in columns]
    add_totals(columns, at, detection)
    try:
        columns[names.RISK] = profile.risk(profile.policy)(columns)
        settings.append((setting_of(profile, profile.policy, names.RISK), columns[names.RISK]))
    except PolicyError:
        pass  # the policy's risk has a part that was not scored: CLA, where none was asked for
    return ScoreTable(columns, tuple(settings))


def _count_settings(
    columns: dict[str, np.ndarray], at: Sequence[float], layers: Sequence[int], detection: tuple[int, ...]
) -> Iterator[ScoredSetting]:
    """Counts (columns by layer) in every setting: at each R each layer alone, all up to each layer, and the policy's layers."""
    sets: list[tuple[int, ...]] = [(layer,) for layer in layers]
    sets += [tuple(layers[: stop + 1]) for stop in range(1, len(layers))]
    sets += [detection] if detection not in sets else []
    counts: list[tuple[str, Callable[[int], str]]] = [(names.NEVER_SEEN, names.never_seen)]
    counts += [(names.low_rate(r), partial(names.low_rate, r)) for r in at]
    for score, column in counts:
        for chosen in sets:
            yield named_setting(score, chosen), np.sum([columns[column(layer)] for layer in chosen], axis=0)
