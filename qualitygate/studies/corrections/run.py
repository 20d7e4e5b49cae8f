"""The correction study: methods × layers × strengths on one set of samples, as the gate would judge them, in one table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

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
from qualitygate.generators.passes import Progress, Reporter, on_host, positions, silent
from qualitygate.latents import Latents
from qualitygate.metrics.measured_set import RealSet
from qualitygate.policy.corrections import Correction
from qualitygate.policy.model import Policy
from qualitygate.scores.local_activation import DIVISIONS
from qualitygate.scores.low_rate import low_rate_counts
from qualitygate.studies.corrections import NONE, CorrectionsRequest
from qualitygate.studies.corrections.result import (
    DAMAGE,
    FEATURES,
    LEFT,
    MARK_LEFT,
    PASSED,
    AtStrength,
    Comparison,
    CorrectionsResult,
    Outcome,
    Reference,
    StudySamples,
    write_study,
)
from qualitygate.testing.planted import PlantedGenerator, Truth
from qualitygate.tracking.studies import UNITS
from qualitygate.units.labels import read_labels
from qualitygate.units.score import load_unit_scores

WORST_SHARE = 0.1  # of a pool: never taken for normal
MOST_NORMAL = 1000  # samples that stand in for real images


def run(request: CorrectionsRequest, reporter: Reporter | None = None) -> CorrectionsResult:
    """Compare corrections, and write table, figures, sheets and kept images where ``out`` is given. Raises `InputError` for options that
    do not fit each other, no such correction, or too few samples, labels or real images; `ProfileError` if the profile is of another
    checkpoint; `OutputError` if there is something at ``out`` already."""
    if request.out is not None:
        storage.refuse_existing(request.out)
    elif request.keep is not None:
        raise InputError("Images that are kept need a place", "--keep without --out", "both")
    if request.real is not None and request.extractor == NONE:
        remedy = "give --extractor, for example random-vgg16-64"
        raise InputError("Real images need features to be held against", "--real without --extractor", "both", remedy)
    reporter, profile = reporter or Reporter(), load_profile(request.profile)
    policy = request.load_policy() or profile.policy
    unit_columns = []
    if request.units is not None:
        scores = load_unit_scores(request.units / UNITS)
        profile, unit_columns = profile.with_unit_scores(scores.values()), [names.given_unit_score(one) for one in scores]
    corrections = request.corrections(policy, detection_layers(policy, profile.info.chain), unit_columns)
    generator, discriminator = request.load_both(reporter)
    truth = Truth(generator) if request.planted and isinstance(generator, PlantedGenerator) else None
    if request.planted and truth is None:
        found, needed = f"a {generator.family} without planted units", "a file that save_generator wrote of a planted generator"
        raise InputError(f"Nothing is planted in {request.checkpoint}", found, needed, "leave --planted out")
    profile.check_generator(generator)
    samples = _samples(request, generator, profile, policy, truth, reporter)
    extractor = None if request.extractor == NONE else request.load_extractor(discriminator, generator.device)
    made = compare(
        generator,
        profile,
        policy,
        corrections,
        samples.latents,
        extractor=extractor,
        truth=truth,
        show=request.show,
        keep=request.keep,
        reporter=reporter,
    )
    harm: dict[tuple[str, float], float] = {}
    normal = None
    if len(samples.normal) and (request.harm or extractor is not None):
        most = len(samples.latents) + MOST_NORMAL if extractor is not None else 0
        corrected, rest = samples.normal[: request.harm], samples.normal[request.harm : max(request.harm, most)]
        used = {one.name: one.correction for one in made.outcomes} if request.harm else {}
        parts = [
            compare(generator, profile, policy, used, corrected, extractor=extractor, corrected_too=False, show=0, reporter=reporter),
            compare(generator, profile, policy, {}, rest, extractor=extractor, show=0, reporter=reporter),
        ]
        harm = {(one.name, at.strength): float(at.moved.mean()) for one in parts[0].outcomes for at in one.at}
        if extractor is not None:
            normal = np.concatenate([one.untouched[FEATURES] for one in parts if one.untouched])[:most]
    real = request.load_real(generator.image_shape[1])
    reference, measured = _reference(samples, extractor, normal, real, generator.device, reporter)
    result = CorrectionsResult(**vars(made), samples=samples, reference=reference, normal=measured, harm=harm)
    if request.out is not None:
        write_study(request.out, result, generator, profile, policy, request.show, request.keep)
    return result


def _samples(
    request: CorrectionsRequest, generator: Generator, profile: Profile, policy: Policy, truth: Truth | None, reporter: Reporter
) -> StudySamples:
    """The artifacts by label, or by the truth about a planted defect, or the worst by score."""

    def latents(ids: np.ndarray) -> Latents:
        return sample_latents(generator, ids, seed, sampling=profile.info.sampling)

    if request.labels is not None:
        labels = read_labels(request.labels)
        ids, artifact, source = labels.ids, labels.artifact, labels.source
        seed = profile.info.calibration.seed if request.label_seed is None else request.label_seed
    elif truth is not None:
        profile.check_seed(request.seed)
        ids, seed, source = np.arange(request.pool), request.seed, "the truth about what was planted"
        artifact = truth.defective(latents(ids)).numpy()
    else:
        with reporter.phase("worst samples", request.pool) as progress:
            return worst_samples(generator, profile, policy, request.samples, request.pool, request.seed, progress)
    if not artifact.any():
        raise InputError("There is nothing to correct", f"no artifact according to {source}", "at least one")
    wrong, right = latents(ids[artifact][: request.samples]), latents(ids[~artifact])
    says = f"according to {source}"
    return StudySamples(wrong, f"{len(wrong):,} artifacts {says}", right, f"{len(right):,} normal samples {says}")


def worst_samples(
    generator: Generator, profile: Profile, policy: Policy, count: int, pool: int, seed: int, progress: Progress = silent
) -> StudySamples:
    """The samples with the most active low-rate neurons at the policy's headline R, over its detection layers, among ids 0 … pool − 1.
    Normal samples are those of the pool outside its worst tenth (and outside the chosen ones), as they come. Raises `InputError` for more
    than there are, or for the calibration's seed."""
    if not 1 <= count <= pool:
        raise InputError("Not so many samples can be chosen", f"{count} of {pool}", "at least 1, at most the pool")
    profile.check_seed(seed)
    score, layers = names.low_rate(policy.headline_rate), detection_layers(policy, profile.info.chain)
    latents = sample_latents(generator, range(pool), seed, sampling=profile.info.sampling)
    counts = low_rate_counts(generator, latents, profile.rates, policy.headline_rate, layers, progress)
    scores = counts.sum(dim=1).double().numpy()
    order = np.argsort(-scores, kind="stable")
    worst, rest = order[:count], np.sort(order[max(count, round(WORST_SHARE * pool)) :])
    return StudySamples(
        latents[worst],
        f"the {count:,} worst of {pool:,} samples by {score}",
        latents[rest],
        f"{len(rest):,} samples outside the worst {pool - len(rest):,} of {pool:,} by {score}",
        score,
        scores[worst],
    )


