"""Corrections side by side: every method at every strength on the same samples, as the gate would judge them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qualitygate import names
from qualitygate.corrections.method import padded_rows
from qualitygate.errors import InputError
from qualitygate.gating.correcting import Correcting
from qualitygate.gating.profile import Profile, correction_layers, detection_layers
from qualitygate.gating.scoring import Scorer, add_totals
from qualitygate.generators.base import Generator
from qualitygate.generators.execution import Progress, Reporter, micro_batches, sample_latents, scored_pass, silent
from qualitygate.latents import Latents
from qualitygate.policy.corrections import (
    METHODS,
    RANDOM_UNITS,
    Correction,
    HighRateAblation,
    LocalRegion,
    SequentialAblation,
    SequentialCorrection,
    ZeroAblation,
)
from qualitygate.policy.decide import repaired
from qualitygate.policy.model import Policy
from qualitygate.scores.local_activation import DIVISIONS
from qualitygate.storage import to_uint8


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
    """

    strength: float
    passed: np.ndarray
    moved: np.ndarray
    diversity: float
    shown: list[np.ndarray] = field(repr=False)


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

    @property
    def early_passes(self) -> float:
        """Early passes that least correction costs a sample, on average: one a strength that is tried, and the look."""
        return float(np.where(self.kept >= 0, self.kept + 1, len(self.at)).mean()) + self.look_passes

    @property
    def shown(self) -> list[np.ndarray]:
        """The first images as least correction leaves them; where no strength passes, at the strongest."""
        return [self.at[kept].shown[row] for row, kept in enumerate(self.kept[: len(self.at[0].shown)].tolist())]


@dataclass(frozen=True)
class Samples:
    """The samples of a study.

    Attributes:
        latents: of N samples, the worst first.
        scores: what they were chosen by, float64 (N,).
        score: its name.
        pool: how many they are the worst of.
    """

    latents: Latents
    scores: np.ndarray
    score: str
    pool: int


