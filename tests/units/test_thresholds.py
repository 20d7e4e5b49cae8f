"""Thresholds in one pass: just below the exact quantile, by no more than is promised."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small import small_dcgan, small_pggan

from qualitygate.errors import InputError
from qualitygate.generators.base import read_layers, sample_latents
from qualitygate.testing.toys import ToyGenerator
from qualitygate.units.thresholds import UnitQuantiles, unit_thresholds


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
    for layer, activation in read_layers(generator, latents, (0, 2)):
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