def _reference(
    samples: StudySamples,
    extractor: Extractor | None,
    normal: np.ndarray | None,
    real: ImageSet | None,
    device: torch.device,
    reporter: Reporter,
) -> tuple[Reference | None, np.ndarray | None]:
    """What images are held against, on the device, and the features of as many normal samples as there are samples."""
    if extractor is None or (real is None and normal is None):
        return None, None
    count = len(samples.latents)
    measured = normal[:count] if normal is not None and len(normal) >= count else None
    if real is not None:
        return Reference(extractor.key, RealSet.of(real, extractor, device, reporter), True), measured
    assert normal is not None
    if len(normal) < 2 * count:  # too few to measure some and hold them against others
        measured, rest = None, normal
    else:
        rest = normal[count:]
    images = RealSet(f"{len(rest):,} of {samples.normal_chosen}", "", torch.from_numpy(rest).to(device))
    return Reference(extractor.key, images, False), measured


def against_truth(images: Tensor, untouched: Tensor, repaired: Tensor, pixels: Tensor) -> dict[str, np.ndarray]:
    """Images (n, channels, height, width) of planted samples against the untouched ones and their true repair, each float64 (n,).

    - ``left``: distance to the true repair, over that of the untouched image: below `REPAIRED_BELOW` it counts as repaired;
    - ``mark_left``: the same inside the mark's ``pixels``, bool (height, width), alone;
    - ``damage``: distance to the true repair outside of the mark, as a share of the range of values.

    All tensors are on one device.
    """

    def distance(of: Tensor, where: Tensor) -> Tensor:
        return (of - repaired).flatten(2)[..., where].abs().double().mean(dim=(1, 2)) / 2.0

    everywhere, mark, beside = (positions(one.flatten())[0] for one in (torch.ones_like(pixels), pixels, ~pixels))
    found = {name: distance(images, where) / distance(untouched, where) for name, where in ((LEFT, everywhere), (MARK_LEFT, mark))}
    if len(beside):
        found[DAMAGE] = distance(images, beside)
    return {name: on_host(values).numpy() for name, values in found.items()}


