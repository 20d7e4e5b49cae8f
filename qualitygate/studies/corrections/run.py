"""The correction study: methods × layers × strengths on one set of samples, as the gate would judge them, in one table.

The samples are the worst by score, or those that somebody says are wrong. How good corrected images are is measured against real images,
or normal ones of the generator, and against the truth of a planted defect.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.features.extractor import Extractor, extract
from qualitygate.features.images import ImageSet
from qualitygate.gating.correcting import Correcting
from qualitygate.gating.profile import Profile, correction_layers, detection_layers
from qualitygate.gating.scoring import Scorer, add_totals
from qualitygate.generators.base import Generator, sample_latents
from qualitygate.generators.passes import Progress, Reporter, micro_batches, padded_rows, scored_pass, silent
from qualitygate.latents import Latents
from qualitygate.metrics import manifold
from qualitygate.metrics.frechet import frechet_distance_of_few
from qualitygate.metrics.measured_set import RealSet
from qualitygate.policy.corrections import Correction
from qualitygate.policy.decide import repaired
from qualitygate.policy.model import Policy
from qualitygate.scores.local_activation import DIVISIONS
from qualitygate.storage import to_uint8

WORST_SHARE = 0.1
"""Share of a pool that is never taken for normal."""


@dataclass(frozen=True)
class Samples:
    """The samples of a study.

    Attributes:
        latents: of N samples; the worst first where a score chose them.
        chosen: who chose them, in words.
        normal: samples to hold them against; None where there are none.
        who_is_normal: who chose those, in words.
        score: name of the score that chose; None if none did.
        scores: its values, float64 (N,).
    """

    latents: Latents
    chosen: str
    normal: Latents | None = None
    who_is_normal: str = ""
    score: str | None = None
    scores: np.ndarray | None = None


def worst_samples(
    generator: Generator, profile: Profile, policy: Policy, count: int, pool: int, seed: int, progress: Progress = silent
) -> Samples:
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
    score = names.low_rate(policy.headline_rate)
    latents = sample_latents(generator, range(pool), seed, sampling=profile.info.sampling)
    scores = _scored(generator, profile, policy, latents, progress)
    order = np.argsort(-np.where(np.isfinite(scores), scores, -np.inf), kind="stable")
    worst, rest = order[:count], np.sort(order[max(count, round(WORST_SHARE * pool)) :])
    return Samples(
        latents[worst],
        f"the {count:,} worst of {pool:,} samples by {score}",
        latents[rest] if len(rest) else None,
        f"{len(rest):,} samples outside the worst {pool - len(rest):,} of {pool:,} by {score}",
        score,
        scores[worst],
    )


def said_samples(generator: Generator, profile: Profile, ids: np.ndarray, artifact: np.ndarray, seed: int, who: str) -> Samples:
    """Artifacts and normal samples as somebody, or a rule, tells them apart.

    Args:
        generator: the generator.
        profile: what calibration learned of it.
        ids: int64 (N,).
        artifact: bool (N,).
        seed: of the samples.
        who: says so, in words.

    Raises:
        InputError: nothing is an artifact.
    """
    if not artifact.any():
        raise InputError("There is nothing to correct", f"no artifact according to {who}", "at least one")

    def of(rows: np.ndarray) -> Latents:
        return sample_latents(generator, ids[rows].tolist(), seed, sampling=profile.info.sampling)

    normal = of(~artifact) if not artifact.all() else None
    wrong, right = int(artifact.sum()), int((~artifact).sum())
    words = f"{wrong:,} artifacts according to {who}", f"{right:,} normal samples according to {who}"
    return Samples(of(artifact), words[0], normal, words[1])


def _scored(generator: Generator, profile: Profile, policy: Policy, latents: Latents, progress: Progress) -> np.ndarray:
    at, layers = (policy.headline_rate,), detection_layers(policy, profile.info.chain)
    score = Scorer(generator, profile.rates.to(generator.device), at, layers)
    parts = []
    with scored_pass():
        for rows, batch in micro_batches(latents):
            columns = score(batch, rows.stop - rows.start)[0]
            add_totals(columns, at, layers)
            parts.append(columns[names.low_rate(*at)])
            progress(rows.stop - rows.start)
    return np.concatenate(parts)


Observer = Callable[[Latents, Tensor, Tensor], np.ndarray]
"""What is written down of corrected images: of some samples, their untouched and their corrected images, one row each (n, …)."""


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
        seen: what observers saw of every sample, by their names, (N, …).
    """

    strength: float
    passed: np.ndarray
    moved: np.ndarray
    diversity: float
    shown: list[np.ndarray] = field(repr=False)
    seen: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Outcome:
    """What a correction does to the samples.

    Attributes:
        name: what it is called in tables.
        correction: the correction with all its settings.
        edited, judged: layers.
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
    def kept(self) -> np.ndarray:
        """Index of the strength that least correction keeps of each sample (N,), -1 where none passes."""
        passed = np.stack([one.passed for one in self.at])
        return np.where(passed.any(axis=0), passed.argmax(axis=0), -1)

    @property
    def passed_share(self) -> float:
        """Share of the samples that some strength repairs."""
        return float((self.kept >= 0).mean())

    @property
    def moved(self) -> float:
        """How far least correction moves the samples that it repairs, on average; NaN if there are none."""
        rows = np.flatnonzero(self.kept >= 0)
        moved = np.stack([one.moved for one in self.at])[self.kept[rows], rows]
        return float(moved.mean()) if len(rows) else float("nan")

    def least(self, name: str, untouched: np.ndarray) -> np.ndarray:
        """What an observer saw of every sample as least correction leaves it; where no strength passes, as it was (N, …)."""
        seen = np.stack([*(one.seen[name] for one in self.at), untouched])
        return seen[self.kept, np.arange(len(self.kept))]

    @property
    def early_passes(self) -> float:
        """Early passes that least correction costs a sample, on average: one a strength that is tried, and the look."""
        return float(np.where(self.kept >= 0, self.kept + 1, len(self.at)).mean()) + self.look_passes

    @property
    def shown(self) -> list[np.ndarray]:
        """The first images as least correction leaves them; where no strength passes, at the strongest."""
        return [self.at[kept].shown[row] for row, kept in enumerate(self.kept[: len(self.at[0].shown)].tolist())]


def compare(
    generator: Generator,
    profile: Profile,
    policy: Policy,
    corrections: Mapping[str, Correction],
    samples: Samples,
    *,
    show: int = 12,
    keep: Collection[str] = (),
    observers: Mapping[str, Observer] | None = None,
    reporter: Reporter | None = None,
) -> tuple[list[Outcome], dict[str, str]]:
    """Apply corrections to samples.

    Args:
        generator: the generator; it is not changed.
        profile: what calibration learned of it.
        policy: sets the limits; its own correction is not used.
        corrections: by name.
        samples: the samples.
        show: how many images to keep.
        keep: names of corrections of which to keep all images.
        observers: look at every corrected image.
        reporter: shows progress.

    Returns:
        what each does; and of those that cannot be used here, why not.
    """
    reporter = reporter or Reporter()
    outcomes, left_out = [], {}
    with scored_pass():
        for name, correction in corrections.items():
            with reporter.phase(name, len(samples.latents) * len(correction.strengths)) as progress:
                try:
                    run = _Run(len(samples.latents) if name in keep else show, observers or {})
                    outcomes.append(_outcome(generator, profile, policy, name, correction, samples, run, progress))
                except InputError as error:
                    left_out[name] = str(error)
    return outcomes, left_out


def untouched_as_seen(generator: Generator, latents: Latents, observers: Mapping[str, Observer]) -> dict[str, np.ndarray]:
    """What observers see of samples that nobody corrected, by their names, (N, …)."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in observers}
    with scored_pass():
        for rows, batch in micro_batches(latents):
            images = generator(batch)[: rows.stop - rows.start].cpu()
            for name, observer in observers.items():
                parts[name].append(observer(latents[rows], images, images))
    return {name: np.concatenate(part) for name, part in parts.items()}


