"""The correction study: methods × layers × strengths on one set of samples, as the gate would judge them, in one table.

The samples are the worst by score, or those that somebody says are wrong. How good corrected images are is measured against real images,
or normal ones of the generator, and against the truth of a planted defect.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qualitygate import names, storage
from qualitygate.errors import InputError
from qualitygate.features.extractor import Extractor, extract
from qualitygate.features.images import ImageSet
from qualitygate.gating.correcting import Corrector
from qualitygate.gating.profile import Profile, correction_layers, detection_layers, load_profile
from qualitygate.generators.base import Generator, sample_latents
from qualitygate.generators.passes import MICRO_BATCH, Progress, Reporter, padded_rows, scored_pass, silent
from qualitygate.latents import Latents
from qualitygate.metrics import manifold
from qualitygate.metrics.frechet import frechet_distance_of_few
from qualitygate.metrics.measured_set import RealSet
from qualitygate.policy.corrections import Correction
from qualitygate.policy.decide import repaired
from qualitygate.policy.model import Policy
from qualitygate.scores.local_activation import DIVISIONS
from qualitygate.scores.low_rate import low_rate_counts
from qualitygate.studies.corrections import NONE, CorrectionsRequest
from qualitygate.testing.planted import Truth
from qualitygate.testing.planted_generator import PlantedGenerator
from qualitygate.tracking.studies import UNITS
from qualitygate.units.labels import read_labels
from qualitygate.units.score import load_unit_scores

WORST_SHARE = 0.1
"""Share of a pool that is never taken for normal."""
MOST_NORMAL = 1000
"""Normal samples that stand in for real images, at most."""
REPAIRED_BELOW = 0.5
"""Share of a defect that may be left in an image that counts as repaired."""
LEAST, UNTOUCHED, NORMAL = "least", "untouched", "normal samples"
FEATURES, LEFT, MARK_LEFT, DAMAGE = "features", "left", "mark_left", "damage"
_PASSED = "passed"
COLUMNS = (
    _PASSED,
    names.MOVED,
    "diversity",
    "early_passes",
    names.FID,
    names.REALISM,
    names.PRECISION,
    "repaired",
    "mark_gone",
    DAMAGE,
    "harm",
)
"""Numbers of a row of the table, in order; a row has those that are known."""

Measure = Callable[[Tensor], dict[str, np.ndarray]]
"""What is written down of some samples' images (n, channels, height, width), untouched or corrected: by name, one row each (n, …)."""
MeasureOf = Callable[[Latents, Tensor], Measure]
"""The same, from the samples and their untouched images."""


@dataclass(frozen=True)
class StudySamples:
    """The samples of a study.

    Attributes:
        latents: of N samples; the worst first where a score chose them.
        chosen: who chose them, in words.
        normal: samples to hold them against; None where there are none.
        normal_chosen: who chose those, in words.
        score: name of the score that chose; None if none did.
        scores: its values, float64 (N,).
    """

    latents: Latents
    chosen: str
    normal: Latents | None = None
    normal_chosen: str = ""
    score: str | None = None
    scores: np.ndarray | None = None


