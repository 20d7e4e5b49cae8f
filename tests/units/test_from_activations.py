"""Unit scores that need activations alone."""

from __future__ import annotations

import torch
from small import small_dcgan

from qualitygate.generators.base import sample_latents
from qualitygate.scores.local_activation import local_activation
from qualitygate.scores.low_rate import activation_rates
from qualitygate.units.from_activations import curvature, low_rate_activity, low_rate_activity_of


def test_low_rate_activity_over_the_latents_of_the_estimate_follows_from_the_rates() -> None:
    generator = small_dcgan()
    rates = activation_rates(generator, [0, 1], 200, seed=3)
    known = low_rate_activity(rates, 0.2)
    counted = low_rate_activity_of(generator, sample_latents(generator, range(200), 3), rates, 0.2)
    assert known.source == counted.source == "low_rate_activity"
    assert known.settings == {"rate": 0.2, "samples": 200}
    for layer in (0, 1):
        torch.testing.assert_close(known.tensor(layer), counted.tensor(layer))
        assert low_rate_activity(rates, 0.05).of(layer).sum() < known.of(layer).sum()
    assert low_rate_activity_of(generator, sample_latents(generator, range(5), 0), rates, 0.2, [1]).layers == (1,)


def test_curvature_is_the_mean_over_samples() -> None:
    generator = small_dcgan()
    local = local_activation(generator, sample_latents(generator, range(3), 0), [0, 1])
    found = curvature(local)
    assert found.source == "cla"
    assert found.settings == {"samples": 3}
    torch.testing.assert_close(found.tensor(1), local.unit_score[1].mean(dim=0))