def _outcome(
    generator: Generator,
    profile: Profile,
    policy: Policy,
    name: str,
    correction: Correction,
    samples: Samples,
    empty: _Run,
    progress: Progress,
) -> Outcome:
    policy = policy.with_correction(correction)
    limits = profile.limits(policy)
    correcting = Correcting(generator, profile, policy, correction, limits)
    of_samples = correcting.method(samples.latents)
    if not of_samples.selects.any():
        raise InputError(
            "A correction would change nothing",
            "no sample in which it selects anything",
            "at least one",
            "choose another score, R or other layers",
        )
    edited, judged = correction_layers(policy, profile.info.chain)
    runs = {strength: empty.fresh() for strength in correction.strengths}
    for rows, batch in micro_batches(samples.latents):
        valid, places = rows.stop - rows.start, padded_rows(rows, len(batch))
        untouched = generator(batch)[:valid].cpu()
        for strength, run in runs.items():
            trial, state = correcting.attempt(of_samples, strength, places, batch, valid)
            passed, _ = repaired(limits, trial)
            run.add(samples.latents[rows], passed, untouched, generator.resume(state)[:valid].cpu())
            progress(valid)
    looks = {"nothing": 0, "pass": 1, "walk": generator.latent_size * DIVISIONS + 1}
    return Outcome(name, correction, edited, judged, looks[correction.look], tuple(run.result(strength) for strength, run in runs.items()))


