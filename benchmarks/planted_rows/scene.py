"""One planted checkpoint, calibrated, with the samples that every method is tried on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from qualitygate import names
from qualitygate.features.extractor import SpatialExtractor
from qualitygate.gating.calibrate import calibrate, default_policy
from qualitygate.gating.profile import Profile
from qualitygate.gating.scoring import Scorer, add_totals, joined
from qualitygate.generators.base import Discriminator, Generator, sample_latents
from qualitygate.latents import Latents
from qualitygate.policy.model import Policy
from qualitygate.scores.local_activation import LocalActivation, local_activation
from qualitygate.scores.screening import THIN, axes_order
from qualitygate.testing.planted import Planted
from qualitygate.testing.toys import random_patches
from qualitygate.units.defective_score import unit_thresholds

RATES = (0.005, 0.02, 0.05, 0.1, 0.2, 0.3)
"""Values of R."""
SEED = 1
"""Seed of the samples; calibration has 0."""
ESTIMATED_AXES = 10
_CHUNK = 16_384


@dataclass(frozen=True)
class Sizes:
    """How much is spent on a checkpoint.

    Attributes:
        rates: latents for the activation rates.
        reference: latents for the calibration's quantiles, and to fit the rivals on.
        defective, others: samples that are scored; defective ones are looked up by their latents, so that a defect of 0.1 % has as
            many as any other.
        exact_defective, exact_others: how many of those have exact CLA.
        corrected: how many of the others are corrected, to see the harm.
        estimated: how many of the calibration's samples have an estimate of CLA, for the joined risk.
    """

    rates: int = 8192
    reference: int = 2048
    defective: int = 128
    others: int = 1024
    exact_defective: int = 12
    exact_others: int = 36
    corrected: int = 128
    estimated: int = 512


class Scene:
    """What methods get to see of a planted checkpoint, and (last) the truth that they are measured by.

    Args:
        planted: the planted generator.
        discriminator: the one that came with the base, if any.
        sizes: how much is spent.
        extractor: features of images; by default of small patches, which cost nothing and see little.
    """

    def __init__(
        self, planted: Planted, discriminator: Discriminator | None, sizes: Sizes, extractor: SpatialExtractor | None = None
    ) -> None:
        self.planted, self.discriminator, self.sizes = planted, discriminator, sizes
        self.extractor = extractor or random_patches(planted.generator.image_shape[0])
        self.generator: Generator = planted.generator
        self.layers = self.generator.presets.low_rate

    @cached_property
    def policy(self) -> Policy:
        """The default of the base's family, with more values of R."""
        default = default_policy(self.planted.generator.base.family)
        changes = {
            "detection": default.detection.model_copy(update={"rates": RATES}),
            "calibration": default.calibration.model_copy(update={"rate_samples": self.sizes.rates, "score_samples": self.sizes.reference}),
        }
        return Policy.model_validate(default.model_copy(update=changes).model_dump())

    @cached_property
    def profile(self) -> Profile:
        return calibrate(self.generator, self.policy)

    @cached_property
    def reference(self) -> Latents:
        """The calibration's scored samples."""
        start = self.sizes.rates
        return sample_latents(self.generator, range(start, start + self.sizes.reference), 0)

    @cached_property
    def samples(self) -> Latents:
        """Samples whose planted units fire, then others."""
        firing: list[Latents] = []
        others: list[Latents] = []
        wanted = self.sizes.defective if self.planted.truth.units else 0
        while _length(firing) < wanted or _length(others) < self.sizes.others:
            start = _length(firing) + _length(others)
            latents = sample_latents(self.generator, range(start, start + _CHUNK), SEED)
            fires = self.planted.truth.fires(latents).numpy()
            firing.append(latents[np.flatnonzero(fires)])
            others.append(latents[np.flatnonzero(~fires)])
        picked = [Latents.concatenated(firing)[:wanted], Latents.concatenated(others)[: self.sizes.others]]
        return Latents.concatenated(picked)

    @cached_property
    def fires(self) -> np.ndarray:
        """bool (N,): the truth about `samples`."""
        return self.planted.truth.fires(self.samples).numpy()

    @cached_property
    def thresholds(self) -> dict[int, Tensor]:
        """From where on each unit fires strongly, over samples as they come."""
        return unit_thresholds(self.generator, self.reference, self.layers)

    def images(self, latents: Latents) -> Tensor:
        """Images float32 (N, channels, height, width), on the CPU."""
        return self.generator.images(latents)

    @property
    def share(self) -> float:
        """Share of all latents for which the planted units fire."""
        return self.planted.generator.planting.region.share if self.planted.truth.units else 0.0

    @cached_property
    def columns(self) -> dict[str, np.ndarray]:
        """Low-rate counts and never-seen neurons of the samples, under their public names."""
        score = Scorer(self.generator, self.profile.rates, RATES, self.layers)
        columns = joined(columns for _, columns, _ in score.over(self.samples))
        add_totals(columns, RATES, self.layers)
        return columns

    def pooled(self, latents: Latents) -> dict[int, Tensor]:
        """Mean over positions of each unit, by layer: float64 (N, units)."""
        parts: dict[int, list[Tensor]] = {layer: [] for layer in self.layers}
        for _, layer, activation in self.generator.activations(latents, self.layers):
            parts[layer].append(activation.double().mean(dim=(2, 3)).cpu())
        return {layer: torch.cat(part) for layer, part in parts.items()}

    @cached_property
    def pooled_samples(self) -> dict[int, Tensor]:
        return self.pooled(self.samples)

    @cached_property
    def pooled_reference(self) -> dict[int, Tensor]:
        return self.pooled(self.reference)

    @cached_property
    def exact_rows(self) -> np.ndarray:
        """Rows of `samples` with exact CLA."""
        firing, others = np.flatnonzero(self.fires), np.flatnonzero(~self.fires)
        return np.concatenate([firing[: self.sizes.exact_defective], others[: self.sizes.exact_others]])

    @cached_property
    def exact(self) -> LocalActivation:
        """Exact CLA of those, at the layers up to the family's preset, or to where the defect begins among the low-rate layers."""
        begins = self.planted.truth.layer
        last = max(*self.generator.presets.curvature, begins if begins in self.layers else 0)
        return local_activation(self.generator, self.samples[self.exact_rows], range(last + 1))

    @cached_property
    def estimated(self) -> dict[str, np.ndarray]:
        """CLA of all samples as the first rungs of screening have it, under the calibration's names."""
        return self._estimate(self.samples)

    @cached_property
    def estimated_reference(self) -> dict[str, np.ndarray]:
        """The same of the first of the calibration's samples."""
        return self._estimate(self.reference[: self.sizes.estimated])

    def _estimate(self, latents: Latents) -> dict[str, np.ndarray]:
        size = self.generator.latent_size
        axes = axes_order(size)[: min(ESTIMATED_AXES, size)]
        layers = range(max(self.generator.presets.curvature) + 1)
        scores = local_activation(self.generator, latents, layers, axes=axes, points=THIN).score
        return {names.cla_estimate(len(axes), len(THIN), layer): scores[layer].numpy() for layer in layers}


def _length(parts: list[Latents]) -> int:
    return sum(len(part) for part in parts)
