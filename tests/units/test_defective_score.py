"""Thresholds just below the exact quantile, and regions against masks on a toy whose units light up one half of the image each."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small import small_dcgan, small_pggan

from qualitygate.errors import InputError
from qualitygate.generators.base import State, sample_latents
from qualitygate.latents import Latents
from qualitygate.testing.toys import ToyGenerator
from qualitygate.units import defective_score as module
from qualitygate.units.defective_score import UnitQuantiles, defective_scores, soft_iou, unit_thresholds


def exact(values: np.ndarray, share: float) -> np.ndarray:
    """The least of each unit's own values that at most ``share`` of them exceed."""
    order = np.sort(values, axis=1)[:, ::-1]
    return order[:, int(order.shape[1] * share)]


@pytest.mark.parametrize("make", [small_dcgan, small_pggan])
@pytest.mark.parametrize("share", [0.005, 0.1, 0.9])
def test_within_a_bin_of_the_exact_quantile(make, share: float) -> None:
    generator = make()
    latents = sample_latents(generator, range(150), 0)
    found = unit_thresholds(generator, latents, [0, 2], share)
    for layer in (0, 2):
        activation = generator.run(generator.start(latents), layer).activation
        values = activation.transpose(0, 1).flatten(1).numpy()
        limits = found[layer].numpy()
        true = exact(values, share)
        assert (limits <= true).all()
        assert (true - limits <= np.abs(true) / 128 + 2.0**-16).all()


def test_the_order_and_size_of_the_parts_do_not_count() -> None:
    values = torch.randn(30, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 1e-3, 1e3])[:, None, None]
    whole, parts = UnitQuantiles(3, "cpu"), UnitQuantiles(3, "cpu")
    whole.add(values)
    for part in values.flip(0).split([1, 7, 22]):
        parts.add(part)
    assert torch.equal(whole.above(0.01), parts.above(0.01))


def test_dead_constant_and_negative_units() -> None:
    quantiles = UnitQuantiles(4, "cpu")
    quantiles.add(torch.tensor([0.0, 1.5, -1.5, 2.0**-20]).view(1, 4, 1, 1).expand(10, -1, 2, 2))
    dead, constant, negative, faint = quantiles.above(0.1).tolist()
    assert dead == faint == 0.0
    assert 1.5 - 1e-6 < constant < 1.5  # it exceeds it wherever it is
    assert -1.5 - 1 / 128 <= negative < -1.5


def test_values_beyond_the_range() -> None:
    quantiles = UnitQuantiles(1, "cpu")
    quantiles.add(torch.full((1, 1, 1, 1), 1e9))
    assert quantiles.above(0.1).item() == pytest.approx(2.0**16)


def test_bad_input() -> None:
    toy = ToyGenerator([[[1.0]]], [[float("inf")]])
    with pytest.raises(InputError, match="not finite"):
        unit_thresholds(toy, sample_latents(toy, range(3), 0), [0])
    with pytest.raises(InputError, match="at least one sample"):
        unit_thresholds(toy, sample_latents(toy, range(3), 0), [0], 1.0)


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


def test_against_the_definition_on_every_layer_whatever_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = small_dcgan()
    samples = sample_latents(generator, range(5), 0)
    masks = torch.rand(5, *generator.image_shape[1:], generator=torch.Generator().manual_seed(0))
    limits = {layer: torch.full((generator.layers[layer].units,), 0.5) for layer in (0, 2)}
    found = defective_scores(generator, samples, masks, limits)
    monkeypatch.setattr(module, "_MEMORY", 1)
    little = defective_scores(generator, samples, masks, limits)
    for layer in (0, 2):
        activation = generator.run(generator.start(samples), layer).activation
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