@dataclass(frozen=True)
class AtStrength:
    """All samples corrected at one strength.

    Attributes:
        strength: of the correction.
        passed: bool (N,): whether the gate would let the sample pass now.
        moved: float64 (N,): mean absolute change of the image, as a share of the range of its values.
        diversity: spread of the corrected images over that of the untouched ones (root mean square distance from their mean); 1 where
            nothing is lost, near 0 where everything becomes one image.
        shown: the first images, uint8 (height, width, channels).
        measured: what was measured of every corrected image, by name, (N, …).
    """

    strength: float
    passed: np.ndarray
    moved: np.ndarray
    diversity: float
    shown: list[np.ndarray] = field(repr=False)
    measured: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Outcome:
    """What a correction does to the samples.

    Attributes:
        name: what it is called in tables.
        correction: the correction with all its settings.
        edited, judged: layers that it edits, and that corrected samples are judged on.
        look_passes: early passes a sample that it costs to look at the sample first.
        at: by strength, from the least to the most.
    """

    name: str
    correction: Correction
    edited: tuple[int, ...]
    judged: tuple[int, ...]
    look_passes: int
    at: tuple[AtStrength, ...]

    @cached_property
    def least(self) -> np.ndarray:
        """Index of the strength that least correction takes for each sample (N,), -1 where none passes."""
        passed = np.stack([one.passed for one in self.at])
        return np.where(passed.any(axis=0), passed.argmax(axis=0), -1)

    @property
    def passed_share(self) -> float:
        """Share of the samples that some strength repairs."""
        return float((self.least >= 0).mean())

    @property
    def moved(self) -> float:
        """How far least correction moves the samples that it repairs, on average; NaN if there are none."""
        rows = np.flatnonzero(self.least >= 0)
        moved = np.stack([one.moved for one in self.at])[self.least[rows], rows]
        return float(moved.mean()) if len(rows) else float("nan")

    @property
    def early_passes(self) -> float:
        """Early passes that least correction costs a sample, on average: one a strength that is tried, and the look."""
        return float(np.where(self.least >= 0, self.least + 1, len(self.at)).mean()) + self.look_passes

    @property
    def shown(self) -> list[np.ndarray]:
        """The first images as least correction leaves them; where no strength passes, at the strongest."""
        return [self.at[index].shown[row] for row, index in enumerate(self.least[: len(self.at[0].shown)].tolist())]

    def measured(self, untouched: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What was measured of every sample as least correction leaves it; where no strength passes, as it was (N, …)."""
        rows = np.arange(len(self.least))
        return {name: np.stack([*(one.measured[name] for one in self.at), was])[self.least, rows] for name, was in untouched.items()}


@dataclass(frozen=True)
class Reference:
    """What sets of images are held against. Numbers of one reference and one number of samples can be compared, no others.

    Attributes:
        extractor: key of what made the features.
        images: the real images, or what stands in for them.
        real: whether they are real.
    """

    extractor: str
    images: RealSet
    real: bool

    def __call__(self, features: np.ndarray) -> dict[str, float]:
        """FID, mean realism and precision of a set, by name, from the features (N, F) of its images."""
        of_set = torch.from_numpy(features).to(self.images.features.device)
        realism = manifold.realism(of_set, self.images.features, self.images.radii)
        inside = manifold.balls_around(of_set, self.images.features, self.images.radii) > 0
        return {
            names.FID: frechet_distance_of_few(of_set, self.images.features),
            names.REALISM: float(realism[realism.isfinite()].mean()),
            names.PRECISION: float(inside.double().mean()),
        }


@dataclass(frozen=True)
class CorrectionsResult:
    """What came out.

    Attributes:
        samples: that were corrected.
        outcomes: what each correction does.
        left_out: corrections that cannot be used here, and why.
        reference: what images were held against; None without an extractor, or where there was nothing.
        untouched: what was measured of the samples as they were.
        shown: the first of their images, uint8 (height, width, channels).
        normal: features of as many normal samples, float32 (N, F); None where there are none.
        harm: mean distance that normal samples move, by correction and strength.
    """

    samples: StudySamples
    outcomes: tuple[Outcome, ...]
    left_out: Mapping[str, str]
    reference: Reference | None
    untouched: Mapping[str, np.ndarray]
    shown: list[np.ndarray]
    normal: np.ndarray | None
    harm: Mapping[tuple[str, float], float]

    def rows(self) -> list[dict[str, Any]]:
        """The table: the samples as they were, normal ones, then every correction at every strength and as least correction.

        A row has ``correction``, ``method``, ``layers``, ``strength`` (null: least correction, or none) and those of `COLUMNS` that
        are known.
        """

        def row(name: str, numbers: Mapping[str, float], one: Outcome | None = None, strength: float | None = None) -> dict[str, Any]:
            known = {column: numbers[column] for column in COLUMNS if math.isfinite(numbers.get(column, math.nan))}
            method, layers = (one.correction.method, list(one.edited)) if one else (None, [])
            return {"correction": name, "method": method, "layers": layers, "strength": strength, **known}

        rows = [row(UNTOUCHED, self._of_set(self.untouched))]
        if self.reference is not None and self.normal is not None:
            rows.append(row(NORMAL, self.reference(self.normal)))
        for one in self.outcomes:
            for at in one.at:
                numbers = {"passed": float(at.passed.mean()), names.MOVED: float(at.moved.mean()), "diversity": at.diversity}
                harm = self.harm.get((one.name, at.strength), math.nan)
                rows.append(row(one.name, {**numbers, "harm": harm, **self._of_set(at.measured)}, one, at.strength))
            least = {"passed": one.passed_share, names.MOVED: one.moved, "early_passes": one.early_passes}
            rows.append(row(one.name, {**least, **self._of_set(one.measured(self.untouched))}, one))
        return rows

    def _of_set(self, measured: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Numbers of a set from what was measured of its images."""
        found = {} if self.reference is None else self.reference(measured[FEATURES])
        shares = {"repaired": LEFT, "mark_gone": MARK_LEFT}
        found |= {name: float((measured[of] < REPAIRED_BELOW).mean()) for name, of in shares.items() if of in measured}
        return found | ({DAMAGE: float(measured[DAMAGE].mean())} if DAMAGE in measured else {})

    def document(self) -> dict[str, Any]:
        """The study as plain data; what is not known is absent."""
        against = self.reference
        return {
            "samples": len(self.samples.latents),
            "chosen": self.samples.chosen,
            "score": self.samples.score,
            "against": against
            and {"name": against.images.name, "images": len(against.images.features), "real": against.real, "extractor": against.extractor},
            "corrections": [
                {
                    "name": one.name,
                    "settings": one.correction.model_dump(mode="json"),
                    "edited_layers": list(one.edited),
                    "judged_layers": list(one.judged),
                }
                for one in self.outcomes
            ],
            "rows": self.rows(),
            "left_out": dict(self.left_out),
        }


def run(request: CorrectionsRequest, reporter: Reporter | None = None) -> CorrectionsResult:
    """Compare corrections, and write table, figures, sheets and kept images where ``out`` is given.

    Raises:
        InputError: options that do not fit each other; no such correction; too few samples, labels or real images.
        ProfileError: the profile is of another checkpoint.
        OutputError: there is something at ``out`` already.
    """
    from qualitygate.studies.corrections.folder import write_study

    if request.out is not None:
        storage.refuse_existing(request.out)
    elif request.keep is not None:
        raise InputError("Images that are kept need a place", "--keep without --out", "both")
    if request.real is not None and request.extractor == NONE:
        found, remedy = "--real without --extractor", "give --extractor, for example random-vgg16-64"
        raise InputError("Real images need features to be held against", found, "both", remedy)
    reporter = reporter or Reporter()
    profile = load_profile(request.profile)
    policy = request.load_policy() or profile.policy
    unit_columns = []
    if request.units is not None:
        scores = load_unit_scores(request.units / UNITS)
        profile, unit_columns = profile.with_unit_scores(scores.values()), [names.given_unit_score(one) for one in scores]
    corrections = request.corrections(policy, detection_layers(policy, profile.info.chain), unit_columns)
    generator, discriminator = request.load_both(reporter)
    if request.planted and not isinstance(generator, PlantedGenerator):
        raise InputError(
            f"Nothing is planted in {request.checkpoint}",
            f"a {generator.family} without planted units",
            "a file written by save_planted",
            "leave --planted out",
        )
    truth = Truth(generator) if request.planted and isinstance(generator, PlantedGenerator) else None
    profile.check_generator(generator)
    samples = _samples(request, generator, profile, policy, truth, reporter)
    result = study(
        generator,
        profile,
        policy,
        samples,
        corrections,
        extractor=None if request.extractor == NONE else request.load_extractor(discriminator, generator.device),
        real=request.load_real(generator.image_shape[1]),
        truth=truth,
        harm=request.harm,
        show=request.show,
        keep=request.keep,
        reporter=reporter,
    )
    if request.out is not None:
        write_study(request.out, generator, profile, policy, result, request.show, request.keep)
    return result


def _samples(
    request: CorrectionsRequest, generator: Generator, profile: Profile, policy: Policy, truth: Truth | None, reporter: Reporter
) -> StudySamples:
    if request.labels is not None:
        labels = read_labels(request.labels)
        ids, artifact, source = labels.ids, labels.artifact, labels.source
        seed = profile.info.calibration.seed if request.label_seed is None else request.label_seed
    elif truth is not None:
        profile.check_seed(request.seed)
        ids, seed, source = np.arange(request.pool), request.seed, "the truth about what was planted"
        artifact = truth.defective(sample_latents(generator, ids, seed, sampling=profile.info.sampling)).numpy()
    else:
        with reporter.phase("worst samples", request.pool) as progress:
            return worst_samples(generator, profile, policy, request.samples, request.pool, request.seed, progress)
    taken = ~artifact | (np.cumsum(artifact) <= request.samples)
    return labelled_samples(generator, profile, ids[taken], artifact[taken], seed, source)


def worst_samples(
    generator: Generator, profile: Profile, policy: Policy, count: int, pool: int, seed: int, progress: Progress = silent
) -> StudySamples:
    """The samples with the most active low-rate neurons at the policy's headline R, over its detection layers.

    Normal samples are those of the pool outside its worst tenth (and outside the chosen ones), as they come.

    Args:
        generator: the generator.
        profile: what calibration learned of it.
        policy: says R and layers.
        count: how many.
        pool: of how many, ids 0 … pool − 1.
        seed: of those; not the calibration's.
        progress: called with samples done.

    Raises:
        InputError: more than there are, or the calibration's seed.
    """
    if not 1 <= count <= pool:
        raise InputError("Not so many samples can be chosen", f"{count} of {pool}", "at least 1, at most the pool")
    profile.check_seed(seed)
    score, layers = names.low_rate(policy.headline_rate), detection_layers(policy, profile.info.chain)
    latents = sample_latents(generator, range(pool), seed, sampling=profile.info.sampling)
    counts = low_rate_counts(generator, latents, profile.rates, policy.headline_rate, layers)
    progress(pool)
    scores = counts.sum(dim=1).double().numpy()
    order = np.argsort(-scores, kind="stable")
    worst, rest = order[:count], np.sort(order[max(count, round(WORST_SHARE * pool)) :])
    return StudySamples(
        latents[worst],
        f"the {count:,} worst of {pool:,} samples by {score}",
        latents[rest] if len(rest) else None,
        f"{len(rest):,} samples outside the worst {pool - len(rest):,} of {pool:,} by {score}",
        score,
        scores[worst],
    )


def labelled_samples(generator: Generator, profile: Profile, ids: np.ndarray, artifact: np.ndarray, seed: int, source: str) -> StudySamples:
    """Artifacts and normal samples as somebody, or a rule, tells them apart.

    Args:
        generator: the generator.
        profile: what calibration learned of it.
        ids: int64 (N,).
        artifact: bool (N,).
        seed: of the samples.
        source: who says so, in words.

    Raises:
        InputError: nothing is an artifact.
    """
    if not artifact.any():
        raise InputError("There is nothing to correct", f"no artifact according to {source}", "at least one")
    wrong, right = (sample_latents(generator, ids[rows], seed, sampling=profile.info.sampling) for rows in (artifact, ~artifact))
    normal = right if len(right) else None
    return StudySamples(
        wrong, f"{len(wrong):,} artifacts according to {source}", normal, f"{len(right):,} normal samples according to {source}"
    )


def study(
    generator: Generator,
    profile: Profile,
    policy: Policy,
    samples: StudySamples,
    corrections: Mapping[str, Correction],
    *,
    extractor: Extractor | None = None,
    real: ImageSet | None = None,
    truth: Truth | None = None,
    harm: int = 0,
    show: int = 12,
    keep: str | None = None,
    reporter: Reporter | None = None,
) -> CorrectionsResult:
    """Run a study.

    Args:
        generator: the generator; it is not changed.
        profile: what calibration learned of it.
        policy: sets the limits.
        samples: to correct.
        corrections: by name.
        extractor: features for FID, realism and precision; None: these are not measured.
        real: real images. Without them the normal samples that are not themselves measured stand in.
        truth: about the defects of a planted generator.
        harm: normal samples that are corrected too, to see how far what needs no correction moves.
        show: samples on the sheets.
        keep: correction whose images are all kept, for people to label.
        reporter: shows progress.

    Raises:
        InputError: too few real images.
    """
    reporter, count = reporter or Reporter(), len(samples.latents)

    def features(latents: Latents, untouched: Tensor) -> Measure:
        return lambda images: {} if extractor is None else {FEATURES: extract(extractor, images)}

    def all_measures(latents: Latents, untouched: Tensor) -> Measure:
        of_features = features(latents, untouched)
        if truth is None or not truth.paints:
            return of_features
        against = against_truth(untouched, truth.repaired(latents), truth.pixels)
        return lambda images: of_features(images) | against(images)

    made = compare(generator, profile, policy, corrections, samples.latents, all_measures, show=show, keep=keep, reporter=reporter)
    normal, moved = None, {}
    if samples.normal is not None and (harm or extractor is not None):
        used = {one.name: one.correction for one in made.outcomes} if harm else {}
        corrected, rest = samples.normal[:harm], samples.normal[harm : count + MOST_NORMAL if extractor is not None else harm]
        fine = [compare(generator, profile, policy, used, corrected, features, corrected_too=False, show=0, reporter=reporter)]
        fine.append(compare(generator, profile, policy, {}, rest, features, show=0, reporter=reporter))
        moved = {(one.name, at.strength): float(at.moved.mean()) for one in fine[0].outcomes for at in one.at}
        if extractor is not None:
            normal = np.concatenate([one.untouched[FEATURES] for one in fine if one.untouched])[: count + MOST_NORMAL]
    reference, measured = _reference(samples, extractor, normal, real, reporter)
    return CorrectionsResult(samples, made.outcomes, made.left_out, reference, made.untouched, made.shown, measured, moved)


def _reference(
    samples: StudySamples, extractor: Extractor | None, normal: np.ndarray | None, real: ImageSet | None, reporter: Reporter
) -> tuple[Reference | None, np.ndarray | None]:
    """What images are held against, and the features of as many normal samples as there are samples."""
    if extractor is None or (real is None and normal is None):
        return None, None
    count = len(samples.latents)
    measured = normal[:count] if normal is not None and len(normal) >= count else None
    if real is not None:
        with reporter.phase("real images", len(real)) as progress:
            features = extract(extractor, real, progress)
        return Reference(extractor.key, RealSet(real.name, real.sha256, torch.from_numpy(features)), True), measured
    assert normal is not None
    if len(normal) < 2 * count:  # too few to measure some and hold them against others
        measured, rest = None, normal
    else:
        rest = normal[count:]
    images = RealSet(f"{len(rest):,} of {samples.normal_chosen}", "", torch.from_numpy(rest))
    return Reference(extractor.key, images, False), measured


def against_truth(untouched: Tensor, repaired: Tensor, pixels: Tensor) -> Measure:
    """Images of planted samples against their true repair (n, channels, height, width), each float64 (n,).

    - ``left``: distance to the true repair, over that of the untouched image: below `REPAIRED_BELOW` it counts as repaired;
    - ``mark_left``: the same inside the mark's ``pixels``, bool (height, width), alone;
    - ``damage``: distance to the true repair outside of the mark, as a share of the range of values.
    """

    def distance(images: Tensor, where: Tensor) -> Tensor:
        return (images - repaired)[..., where].abs().double().mean(dim=(1, 2)) / 2.0

    def measure(images: Tensor) -> dict[str, np.ndarray]:
        places = {LEFT: torch.ones_like(pixels), MARK_LEFT: pixels}
        found = {name: (distance(images, where) / distance(untouched, where)).numpy() for name, where in places.items()}
        return found if pixels.all() else {**found, DAMAGE: distance(images, ~pixels).numpy()}

    return measure


@dataclass(frozen=True)
class Comparison:
    """What corrections do to some samples.

    Attributes:
        outcomes: of each correction that can be used.
        left_out: of the others, why not.
        untouched: what was measured of the samples as they are, by name, (N, …).
        shown: the first of their images, uint8 (height, width, channels).
    """

    outcomes: tuple[Outcome, ...]
    left_out: Mapping[str, str]
    untouched: Mapping[str, np.ndarray]
    shown: list[np.ndarray]


def compare(
    generator: Generator,
    profile: Profile,
    policy: Policy,
    corrections: Mapping[str, Correction],
    latents: Latents,
    measure_of: MeasureOf = lambda latents, untouched: lambda images: {},
    *,
    corrected_too: bool = True,
    show: int = 12,
    keep: str | None = None,
    reporter: Reporter | None = None,
) -> Comparison:
    """Apply corrections to samples, in one pass over them: each untouched image is made once.

    Args:
        generator: the generator; it is not changed.
        profile: what calibration learned of it.
        policy: sets the limits; its own correction is not used.
        corrections: by name.
        latents: N samples.
        measure_of: measures every image.
        corrected_too: measure corrected images as well as untouched ones.
        show: how many images to keep.
        keep: a correction of which to keep all images.
        reporter: shows progress.
    """
    trials: dict[str, _Trial] = {}
    left_out: dict[str, str] = {}
    untouched = _Collected(len(latents) if keep in corrections else show)
    for name, correction in corrections.items():
        try:
            trials[name] = _Trial(generator, profile, policy, correction, len(latents) if name == keep else show)
        except InputError as error:
            left_out[name] = str(error)
    passes = 1 + sum(len(one.at) for one in trials.values())
    with (reporter or Reporter()).phase("corrections", passes * len(latents)) as progress:
        for rows, made in generator.image_batches(latents, progress=progress):
            images = made.cpu()
            measure = measure_of(latents[rows], images)
            untouched.add(images, measure(images))
            for name, trial in list(trials.items()):
                try:
                    for at, passed, corrected in trial.corrected(latents[rows]):
                        moved = (corrected - images).abs().mean(dim=(1, 2, 3)).double().numpy() / 2.0
                        at.add(corrected, {_PASSED: passed, names.MOVED: moved, **(measure(corrected) if corrected_too else {})})
                        progress(len(images))
                except InputError as error:
                    left_out[name] = str(error)
                    del trials[name]
    what, found = "A correction would change nothing", "no sample in which it selects anything"
    nothing = str(InputError(what, found, "at least one", "choose another score, R or other layers"))
    left_out |= {name: nothing for name, one in trials.items() if not one.selects}
    return Comparison(
        tuple(one.outcome(name, untouched.spread) for name, one in trials.items() if one.selects),
        {name: left_out[name] for name in corrections if name in left_out},
        untouched.measured,
        untouched.shown,
    )


class _Trial:
    """One correction, and what it does at each strength, micro-batch by micro-batch."""

    def __init__(self, generator: Generator, profile: Profile, policy: Policy, correction: Correction, show: int) -> None:
        policy = policy.with_correction(correction)
        self._generator, self._correction, self._limits = generator, correction, profile.limits(policy)
        self._correcting = Corrector(generator, profile, policy, correction, self._limits)
        self._edited, self._judged = correction_layers(policy, profile.info.chain)
        self.at = {strength: _Collected(show) for strength in correction.strengths}
        self.selects = False

    def corrected(self, latents: Latents) -> Iterator[tuple[_Collected, np.ndarray, Tensor]]:
        """At each strength: what to add to, whether the gate would let each sample pass now, and the corrected images."""
        edits, count = self._correcting.method(latents), len(latents)
        self.selects |= bool(edits.selects.any())
        for strength, collected in self.at.items():
            with scored_pass():
                trial, state = self._correcting.attempt(edits, strength, padded_rows(slice(0, count)), latents.padded(MICRO_BATCH), count)
                images = self._generator.resume(state)[:count].cpu()
            yield collected, repaired(self._limits, trial)[0], images

    def outcome(self, name: str, untouched_spread: float) -> Outcome:
        look = {"nothing": 0, "pass": 1, "walk": self._generator.latent_size * DIVISIONS + 1}[self._correction.look]
        at = []
        for strength, collected in self.at.items():
            measured = collected.measured
            diversity = collected.spread / untouched_spread if untouched_spread else float("nan")
            at.append(AtStrength(strength, measured.pop(_PASSED), measured.pop(names.MOVED), diversity, collected.shown, measured))
        return Outcome(name, self._correction, self._edited, self._judged, look, tuple(at))


class _Collected:
    """The first images of a set, what was measured of all, and their spread, micro-batch by micro-batch."""

    def __init__(self, show: int) -> None:
        self._show, self._parts = show, list[Mapping[str, np.ndarray]]()
        self._count, self._sum, self._squares = 0, torch.zeros(()), 0.0
        self.shown: list[np.ndarray] = []

    def add(self, images: Tensor, measured: Mapping[str, np.ndarray]) -> None:
        self._parts.append(measured)
        self.shown += [storage.to_uint8(image) for image in images[: max(0, self._show - len(self.shown))].numpy()]
        values = images.double()
        self._count += len(values)
        self._sum = self._sum + values.sum(dim=0)
        self._squares += float(values.square().mean(dim=(1, 2, 3)).sum())

    @property
    def measured(self) -> dict[str, np.ndarray]:
        return {name: np.concatenate([part[name] for part in self._parts]) for name in (self._parts[0] if self._parts else ())}

    @property
    def spread(self) -> float:
        """Root mean square distance of the images from their mean."""
        mean = self._sum / max(1, self._count)
        return max(self._squares / max(1, self._count) - float(mean.square().mean()), 0.0) ** 0.5
