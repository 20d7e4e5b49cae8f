"""What a sample says of itself: rankings and masks worked out by hand or the long way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small import small_dcgan

from qualitygate.corrections import own
from qualitygate.generators.base import sample_latents
from qualitygate.scores.local_activation import local_activation
from qualitygate.scores.low_rate import activation_rates, low_rate_heatmap


def test_own_low_rate_activity() -> None:
    generator = small_dcgan()
    rates = activation_rates(generator, [0, 1], 300)
    latents = sample_latents(generator, range(70), 1)
    scores = own.own_low_rate_activity(generator, latents, rates, 0.3, (0, 1))
    state = generator.run(generator.start(latents), 1)
    active = (state.activation > 0) & rates.low_rate(1, 0.3)
    torch.testing.assert_close(scores[1], active.double().mean(dim=(2, 3)), rtol=0.0, atol=1e-6)
    assert scores[0].shape == (70, 8)
    other = own.own_low_rate_activity(generator, latents, rates, 0.1, (0, 1))
    assert (other[1] <= scores[1]).all()
    assert not torch.equal(other[1], scores[1])


def test_own_local_activation() -> None:
    generator = small_dcgan()
    latents = sample_latents(generator, range(3), 1)
    scores = own.own_local_activation(generator, latents, (0, 1))
    exact = local_activation(generator, latents, [0, 1])
    torch.testing.assert_close(scores, exact.unit_score)
    mask = own.own_local_activation_mask(generator, latents, (0, 1))
    assert mask.shape == (3, *generator.image_shape[1:])
    assert mask.amax(dim=(1, 2)).tolist() == [1.0, 1.0, 1.0]
    assert float(mask.min()) >= 0.0
    one = own.own_local_activation_mask(generator, latents, (1,))
    heat = exact.neuron_score(1).sum(dim=1, keepdim=True)
    heat = torch.nn.functional.interpolate(heat, size=mask.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(one, heat / heat.amax(dim=(1, 2), keepdim=True))


def test_own_mask_is_the_heatmap_over_its_hottest_place() -> None:
    generator = small_dcgan()
    rates = activation_rates(generator, [0, 1], 300)
    latents = sample_latents(generator, range(40), 1)
    mask = own.own_low_rate_mask(generator, latents, rates, 0.2, (0, 1))
    heat = low_rate_heatmap(generator, latents, rates, 0.2, (0, 1))
    hottest = heat.amax(dim=(1, 2))
    assert (hottest > 0).any()
    for row in range(40):
        assert mask[row].numpy() == pytest.approx(heat[row].numpy() / max(float(hottest[row]), 1e-9))
    empty = own._over_hottest(torch.stack((torch.zeros(2, 2), torch.full((2, 2), np.nan), torch.eye(2) * 0.2)))
    assert empty.tolist() == [[[0.0, 0.0]] * 2, [[0.0, 0.0]] * 2, [[1.0, 0.0], [0.0, 1.0]]]
