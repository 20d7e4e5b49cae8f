"""Activation rates, low-rate counts and heatmaps, against known probabilities, naive loops and numbers by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from small import small_dcgan
from torch import Tensor

from qualitygate.errors import InputError, LayerError, ProfileError
from qualitygate.generators.base import Generator, sample_latents
from qualitygate.generators.passes import MICRO_BATCH
from qualitygate.latents import Sampling
from qualitygate.scores.low_rate import ActivationRates, LowRateCounter, activation_rates, count_active, low_rate_counts, low_rate_heatmap
from qualitygate.testing import ToyGenerator, random_toy


def rates_of(counts: list, samples: int) -> ActivationRates:
    """Rates of one layer 0."""
    return ActivationRates({0: torch.tensor(counts, dtype=torch.int64)}, samples, 0, Sampling())


def activations(generator: Generator, samples: range, seed: int) -> dict[int, Tensor]:
    """Every layer of each sample, one sample at a time."""
    alone = [generator.states(generator.start(sample_latents(generator, [one], seed))) for one in samples]
    by_layer = zip(*([state.activation for state in states] for states in alone), strict=True)
    return {index: torch.cat(parts) for index, parts in enumerate(by_layer)}


def test_rates_are_the_known_probabilities() -> None:
    toy = ToyGenerator([[[3.0, 4.0], [1.0, 0.0], [0.0, -2.0], [0.0, 0.0], [0.0, 0.0]]], [[5.0, -1.0, 0.0, 1.0, -1.0]], [(5, 1, 1)])
    rates = activation_rates(toy, [0], samples=20_000)
    expected = toy.activation_probability()
    spread = (expected * (1 - expected) / 20_000).sqrt()
    assert ((rates.rates[0] - expected).abs() <= 4 * spread).all()
    assert rates.counts[0].dtype == torch.int64
    assert rates.counts[0].shape == (5, 1, 1)


def test_rates_are_exactly_those_of_a_naive_loop() -> None:
    generator = small_dcgan()
    samples = MICRO_BATCH + 7
    rates = activation_rates(generator, [0, 2, 3], samples, seed=3)
    naive = activations(generator, range(samples), 3)
    assert rates.layers == (0, 2, 3)
    for index in rates.layers:
        assert torch.equal(rates.counts[index], (naive[index] > 0).sum(dim=0))
        torch.testing.assert_close(rates.rates[index], rates.counts[index].double() / samples)


def test_every_argument_of_the_estimate_matters() -> None:
    generator = small_dcgan((6, 4))
    base = activation_rates(generator, [1], 80)
    others = [
        activation_rates(generator, [1], 81),
        activation_rates(generator, [1], 80, seed=1),
        activation_rates(generator, [1], 80, sampling=Sampling(psi=0.5)),
    ]
    assert all(not torch.equal(other.counts[1], base.counts[1]) for other in others)
    assert (others[0].samples, others[1].seed, others[2].sampling.psi) == (81, 1, 0.5)
    finished: list[int] = []
    activation_rates(generator, [0], 70, progress=finished.append)
    assert finished == [64, 6]


def test_counting_does_not_depend_on_the_size_of_the_batch() -> None:
    activation = activations(small_dcgan(), range(20), 0)[2]
    assert torch.equal(sum(count_active(part) for part in activation.split(3)), count_active(activation))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_activations_that_are_not_finite(value: float) -> None:
    activation = torch.ones(3, 2, 2, 2)
    activation[1, 1, 0, 1] = value
    with pytest.raises(InputError, match="not finite"):
        count_active(activation)
    toy = random_toy(3, [(2, 2, 2)])
    toy.bias[0][0] = value
    if value != -np.inf:  # which a ReLU makes 0
        with pytest.raises(InputError, match="not finite"):
            activation_rates(toy, [0], 100)


def test_no_samples_and_no_such_layer() -> None:
    with pytest.raises(InputError, match="at least 1"):
        activation_rates(small_dcgan(), [0], 0)
    with pytest.raises(LayerError):
        activation_rates(small_dcgan(), [7], 100)
    rates = rates_of([[[1]]], 10)
    for use in (lambda: rates.low_rate(1, 0.3), lambda: rates.high_rate(1, 0.3), lambda: rates.never_seen(1)):
        with pytest.raises(ProfileError, match=r"No activation rates for layer 1\n  found: rates of layers \(0,\)"):
            use()
    for rate in (0.0, -0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="out of range"):
            rates.low_rate(0, rate)


@pytest.mark.parametrize(
    ("rate", "samples", "most"),
    [(0.1, 30_000, 3_000), (0.3, 30_000, 9_000), (1.0, 30_000, 30_000), (1e-5, 30_000, 0), (0.29, 100, 29), (0.043, 10_000, 430)],
)
def test_boundaries_are_compared_as_whole_numbers(rate: float, samples: int, most: int) -> None:
    """0.29 · 100 is 28.999… in floating point."""
    counts = [[[0, 1, most, most + 1, samples]]]
    rates = rates_of(counts, samples)
    low, high = rates.low_rate(0, rate)[0, 0].tolist(), rates.high_rate(0, rate)[0, 0].tolist()
    assert low == [0 < count <= most for count in counts[0][0]]
    assert high == [count > most for count in counts[0][0]]
    assert rates.never_seen(0)[0, 0].tolist() == [count == 0 for count in counts[0][0]]
    assert rates.low_rate_share(0, rate) == sum(count <= most for count in counts[0][0]) / 5
    assert torch.equal(rates.low_rate(0, np.float64(rate)), rates.low_rate(0, rate))


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": Tensor.contiguous,
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "positions first": lambda x: x.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1),
    "a part of something larger": lambda x: torch.cat((x, x), dim=3)[:, :, :, : x.shape[3]],
    "one value, expanded": lambda x: x[:, :1].expand(x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(6, 3, 5), (4, 1, 1), (1, 4, 4)])
def test_counts_in_every_memory_layout(layout: str, shape: tuple[int, int, int]) -> None:
    random = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 40, shape, generator=random)
    rates = ActivationRates({4: counts}, 100, 0, Sampling())
    activation = LAYOUTS[layout](torch.randn(7, *shape, generator=random))
    at = (0.02, 0.1, 0.3)
    ours = LowRateCounter(rates, at, "cpu", rates.layers)(4, activation)
    masks = [counts == 0, *((counts > 0) & (counts <= round(100 * rate)) for rate in at)]
    naive = [[int(((sample > 0) & mask).sum()) for mask in masks] for sample in activation]
    assert ours.dtype == torch.int64
    assert ours.tolist() == naive
    assert torch.equal(count_active(activation), (activation > 0).sum(dim=0))


def test_counts_of_samples() -> None:
    generator = small_dcgan()
    rates = activation_rates(generator, [0, 1, 3], 300)
    samples = range(MICRO_BATCH + 3)
    latents = sample_latents(generator, samples, 1)
    counts = low_rate_counts(generator, latents, rates, 0.2)
    naive = activations(generator, samples, 1)
    expected = torch.stack([((naive[layer] > 0) & rates.low_rate(layer, 0.2)).sum(dim=(1, 2, 3)) for layer in rates.layers], dim=1)
    assert counts.dtype == torch.int64
    assert torch.equal(counts, expected)
    assert counts.sum() > 0
    for size in (1, 2, 3):
        parts = [low_rate_counts(generator, latents[at : at + size], rates, 0.2) for at in range(0, 6, size)]
        assert torch.equal(torch.cat(parts), counts[:6])
    assert torch.equal(low_rate_counts(generator, latents, rates, 0.2, layers=[3, "layer0"]), counts[:, [0, 2]])
    assert not torch.equal(low_rate_counts(generator, latents, rates, 0.1), counts)
    assert torch.equal(low_rate_counts(generator, latents, rates), low_rate_counts(generator, latents, rates, 0.3))
    with pytest.raises(ProfileError, match="layer 2"):
        low_rate_counts(generator, latents, rates, layers=[2])


def test_rates_move_between_devices_whole() -> None:
    rates = ActivationRates({0: torch.ones(1, 1, 1, dtype=torch.int64)}, 9, 5, Sampling(psi=0.5))
    moved = rates.to("meta")
    assert moved.counts[0].device.type == "meta"
    assert (moved.samples, moved.seed, moved.sampling) == (9, 5, Sampling(psi=0.5))


# heatmaps


def corners() -> tuple[ToyGenerator, ActivationRates]:
    """Two units at 1×2 with constant activations, then one that repeats the left column at 2×4, always active."""
    toy = ToyGenerator([torch.zeros(4, 1), torch.zeros(8, 4)], [[1.0, 1.0, 1.0, 0.0], torch.ones(8)], [(2, 1, 2), (1, 2, 4)])
    counts = {0: torch.tensor([[[1, 9]], [[1, 1]]]), 1: torch.ones(1, 2, 4, dtype=torch.int64)}
    return toy, ActivationRates(counts, 10, 0, Sampling())


def test_heatmap_by_hand() -> None:
    toy, rates = corners()
    latents = sample_latents(toy, range(3), 1)
    heat = low_rate_heatmap(toy, latents, rates, 0.3, layers=[0])
    # left: both units are low-rate and active; right: one is not low-rate, the other not active; bilinear between 1 and 0
    row = [1.0, 0.75, 0.25, 0.0]
    assert heat.dtype == torch.float32
    torch.testing.assert_close(heat, torch.tensor([row, row]).expand(3, 2, 4))
    both = low_rate_heatmap(toy, latents, rates, 0.3)
    torch.testing.assert_close(both, (heat + 1.0) / 2.0)
    assert torch.equal(low_rate_heatmap(toy, latents, rates), both)


def test_every_argument_of_a_heatmap_matters() -> None:
    toy, rates = corners()
    latents = sample_latents(toy, range(2), 1)
    base = low_rate_heatmap(toy, latents, rates, 0.3)
    assert not torch.equal(low_rate_heatmap(toy, latents, rates, 0.9), base)
    assert not torch.equal(low_rate_heatmap(toy, latents, rates, 0.3, layers=[1]), base)
    silenced = low_rate_heatmap(toy, latents, rates, 0.3, edits={0: torch.zeros_like})
    torch.testing.assert_close(silenced, torch.full((2, 2, 4), 0.5))


def test_heatmaps_do_not_depend_on_the_batch() -> None:
    generator = small_dcgan()
    rates = activation_rates(generator, [0, 1], 200)
    latents = sample_latents(generator, range(5), 1)
    heat = low_rate_heatmap(generator, latents, rates)
    assert heat.shape == (5, *generator.image_shape[1:])
    assert 0.0 <= heat.min() < heat.max() <= 1.0
    assert torch.equal(torch.cat([low_rate_heatmap(generator, latents[[row]], rates) for row in range(5)]), heat)
