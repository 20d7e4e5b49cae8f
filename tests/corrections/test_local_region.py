"""Local region correction: only what is masked changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small import small_dcgan

from qualitygate.corrections.local_region import (
    _over_hottest,
    fade,
    local_region_correction,
    mask_at,
    own_local_activation_mask,
    own_low_rate_mask,
)
from qualitygate.errors import InputError
from qualitygate.generators.base import sample_latents
from qualitygate.generators.passes import MICRO_BATCH
from qualitygate.scores.local_activation import local_activation
from qualitygate.scores.low_rate import activation_rates, low_rate_heatmap


def test_a_mask_at_the_size_of_a_layer() -> None:
    mask = torch.zeros(1, 4, 4)
    mask[0, :2, :2] = 1.0
    mask[0, 0, 2] = 0.5
    assert mask_at(mask, 2, 2).tolist() == [[[1.0, 0.125], [0.0, 0.0]]]
    assert torch.equal(mask_at(mask, 4, 4), mask)
    larger = mask_at(mask, 8, 8)
    assert larger.shape == (1, 8, 8)
    assert (float(larger[0, 0, 0]), float(larger[0, 7, 7])) == (1.0, 0.0)


def test_only_the_masked_region_changes() -> None:
    activation = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    before = activation.clone()
    masks = torch.zeros(2, 4, 4)
    masks[0, 1:3, 1:3] = 1.0
    faded = fade(activation, masks)
    assert (faded[0, :, 1:3, 1:3] == 0).all()
    assert torch.equal(faded[1], activation[1])
    outside = masks[0] == 0
    assert torch.equal(faded[0][:, outside], activation[0][:, outside])
    half = fade(activation, masks, 0.25)
    torch.testing.assert_close(half[0, :, 1, 1], 0.75 * activation[0, :, 1, 1])
    assert torch.equal(activation, before)


def test_each_sample_has_its_own_mask_whatever_the_batch() -> None:
    generator = small_dcgan()
    latents = sample_latents(generator, range(MICRO_BATCH + 2), 1)
    masks = torch.rand(len(latents), *generator.image_shape[1:], generator=torch.Generator().manual_seed(1)).round()
    masks[3] = 0.0
    images = local_region_correction(generator, latents, masks, [0, 1])
    torch.testing.assert_close(images[3], generator(latents[3:4])[0], rtol=0.0, atol=1e-5)
    for row in (0, 7, MICRO_BATCH + 1):
        alone = local_region_correction(generator, latents[[row]], masks[[row]], [0, 1])
        torch.testing.assert_close(alone[0], images[row], rtol=0.0, atol=1e-5)
    state = generator.start(latents[:3])
    for layer in generator.layers:
        state = generator.advance(state)
        if layer.index <= generator.presets.stop:
            kept = 1.0 - torch.nn.functional.adaptive_avg_pool2d(masks[:3], (layer.height, layer.width))
            state = state.edited(state.activation * kept[:, None])
    torch.testing.assert_close(local_region_correction(generator, latents[:3], masks[:3]), generator.resume(state), rtol=0.0, atol=1e-5)
    assert not torch.allclose(local_region_correction(generator, latents[:2], masks[:2], weight=0.5), images[:2], atol=1e-3)


def test_what_cannot_be_used() -> None:
    generator = small_dcgan()
    latents = sample_latents(generator, range(2), 1)
    for masks, words in (
        (torch.zeros(2, 4, 4), "would change nothing"),
        (torch.full((2, 4, 4), 1.5), "These are no masks"),
        (torch.full((2, 4, 4), torch.nan), "These are no masks"),
        (torch.ones(2, 1, 4, 4), "These are no masks"),
        (torch.ones(3, 4, 4), "3 masks"),
    ):
        with pytest.raises(InputError, match=words):
            local_region_correction(generator, latents, masks)
    for weight in (0.0, 1.1, float("nan")):
        with pytest.raises(InputError, match="weight of a mask"):
            local_region_correction(generator, latents, torch.ones(2, 4, 4), [0], weight=weight)


def test_own_mask_of_local_activation() -> None:
    generator = small_dcgan()
    latents = sample_latents(generator, range(3), 1)
    exact = local_activation(generator, latents, [0, 1])
    mask = own_local_activation_mask(generator, latents, (0, 1))
    assert mask.shape == (3, *generator.image_shape[1:])
    assert mask.amax(dim=(1, 2)).tolist() == [1.0, 1.0, 1.0]
    assert float(mask.min()) >= 0.0
    one = own_local_activation_mask(generator, latents, (1,))
    heat = exact.neuron_score(1).sum(dim=1, keepdim=True)
    heat = torch.nn.functional.interpolate(heat, size=mask.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(one, heat / heat.amax(dim=(1, 2), keepdim=True))


def test_own_mask_is_the_heatmap_over_its_hottest_place() -> None:
    generator = small_dcgan()
    rates = activation_rates(generator, [0, 1], 300)
    latents = sample_latents(generator, range(40), 1)
    mask = own_low_rate_mask(generator, latents, rates, 0.2, (0, 1))
    heat = low_rate_heatmap(generator, latents, rates, 0.2, (0, 1))
    hottest = heat.amax(dim=(1, 2))
    assert (hottest > 0).any()
    for row in range(40):
        assert mask[row].numpy() == pytest.approx(heat[row].numpy() / max(float(hottest[row]), 1e-9))
    empty = _over_hottest(torch.stack((torch.zeros(2, 2), torch.full((2, 2), np.nan), torch.eye(2) * 0.2)))
    assert empty.tolist() == [[[0.0, 0.0]] * 2, [[0.0, 0.0]] * 2, [[1.0, 0.0], [0.0, 1.0]]]