def compare(
    generator: Generator,
    profile: Profile,
    policy: Policy,
    corrections: Mapping[str, Correction],
    latents: Latents,
    *,
    extractor: Extractor | None = None,
    truth: Truth | None = None,
    corrected_too: bool = True,
    show: int = 12,
    keep: str | None = None,
    reporter: Reporter | None = None,
) -> Comparison:
    """Apply corrections, by name, to samples, in one pass over them: each untouched image is made once.
    The policy sets the limits; its own correction is not used. Measured of every image (with ``corrected_too``, of the corrected ones as
    well) are its features where there is an extractor, and distances where a defect is planted that can be seen. ``show`` images are kept,
    and of the correction named ``keep`` all."""

    def measure(images: Tensor, untouched: Tensor, repaired: Tensor | None) -> dict[str, np.ndarray]:
        found = {} if extractor is None else {FEATURES: extract(extractor, images)}
        return found if repaired is None or pixels is None else found | against_truth(images, untouched, repaired, pixels)

    pixels = truth.pixels.to(generator.device) if truth is not None and truth.paints else None
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
        for rows, images in generator.image_batches(latents, progress=progress):
            repaired = truth.repaired(latents[rows]).to(images.device) if truth is not None and pixels is not None else None
            untouched.add(images, measure(images, images, repaired))
            for name, trial in list(trials.items()):
                try:
                    for at, passed, corrected in trial.corrected(latents[rows]):
                        moved = on_host((corrected - images).abs().mean(dim=(1, 2, 3)).double()).numpy() / 2.0
                        measured = measure(corrected, images, repaired) if corrected_too else {}
                        at.add(corrected, {PASSED: passed, names.MOVED: moved, **measured})
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
        self._generator, self._correction = generator, correction
        self._correcting = Corrector(generator, profile, policy, correction, profile.limits(policy))
        self._edited, self._judged = correction_layers(policy, profile.info.chain)
        self.at = {strength: _Collected(show) for strength in correction.strengths}
        self.selects = False

    def corrected(self, latents: Latents) -> Iterator[tuple[_Collected, np.ndarray, Tensor]]:
        """At each strength: what to add to, whether the gate would let each sample pass now, and the corrected images."""
        edits = self._correcting.method(latents)
        self.selects |= bool(edits.selects.any())
        for strength, collected in self.at.items():
            for rows, _, passed, state in self._correcting.attempts(edits, strength, latents, np.arange(len(latents))):
                with self._generator.scored_pass():
                    images = self._generator.resume(state)[: rows.stop - rows.start]
                yield collected, passed, images

    def outcome(self, name: str, untouched_spread: float) -> Outcome:
        look = {"nothing": 0, "pass": 1, "walk": self._generator.latent_size * DIVISIONS + 1}[self._correction.look]
        at = []
        for strength, collected in self.at.items():
            measured = collected.measured
            diversity = collected.spread / untouched_spread if untouched_spread else float("nan")
            at.append(AtStrength(strength, measured.pop(PASSED), measured.pop(names.MOVED), diversity, collected.shown, measured))
        return Outcome(name, self._correction, self._edited, self._judged, look, tuple(at))


class _Collected:
    """The first images of a set, what was measured of all, and their spread, micro-batch by micro-batch."""

    def __init__(self, show: int) -> None:
        self._show, self._parts = show, list[Mapping[str, np.ndarray]]()
        self._count, self._sums = 0, list[Tensor]()
        self.shown: list[np.ndarray] = []

    def add(self, images: Tensor, measured: Mapping[str, np.ndarray]) -> None:
        self._parts.append(measured)
        if (more := self._show - len(self.shown)) > 0:
            self.shown += [storage.to_uint8(image) for image in on_host(images[:more]).numpy()]
        values = images.double()
        self._count += len(values)
        sums = values.sum(dim=0), values.square().mean(dim=(1, 2, 3)).sum()
        self._sums = [before + now for before, now in zip(self._sums, sums, strict=True)] if self._sums else list(sums)

    @property
    def measured(self) -> dict[str, np.ndarray]:
        return {name: np.concatenate([part[name] for part in self._parts]) for name in (self._parts[0] if self._parts else ())}

    @property
    def spread(self) -> float:
        """Root mean square distance of the images from their mean."""
        if not self._count:
            return 0.0
        mean, square = (of_all / self._count for of_all in self._sums)
        return max(float(on_host(square - mean.square().mean())), 0.0) ** 0.5