class _Run:
    """Collects what one strength does, micro-batch by micro-batch."""

    def __init__(self, show: int, observers: Mapping[str, Observer]) -> None:
        self._show, self._observers = show, observers
        self._seen: dict[str, list[np.ndarray]] = {name: [] for name in observers}
        self._passed: list[np.ndarray] = []
        self._moved: list[np.ndarray] = []
        self._shown: list[np.ndarray] = []
        self._before, self._after = _Spread(), _Spread()

    def fresh(self) -> _Run:
        return _Run(self._show, self._observers)

    def add(self, latents: Latents, passed: np.ndarray, untouched: Tensor, corrected: Tensor) -> None:
        for name, observer in self._observers.items():
            self._seen[name].append(observer(latents, untouched, corrected))
        self._passed.append(passed)
        self._moved.append((corrected - untouched).abs().mean(dim=(1, 2, 3)).double().numpy() / 2.0)
        self._shown += [to_uint8(image) for image in corrected[: max(0, self._show - len(self._shown))].numpy()]
        self._before.add(untouched)
        self._after.add(corrected)

    def result(self, strength: float) -> AtStrength:
        before = self._before.value
        diversity = self._after.value / before if before else float("nan")
        seen = {name: np.concatenate(parts) for name, parts in self._seen.items()}
        return AtStrength(strength, np.concatenate(self._passed), np.concatenate(self._moved), diversity, self._shown, seen)


class _Spread:
    """Root mean square distance of images from their mean, image by image."""

    def __init__(self) -> None:
        self._count = 0
        self._sum: Tensor | float = 0.0
        self._squares = 0.0

    def add(self, images: Tensor) -> None:
        values = images.double()
        self._count += len(values)
        self._sum = self._sum + values.sum(dim=0)
        self._squares += float(values.square().mean(dim=(1, 2, 3)).sum())

    @property
    def value(self) -> float:
        mean = torch.as_tensor(self._sum) / self._count
        return max(self._squares / self._count - float(mean.square().mean()), 0.0) ** 0.5


FEATURES = "features"
"""What the yardstick's observer is called."""
REPAIRED_BELOW = 0.5
"""Share of a defect that may be left in an image that counts as repaired."""
LEFT, MARK_LEFT, DAMAGE = "left", "mark_left", "damage"


@dataclass(frozen=True)
class Yardstick:
    """What sets of images are held against. Numbers of one yardstick and one number of samples can be compared, no others.

    Attributes:
        extractor: makes the features.
        reference: the real images, or what stands in for them.
        real: whether they are real.
    """

    extractor: Extractor
    reference: RealSet
    real: bool

    def observe(self, latents: Latents, untouched: Tensor, corrected: Tensor) -> np.ndarray:
        """Features float32 (N, F) of corrected images, an `Observer`."""
        return extract(self.extractor, corrected)

    def __call__(self, features: np.ndarray) -> dict[str, float]:
        """FID, mean realism and precision of a set, by name.

        Args:
            features: (N, F), of its images.
        """
        of_set = torch.from_numpy(features).to(self.reference.features.device)
        real, radii = self.reference.features, self.reference.radii
        realism = manifold.realism(of_set, real, radii)
        inside = manifold.balls_around(of_set, real, radii) > 0
        return {
            names.FID: frechet_distance_of_few(of_set, real),
            names.REALISM: float(realism[realism.isfinite()].mean()),
            names.PRECISION: float(inside.double().mean()),
        }


