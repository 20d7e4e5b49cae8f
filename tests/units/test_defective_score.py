"""Regions against masks, on a toy whose units light up one half of the image each."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small import small_dcgan

from qualitygate.errors import InputError
from qualitygate.generators.base import State, read_layers, sample_latents
from qualitygate.latents import Latents
from qualitygate.testing.toys import ToyGenerator
from qualitygate.units.defective_score import defective_scores, soft_iou


class Enlarged(ToyGenerator):
    """A toy whose image is twice as large as its last layer."""

    def finish(self, state: State) -> torch.Tensor:
        return F.interpolate(super().finish(state), scale_factor=2)


def toy() -> ToyGenerator:
    """Units 0, 1, 2 of 1×2: the left half at z > 0, the right half at z > 0, nothing ever."""
    made = Enlarged([[[1.0], [0.0], [0.0], [1.0], [0.0], [0.0]]], [[0.0] * 6], [(3, 1, 2)])
    made.image_shape = (1, 2, 4)
    return made


def latents(*z: float) -> Latents:
    return Latents(np.arange(len(z)), None, torch.tensor(z)[:, None])


LIMITS = {0: torch.zeros(3)}


def test_by_hand() -> None:
    """A half of the image enlarged bilinearly is 1, .75, .25, 0 in each row."""
    mask = torch.tensor([[1.0, 1.0, 0.0, 0.0]] * 2)
    found = defective_scores(toy(), latents(1.0, -1.0), mask.expand(2, -1, -1), LIMITS)
    left = (1.0 + 0.75) / (1.0 + 1.0 + 0.25)
    right = 0.25 / (1.0 + 1.0 + 0.75 + 1.0)
    assert found.overlap[0][0].tolist() == pytest.approx([left, right, 0.0])
    assert found.overlap[0][1].tolist() == [0.0, 0.0, 0.0]  # nothing fires below 0
    assert found.mean.of(0).tolist() == pytest.approx([left / 2, right / 2, 0.0])
    assert found.of_sample(0).of(0).tolist() == pytest.approx([left, right, 0.0])
    assert found.mean.source == "defective_score"
    assert found.mean.settings == {"samples": 2, "mask_threshold": None}


def test_a_mask_threshold_has_an_effect() -> None:
    mask = torch.tensor([[0.6, 0.6, 0.3, 0.0]] * 2)[None]
    soft = defective_scores(toy(), latents(1.0), mask, LIMITS).overlap[0][0, 0].item()
    hard = defective_scores(toy(), latents(1.0), mask, LIMITS, mask_threshold=0.5).overlap[0][0, 0].item()
    assert soft == pytest.approx((0.6 + 0.6 + 0.25) / (1.0 + 0.75 + 0.3))
    assert hard == pytest.approx(1.75 / 2.25)


def test_thresholds_have_an_effect() -> None:
    mask = torch.ones(1, 2, 4)
    found = defective_scores(toy(), latents(1.0), mask, {0: torch.tensor([0.5, 1.5, 0.0])}).overlap[0][0]
    assert found[0] > 0
    assert found[1] == 0


def test_against_the_definition_on_every_layer_whatever_the_memory() -> None:
    generator = small_dcgan()
    samples = sample_latents(generator, range(5), 0)
    masks = torch.rand(5, *generator.image_shape[1:], generator=torch.Generator().manual_seed(0))
    limits = {layer: torch.full((generator.layers[layer].units,), 0.5) for layer in (0, 2)}
    found = defective_scores(generator, samples, masks, limits)
    little = defective_scores(generator, samples, masks, limits, memory=1)
    for layer, activation in read_layers(generator, samples, (0, 2)):
        region = F.interpolate((activation > 0.5).float(), size=masks.shape[1:], mode="bilinear")
        common, union = torch.minimum(region, masks[:, None]), torch.maximum(region, masks[:, None])
        expected = common.sum(dim=(2, 3)) / union.sum(dim=(2, 3))
        torch.testing.assert_close(found.overlap[layer], expected)
        torch.testing.assert_close(little.overlap[layer], expected)


def test_empty_region_and_empty_mask_explain_nothing() -> None:
    assert soft_iou(torch.zeros(1, 1, 2, 2, dtype=torch.bool), torch.zeros(1, 2, 2), 1).item() == 0.0


@pytest.mark.parametrize(
    "masks", [torch.zeros(2, 2, 4), torch.zeros(1, 4, 4), *(torch.full((1, 2, 4), bad) for bad in (1.5, float("nan")))]
)
def test_masks_that_do_not_fit(masks: torch.Tensor) -> None:
    with pytest.raises(InputError, match="masks do not fit"):
        defective_scores(toy(), latents(1.0), masks, LIMITS)
