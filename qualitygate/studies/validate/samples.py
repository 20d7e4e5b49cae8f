"""Every score of some samples, in every setting that a policy can ask for: what validation holds against the evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from qualitygate import names
from qualitygate.errors import PolicyError
from qualitygate.gating.curvature import exact_curvature
from qualitygate.gating.profile import Profile, detection_layers
from qualitygate.gating.scoring import Scorer, add_totals, class_counts, class_rates
from qualitygate.gating.validated import setting_of
from qualitygate.generators.base import Generator, sample_latents
from qualitygate.generators.passes import Reporter
from qualitygate.latents import Latents
from qualitygate.metrics.measured_set import MeasuredSet, RealImages, RealSet
from qualitygate.metrics.metric import Evaluator
from qualitygate.records.metrics import RealInfo
from qualitygate.records.validation import ScoreSetting, named_setting
from qualitygate.studies.observation import SampleSource
from qualitygate.studies.validate.request import Request, Tools

Scored = tuple[ScoreSetting, np.ndarray]
"""A setting and its score of each sample, float64 (N,), NaN where there is none."""


@dataclass(frozen=True)
class ScoreTable:
    """Scores of N samples.

    Attributes:
        columns: by name and layer, with the policy's sums and its risk: float64 (N,).
        settings: every setting with its score.
    """

    columns: dict[str, np.ndarray]
    settings: tuple[Scored, ...]

    def has(self, setting: ScoreSetting) -> bool:
        return any(one.same_score(setting) for one, _ in self.settings)

    def of(self, setting: ScoreSetting) -> np.ndarray:
        """Score of each sample."""
        return next(values for one, values in self.settings if one.same_score(setting))


def score_table(generator: Generator, profile: Profile, latents: Latents, curvature: int, reporter: Reporter) -> ScoreTable:
    """Low-rate counts at every R and layer that the profile knows, single and summed; never-seen neurons; exact CLA of the first samples,
    as many as ``curvature`` says, where the family's presets or the policy look at it; the joined risk."""
    at, layers = profile.info.rates, profile.info.layers
    columns = _counts(generator, profile, latents, reporter)
    walked = tuple(sorted({*generator.presets.curvature, *profile.policy.curvature_layers()}))
    first = min(curvature, len(latents))
    if first and latents.space == "z":
        with reporter.phase("exact CLA", first) as progress:
            exact = exact_curvature(generator, latents[:first], walked, progress=progress)
        rest = len(latents) - first
        columns |= {name: np.pad(values, (0, rest), constant_values=np.nan) for name, values in exact.items()}
    settings = list(count_settings(columns, at, layers, detection_layers(profile.policy, profile.info.chain)))
    settings += [(ScoreSetting(score=name), columns[name]) for name in map(names.cla, walked) if name in columns]
    add_totals(columns, at, detection_layers(profile.policy, profile.info.chain))
    try:
        columns[names.RISK] = profile.risk(profile.policy)(columns)
        settings.append((setting_of(profile, profile.policy, names.RISK), columns[names.RISK]))
    except PolicyError:
        pass  # the policy's risk has a part that was not looked at: CLA, where none was asked for
    return ScoreTable(columns, tuple(settings))


def count_settings(
    columns: dict[str, np.ndarray], at: Sequence[float], layers: Sequence[int], detection: tuple[int, ...]
) -> Iterator[Scored]:
    """Counts in every setting: each layer alone, all up to each layer, and the policy's layers.

    Args:
        columns: counts by layer.
        at: values of R.
        layers: that were counted, in order.
        detection: the policy's.
    """
    sets: list[tuple[int, ...]] = [(layer,) for layer in layers]
    sets += [tuple(layers[: stop + 1]) for stop in range(1, len(layers))]
    sets += [detection] if detection not in sets else []
    counts: list[tuple[str, Callable[[int], str]]] = [(names.NEVER_SEEN, names.never_seen)]
    counts += [(names.low_rate(r), partial(names.low_rate, r)) for r in at]
    for score, column in counts:
        for chosen in sets:
            yield named_setting(score, chosen), np.sum([columns[column(layer)] for layer in chosen], axis=0)


def _counts(generator: Generator, profile: Profile, latents: Latents, reporter: Reporter) -> dict[str, np.ndarray]:
    score = Scorer(generator, profile.rates.to(generator.device), profile.info.rates, profile.info.layers)
    parts: list[dict[str, np.ndarray]] = []
    with reporter.phase("scores", len(latents)) as progress:
        for part in score.over(latents):
            parts.append(part)
            progress(len(part[score.columns[0]]))
    return {name: np.concatenate([part[name] for part in parts]) for name in score.columns}


