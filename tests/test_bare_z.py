"""A bare z tensor is as good as latents in every public function that takes them, where the generator has no labels."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small import small_dcgan
from small_policy import small_policy

import qualitygate
from qualitygate.generators.base import Generator
from qualitygate.latents import Latents
from qualitygate.testing import random_toy
from qualitygate.units.concepts import peaks, representative, top_samples, unit_heat
from qualitygate.units.defective_score import defective_scores, unit_thresholds
from qualitygate.units.from_activations import low_rate_activity_of

GENERATOR = small_dcgan()
LATENTS = qualitygate.sample_latents(GENERATOR, range(70), 3)
RATES = qualitygate.activation_rates(GENERATOR, [0, 1, 2], samples=600)
MASKS = torch.rand(70, *GENERATOR.image_shape[1:], generator=torch.Generator().manual_seed(0))
SCORES = {0: torch.linspace(0.0, 1.0, 8), 1: torch.linspace(1.0, 0.0, 6)}


def _gated(latents: Latents | torch.Tensor) -> list[Any]:
    profile = qualitygate.calibrate(GENERATOR, small_policy())
    return [(record.scores, image) for record, image in qualitygate.gate(GENERATOR, profile, latents=latents)]


PUBLIC: dict[str, Callable[[Any], Any]] = {
    "low_rate_counts": lambda latents: qualitygate.low_rate_counts(GENERATOR, latents, RATES),
    "low_rate_heatmap": lambda latents: qualitygate.low_rate_heatmap(GENERATOR, latents, RATES),
    "local_activation": lambda latents: qualitygate.local_activation(GENERATOR, latents[:3], [1]).curvature[1],
    "sequential_ablation": lambda latents: qualitygate.sequential_ablation(GENERATOR, latents, RATES),
    "sequential_correction": lambda latents: qualitygate.sequential_correction(GENERATOR, latents, SCORES),
    "local_region_correction": lambda latents: qualitygate.local_region_correction(GENERATOR, latents, MASKS),
    "gate": _gated,
}
OTHERS: dict[str, Callable[[Any], Any]] = {
    "generator": GENERATOR,
    "images": GENERATOR.images,
    "activations": lambda latents: [activation for *_, activation in GENERATOR.activations(latents, [0, 2])],
    "low_rate_activity_of": lambda latents: low_rate_activity_of(GENERATOR, latents, RATES).tensor(1),
    "unit_thresholds": lambda latents: unit_thresholds(GENERATOR, latents, [1]),
    "defective_scores": lambda latents: defective_scores(GENERATOR, latents, MASKS, {1: torch.zeros(6)}).overlap,
    "top_samples": lambda latents: vars(top_samples(GENERATOR, latents, [1], 3)[1]),
    "representative": lambda latents: representative(GENERATOR, latents, 1),
    "unit_heat": lambda latents: unit_heat(GENERATOR, latents, 1, 2),
    "peaks": lambda latents: peaks(GENERATOR, latents, {1: [2]}),
}


def test_no_public_function_is_left_out() -> None:
    public = {name: getattr(qualitygate, name) for name in qualitygate.__all__}
    takes = {name for name, one in public.items() if inspect.isfunction(one) and "latents" in inspect.signature(one).parameters}
    assert takes == set(PUBLIC)
    for name in takes:
        assert "Tensor" in str(inspect.signature(public[name]).parameters["latents"].annotation)


@pytest.mark.parametrize("name", [*PUBLIC, *OTHERS])
def test_a_bare_z_gives_what_latents_give(name: str) -> None:
    run = (PUBLIC | OTHERS)[name]
    torch.testing.assert_close(run(LATENTS.z), run(LATENTS), equal_nan=True)


def test_a_generator_with_labels_says_what_it_needs() -> None:
    conditional: Generator = random_toy(5, [(4, 2, 2)], label_size=3)
    rates = qualitygate.activation_rates(conditional, [0], samples=64)
    with pytest.raises(qualitygate.QualityGateError, match="latents without labels"):
        qualitygate.low_rate_counts(conditional, LATENTS.z, rates)