def worst_samples(
    generator: Generator,
    profile: Profile,
    policy: Policy,
    count: int,
    pool: int,
    seed: int,
    progress: Progress = silent,
) -> Samples:
    """The samples with the most active low-rate neurons at the policy's headline R, over its detection layers.

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
    at, layers = (policy.headline_rate,), detection_layers(policy, profile.info.chain)
    latents = sample_latents(generator, range(pool), seed, sampling=profile.info.sampling)
    score = Scorer(generator, profile.rates.to(generator.device), at, layers)
    parts = []
    with scored_pass():
        for rows, batch in micro_batches(latents):
            columns = score(batch, rows.stop - rows.start)[0]
            add_totals(columns, at, layers)
            parts.append(columns[names.low_rate(*at)])
            progress(rows.stop - rows.start)
    scores = np.concatenate(parts)
    worst = np.argsort(-np.where(np.isfinite(scores), scores, -np.inf), kind="stable")[:count]
    return Samples(latents[worst], scores[worst], names.low_rate(*at), pool)


def compare(
    generator: Generator,
    profile: Profile,
    policy: Policy,
    corrections: Mapping[str, Correction],
    samples: Samples,
    *,
    show: int = 12,
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
                    outcomes.append(_outcome(generator, profile, policy, name, correction, samples, show, progress))
                except InputError as error:
                    left_out[name] = str(error)
    return outcomes, left_out


def study_corrections(policy: Policy, methods: Collection[str], *, own_cla: bool = False) -> dict[str, Correction]:
    """Corrections worth comparing, by name: the policy's own, and every other method as it is by default, judged like the policy's own.

    Units are ranked by each sample's own low-rate activity, by the profile's low-rate activity and CLA, and at random.

    Args:
        policy: the policy.
        methods: those of `METHODS` to take.
        own_cla: also rank and mask by each sample's own CLA.
    """
    own = policy.correction
    judged = {"judged_at": policy.headline_rate} if own is None else {"judged_at": own.judged_at, "limit": own.limit}
    found: dict[str, Correction] = {}
    for method in (method for method in METHODS if method in methods):
        if own is not None and own.method == method:
            found[f"{method}, the policy's"] = own
        others = _variants(method, judged, own_cla)
        found |= {name: one for name, one in others.items() if one != own}
    return found


def _variants(method: str, judged: Mapping[str, Any], own_cla: bool) -> dict[str, Correction]:
    """A method as it is by default, by name; one for each source of units or masks."""
    made = METHODS[method]
    if issubclass(made, ZeroAblation | SequentialCorrection):
        sources = {"own low-rate activity": ("sample", names.UNIT_LOW_RATE), "low-rate activity": ("profile", names.UNIT_LOW_RATE),
                   "CLA": ("profile", names.UNIT_CLA), "random units": ("profile", RANDOM_UNITS)}  # fmt: skip
        sources |= {"own CLA": ("sample", names.UNIT_CLA)} if own_cla else {}
        return {
            f"{method}, {of}": made(**judged, ranking=ranking, score=score) for of, (ranking, score) in sources.items()
        }
    if issubclass(made, LocalRegion):
        masks = {"low-rate neurons": "low_rate", **({"own CLA": "cla"} if own_cla else {})}
        return {f"{method}, {of}": made(**judged, mask=mask) for of, mask in masks.items()}
    return {method: made(**judged)}


def rate_grid(policy: Policy, layers: Sequence[int], rates: Sequence[float]) -> dict[str, Correction]:
    """Low-rate beside high-rate ablation at every rate: of each layer alone, and of all of them (IJCAI 2022, figure 5 and table 1)."""
    judged_at = policy.headline_rate if policy.correction is None else policy.correction.judged_at
    sets = [(layer,) for layer in layers] + ([tuple(layers)] if len(layers) > 1 else [])
    return {
        f"{kind}, layers {','.join(map(str, chosen))}, R = {rate:g}": made(
            layers=chosen, rates=(rate,), judged_at=judged_at
        )
        for chosen in sets
        for rate in rates
        for kind, made in (("low-rate", SequentialAblation), ("high-rate", HighRateAblation))
    }


def _outcome(generator: Generator, profile: Profile, policy: Policy, name: str, correction: Correction, samples: Samples,
             show: int, progress: Progress) -> Outcome:  # fmt: skip
    policy = policy.with_correction(correction)
    limits = profile.limits(policy)
    correcting = Correcting(generator, profile, policy, correction, limits)
    of_samples = correcting.method.of(samples.latents)
    if not of_samples.selects.any():
        raise InputError("A correction would change nothing", "no sample in which it selects anything", "at least one",
                         "choose another score, R or other layers")  # fmt: skip
    edited, judged = correction_layers(policy, profile.info.chain)
    runs = {strength: _Run(show) for strength in correction.strengths}
    for rows, batch in micro_batches(samples.latents):
        valid, places = rows.stop - rows.start, padded_rows(rows, len(batch))
        untouched = generator(batch)[:valid].cpu()
        for strength, run in runs.items():
            trial, state = correcting.attempt(of_samples, strength, places, batch, valid)
            passed, _ = repaired(limits, trial)
            run.add(passed, untouched, generator.resume(state)[:valid].cpu())
            progress(valid)
    looks = {"nothing": 0, "pass": 1, "walk": generator.latent_size * DIVISIONS + 1}
    return Outcome(name, correction, edited, judged, looks[correction.look],
                   tuple(run.result(strength) for strength, run in runs.items()))  # fmt: skip


class _Run:
    """Collects what one strength does, micro-batch by micro-batch."""

    def __init__(self, show: int) -> None:
        self._show = show
        self._passed: list[np.ndarray] = []
        self._moved: list[np.ndarray] = []
        self._shown: list[np.ndarray] = []
        self._before, self._after = _Spread(), _Spread()

    def add(self, passed: np.ndarray, untouched: Tensor, corrected: Tensor) -> None:
        self._passed.append(passed)
        self._moved.append((corrected - untouched).abs().mean(dim=(1, 2, 3)).double().numpy() / 2.0)
        self._shown += [to_uint8(image) for image in corrected[: max(0, self._show - len(self._shown))].numpy()]
        self._before.add(untouched)
        self._after.add(corrected)

    def result(self, strength: float) -> AtStrength:
        before = self._before.value
        diversity = self._after.value / before if before else float("nan")
        return AtStrength(strength, np.concatenate(self._passed), np.concatenate(self._moved), diversity, self._shown)


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
