"""Corrections side by side: every method at every strength on the same samples, as the gate would judge them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from qualitygate.errors import InputError
from qualitygate.gating.correcting import Correcting
from qualitygate.gating.profile import Profile, correction_layers
from qualitygate.generators.base import Generator
from qualitygate.generators.passes import Progress, Reporter, micro_batches, padded_rows, scored_pass
from qualitygate.latents import Latents
from qualitygate.policy.corrections import Correction
from qualitygate.policy.decide import repaired
from qualitygate.policy.model import Policy
from qualitygate.scores.local_activation import DIVISIONS
from qualitygate.storage import to_uint8
from qualitygate.studies.corrections.samples import Samples

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
    of_samples = correcting.method.of(samples.latents)
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