def truth_observers(repair: Callable[[Latents], Tensor], pixels: Tensor) -> dict[str, Observer]:
    """Observers of planted samples, each float64 (N,).

    - ``left``: distance to the true repair, over that of the untouched image: below `REPAIRED_BELOW` it counts as repaired;
    - ``mark_left``: the same inside the mark's pixels alone;
    - ``damage``: distance to the true repair outside of the mark, as a share of the range of values.

    Args:
        repair: the true repair (N, channels, height, width) of samples.
        pixels: where the mark is, bool (height, width).
    """

    def left(where: Tensor) -> Observer:
        def observe(latents: Latents, untouched: Tensor, corrected: Tensor) -> np.ndarray:
            best = right(latents)
            return (_distance(corrected, best, where) / _distance(untouched, best, where)).numpy()

        return observe

    def damage(latents: Latents, untouched: Tensor, corrected: Tensor) -> np.ndarray:
        return _distance(corrected, right(latents), ~pixels).numpy()

    made: dict[bytes, Tensor] = {}  # one correction after the other looks at the same micro-batches

    def right(latents: Latents) -> Tensor:
        key = latents.ids.tobytes()
        if key not in made:
            made[key] = repair(latents)
        return made[key]

    observers = {LEFT: left(torch.ones_like(pixels)), MARK_LEFT: left(pixels)}
    return observers if pixels.all() else {**observers, DAMAGE: damage}


def against_truth(seen: dict[str, np.ndarray]) -> dict[str, float]:
    """What `truth_observers` saw, as numbers of the set: shares repaired and without mark, and mean damage."""
    shares = {"repaired": LEFT, "mark_gone": MARK_LEFT}
    found = {name: float((seen[of] < REPAIRED_BELOW).mean()) for name, of in shares.items() if of in seen}
    return found | ({DAMAGE: float(seen[DAMAGE].mean())} if DAMAGE in seen else {})


def _distance(images: Tensor, others: Tensor, where: Tensor) -> Tensor:
    """Mean absolute difference over some pixels, as a share of the range of values: float64 (N,)."""
    return (images - others)[..., where].abs().double().mean(dim=(1, 2)) / 2.0


MOST_NORMAL = 1000
"""Normal samples that stand in for real images, at most."""
LEAST, UNTOUCHED, NORMAL = "least", "untouched", "normal samples"
COLUMNS = (
    "passed",
    names.MOVED,
    "diversity",
    "early_passes",
    names.FID,
    names.REALISM,
    names.PRECISION,
    "repaired",
    "mark_gone",
    "damage",
    "harm",
)
"""Numbers of a row of the table, in order; a row has those that are known."""


@dataclass(frozen=True)
class Asked:
    """What is compared, and with what.

    Attributes:
        corrections: by name.
        show: samples on the sheet.
        keep: corrections whose images are all kept, for people to label.
        harm: normal samples that are corrected too, to see how far what needs no correction moves.
        truth: observers of samples whose true repair is known.
    """

    corrections: Mapping[str, Correction]
    show: int = 12
    keep: Sequence[str] = ()
    harm: int = 0
    truth: Mapping[str, Observer] = field(default_factory=dict)


@dataclass(frozen=True)
class CorrectionStudy:
    """What came out.

    Attributes:
        samples: that were corrected.
        outcomes: what each correction does.
        left_out: corrections that cannot be used here, and why.
        yardstick: what images were held against; None without an extractor, or where there was nothing.
        untouched: what observers saw of the samples as they were.
        normal: features of as many normal samples, float32 (N, F); None where there are none.
        harm: mean distance that normal samples move, by correction and strength.
    """

    samples: Samples
    outcomes: tuple[Outcome, ...]
    left_out: Mapping[str, str]
    yardstick: Yardstick | None
    untouched: Mapping[str, np.ndarray]
    normal: np.ndarray | None
    harm: Mapping[tuple[str, float], float]

    def rows(self) -> list[dict[str, Any]]:
        """The table: the samples as they were, normal ones, then every correction at every strength and as least correction.

        A row has ``correction``, ``method``, ``layers``, ``strength`` (null: least correction, or none) and those of `COLUMNS` that
        are known.
        """
        rows = [self._row(UNTOUCHED, None, self._numbers(self.untouched))]
        if self.yardstick is not None and self.normal is not None:
            rows.append(self._row(NORMAL, None, self.yardstick(self.normal)))
        for one in self.outcomes:
            rows += [self._row(one.name, one, self._at(one, at), at.strength) for at in one.at]
            rows.append(self._row(one.name, one, self._least(one)))
        return rows

    def _row(self, name: str, outcome: Outcome | None, numbers: Mapping[str, float], strength: float | None = None) -> dict[str, Any]:
        known = {column: numbers[column] for column in COLUMNS if math.isfinite(numbers.get(column, math.nan))}
        method, layers = (outcome.correction.method, list(outcome.edited)) if outcome else (None, [])
        return {"correction": name, "method": method, "layers": layers, "strength": strength, **known}

    def _at(self, one: Outcome, at: AtStrength) -> dict[str, float]:
        harm = self.harm.get((one.name, at.strength), math.nan)
        return {
            "passed": float(at.passed.mean()),
            names.MOVED: float(at.moved.mean()),
            "diversity": at.diversity,
            "harm": harm,
            **self._numbers(at.seen),
        }

    def _least(self, one: Outcome) -> dict[str, float]:
        seen = {name: one.least(name, untouched) for name, untouched in self.untouched.items()}
        return {"passed": one.passed_share, names.MOVED: one.moved, "early_passes": one.early_passes, **self._numbers(seen)}

    def _numbers(self, seen: Mapping[str, np.ndarray]) -> dict[str, float]:
        of_set = self.yardstick(seen[FEATURES]) if self.yardstick is not None else {}
        return of_set | against_truth(dict(seen))


