"""The checkpoint that the pictures are of, and what calibration learned of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from qualitygate.gating.calibrate import calibrate, default_policy, with_curvature
from qualitygate.gating.profile import Profile, load_profile
from qualitygate.generators.base import Generator, sample_latents
from qualitygate.latents import Latents


@dataclass(frozen=True)
class Subject:
    """A checkpoint, and what calibration learned of it.

    Attributes:
        generator: the generator.
        learned: the profile, made where it is first needed.
    """

    generator: Generator
    learned: Callable[[], Profile]

    @cached_property
    def profile(self) -> Profile:
        return self.learned()

    @property
    def layer(self) -> int:
        """Where CLA is scored."""
        return self.generator.presets.curvature[0]

    @property
    def scored(self) -> tuple[int, ...]:
        """Layers whose low-rate neurons are counted."""
        return self.generator.presets.low_rate

    @property
    def rate(self) -> float:
        """R of the default rule."""
        return self.profile.policy.headline_rate

    def column(self, name: str) -> np.ndarray:
        """A score of the calibration's samples; NaN for those that were not scored."""
        return self.profile.columns(self.profile.policy)[name]

    def latents(self, rows: Iterable[int]) -> Latents:
        """The calibration's samples of these rows."""
        settings = self.profile.info.calibration
        return sample_latents(self.generator, [settings.rate_samples + int(row) for row in rows], settings.seed)

    def ranked(self, name: str) -> np.ndarray:
        """Rows of the calibration's samples that have the score, the lowest first."""
        values = self.column(name)
        return np.argsort(values, kind="stable")[: np.isfinite(values).sum()]


def calibrated(generator: Generator, folder: Path | None) -> Profile:
    """The profile in the folder, or a new one, which is left there."""
    if folder is not None and folder.exists():
        profile = load_profile(folder)
        profile.check_generator(generator)
        return profile
    profile = calibrate(generator, with_curvature(default_policy(generator.family), generator.presets.curvature[0]))
    if folder is not None:
        profile.save(folder)
    return profile