_BLOCK = 2**24  # distances held at once


@dataclass(frozen=True)
class Classifier:
    """Says of what class a sample is: its label, else that of the real image it is nearest to.

    Attributes:
        real: real images; None for none.
        classes: class of each of them, int64 (M,); None where nobody says.
    """

    real: RealSet | None
    classes: np.ndarray | None

    def __call__(self, latents: Latents, measured: MeasuredSet) -> np.ndarray | None:
        """Class of each sample, int64 (N,); None where there are no classes."""
        if latents.labels is not None:
            return latents.labels.numpy() if latents.labels.ndim == 1 else None
        if self.classes is None or self.real is None or measured.features is None:
            return None
        return self.classes[_nearest_rows(measured.features, self.real.features)]


@dataclass(frozen=True)
class ByClass:
    """Scores that no policy can ask for, as they need classes.

    Attributes:
        settings: low-rate counts against the rates of each sample's class.
        remarks: how many classes there are, and what their rates were estimated from.
    """

    settings: tuple[Scored, ...] = ()
    remarks: tuple[str, ...] = ()


def counts_by_class(
    place: SampleSource, profile: Profile, classifier: Classifier, latents: Latents, classes: np.ndarray, most: int, reporter: Reporter
) -> ByClass:
    """Low-rate counts of these samples, the rates estimated on others: the first of the calibration's, at most so many."""
    info, generator = profile.info, place.generator
    ids = range(min(most, info.calibration.rate_samples))
    others = sample_latents(generator, ids, info.calibration.seed, sampling=info.sampling)
    looked = MeasuredSet(len(others)) if others.labels is not None else place.regenerate(others, "images of classes")
    theirs = classifier(others, looked)
    assert theirs is not None  # what gives the samples a class gives the others one
    with reporter.phase("rates by class", len(others)) as progress:
        rates = class_rates(generator, others, theirs, info.layers, progress)
    columns = class_counts(generator, latents, classes, rates, info.rates, info.layers)
    settings = count_settings(columns, info.rates, info.layers, detection_layers(profile.policy, info.chain))
    sizes = np.bincount(theirs)
    remark = f"rates by class: {(sizes > 0).sum()} classes of {sizes[sizes > 0].min():,} to {sizes.max():,} samples"
    return ByClass(tuple((one.model_copy(update={"by_class": True}), values) for one, values in settings), (remark,))


def _nearest_rows(queries: Tensor, centres: Tensor) -> np.ndarray:
    """Row of the nearest centre to each query: int64 (N,)."""
    step = max(1, _BLOCK // len(centres))
    return torch.cat([torch.cdist(part, centres).argmin(dim=1) for part in queries.split(step)]).cpu().numpy()


@dataclass(frozen=True)
class Looked:
    """N samples of a checkpoint, looked at.

    Attributes:
        latents: what they are made from.
        table: their scores.
        evaluator: what their images are measured with.
        measured: their images, held against the real ones.
        real: real images that they are held against; None without.
        classes: class of each of them, int64 (N,); None where there are none.
        by_class: scores against the rates of those classes.
    """

    latents: Latents
    table: ScoreTable
    evaluator: Evaluator
    measured: MeasuredSet
    real: RealInfo | None
    classes: np.ndarray | None
    by_class: ByClass


def look(tools: Tools, request: Request, reporter: Reporter) -> Looked:
    """Make the samples and their scores; make their images only where somebody looks at them.

    Raises:
        InputError: real images without an extractor.
    """
    generator, profile = tools.generator, tools.profile
    real = RealImages.of(tools.real, tools.extractor, generator.device, reporter) if tools.real is not None else None
    evaluator = Evaluator(real.key if real is not None else None, seed=request.seed)
    place = SampleSource(
        generator,
        tools.extractor if tools.real is not None else None,
        tools.discriminator,
        seed=request.seed,
        sampling=profile.info.sampling,
        reporter=reporter,
    )
    latents = place.latents(request.samples)
    table = score_table(generator, profile, latents, request.curvature, reporter)
    looks = tools.real is not None or tools.discriminator is not None
    measured = place.collect(request.samples).untouched if looks else MeasuredSet(request.samples)
    measured = measured.against(real.reference if real is not None else None)
    classifier = Classifier(measured.real, tools.real_classes)
    classes, by_class = classifier(latents, measured), ByClass()
    if classes is not None:
        by_class = counts_by_class(place, profile, classifier, latents, classes, request.class_samples, reporter)
    info = real.info if real is not None else None
    return Looked(latents, table, evaluator, measured, info, classes, by_class)