def study(
    generator: Generator,
    profile: Profile,
    policy: Policy,
    samples: Samples,
    asked: Asked,
    *,
    extractor: Extractor | None = None,
    real: ImageSet | None = None,
    reporter: Reporter | None = None,
) -> CorrectionStudy:
    """Run a study.

    Args:
        generator: the generator; it is not changed.
        profile: what calibration learned of it.
        policy: sets the limits.
        samples: to correct.
        asked: what to compare.
        extractor: features for FID, realism and precision; None: these are not measured.
        real: real images. Without them the normal samples that are not themselves measured stand in.
        reporter: shows progress.

    Raises:
        InputError: too few real images.
    """
    reporter = reporter or Reporter()
    yardstick, normal = _yardstick(generator, samples, extractor, real, reporter)
    observers = dict(asked.truth) | ({FEATURES: yardstick.observe} if yardstick is not None else {})
    outcomes, left_out = compare(
        generator, profile, policy, asked.corrections, samples, show=asked.show, keep=asked.keep, observers=observers, reporter=reporter
    )
    harm: dict[tuple[str, float], float] = {}
    if asked.harm and samples.normal is not None:
        fine = Samples(samples.normal[: asked.harm], samples.who_is_normal)
        used = {one.name: one.correction for one in outcomes}
        on_fine, _ = compare(generator, profile, policy, used, fine, show=0, reporter=reporter)
        harm = {(one.name, at.strength): float(at.moved.mean()) for one in on_fine for at in one.at}
    untouched = untouched_as_seen(generator, samples.latents, observers)
    return CorrectionStudy(samples, tuple(outcomes), left_out, yardstick, untouched, normal, harm)


def document(made: CorrectionStudy) -> dict[str, Any]:
    """The study as plain data; what is not known is absent."""
    yardstick = made.yardstick
    return {
        "samples": len(made.samples.latents),
        "chosen": made.samples.chosen,
        "score": made.samples.score,
        "against": yardstick
        and {
            "name": yardstick.reference.name,
            "images": len(yardstick.reference.features),
            "real": yardstick.real,
            "extractor": yardstick.extractor.key,
        },
        "corrections": [
            {
                "name": one.name,
                "settings": one.correction.model_dump(mode="json"),
                "edited_layers": list(one.edited),
                "judged_layers": list(one.judged),
            }
            for one in made.outcomes
        ],
        "rows": made.rows(),
        "left_out": dict(made.left_out),
    }


def _yardstick(
    generator: Generator, samples: Samples, extractor: Extractor | None, real: ImageSet | None, reporter: Reporter
) -> tuple[Yardstick | None, np.ndarray | None]:
    """What images are held against, and the features of as many normal samples as there are samples."""
    if extractor is None or (real is None and samples.normal is None):
        return None, None
    count = len(samples.latents)
    normal = _features(generator, samples.normal, extractor, count) if samples.normal is not None else None
    measured = normal[:count] if normal is not None and len(normal) >= count else None
    if real is not None:
        with reporter.phase("real images", len(real)) as progress:
            features = extract(extractor, real, progress)
        return Yardstick(extractor, RealSet(real.name, real.sha256, torch.from_numpy(features)), True), measured
    assert normal is not None
    if len(normal) < 2 * count:  # too few to measure some and hold them against others
        measured, rest = None, normal
    else:
        rest = normal[count:]
    reference = RealSet(f"{len(rest):,} of {samples.who_is_normal}", "", torch.from_numpy(rest))
    return Yardstick(extractor, reference, False), measured


def _features(generator: Generator, latents: Latents, extractor: Extractor, measured: int) -> np.ndarray:
    """Of normal samples: those that are measured, and those that others are held against."""

    def observe(_: Latents, images: torch.Tensor, __: torch.Tensor) -> np.ndarray:
        return extract(extractor, images)

    return untouched_as_seen(generator, latents[: measured + MOST_NORMAL], {FEATURES: observe})[FEATURES]
