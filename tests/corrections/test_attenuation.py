"""Attenuation of units: which are chosen, by how much, and that sequential correction is the naive one."""

from __future__ import annotations

import pytest
import torch
from small import small_dcgan
from torch import Tensor

from qualitygate.corrections.attenuation import (
    attenuate,
    own_local_activation,
    own_low_rate_activity,
    random_units,
    sequential_correction,
    top_units,
    unit_attenuation,
    unit_factors,
)
from qualitygate.errors import InputError, LayerError
from qualitygate.generators.base import Generator, sample_latents
from qualitygate.generators.passes import MICRO_BATCH
from qualitygate.scores.local_activation import local_activation
from qualitygate.scores.low_rate import activation_rates

SCORES = torch.tensor([0.0, 4.0, 1.0, 2.0, 4.0], dtype=torch.float64)


def test_units_are_multiplied_by_their_factors() -> None:
    activation = torch.tensor([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]]).view(2, 3, 1, 1)
    before = activation.clone()
    shared = attenuate(activation, torch.tensor([0.5, 1.0, 0.0]))
    assert shared.flatten(1).tolist() == [[0.5, -2.0, 0.0], [2.0, 5.0, 0.0]]
    own = attenuate(activation, torch.tensor([[1.0, 0.5, 1.0], [0.0, 1.0, 1.0]], dtype=torch.float64))
    assert own.flatten(1).tolist() == [[1.0, -1.0, 3.0], [0.0, 5.0, -6.0]]
    assert own.dtype == torch.float32
    assert torch.equal(activation, before)


@pytest.mark.parametrize(
    ("size", "in_shares", "chosen"),
    [
        (1, False, [1]),
        (2, False, [1, 4]),
        (3, False, [1, 3, 4]),
        (9, False, [1, 2, 3, 4]),
        (0.2, True, [1]),
        (0.01, True, [1]),
        (0.5, True, [1, 4]),
        (1.0, True, [1, 2, 3, 4]),
    ],
)
def test_the_highest_scores_are_chosen(size: float, in_shares: bool, chosen: list[int]) -> None:
    assert top_units(SCORES, size, in_shares=in_shares).nonzero().flatten().tolist() == chosen


def test_no_suspicion_no_choice() -> None:
    scores = torch.tensor([[0.0, -1.0, float("nan")], [1.0, float("inf"), 0.5]])
    assert top_units(scores, 3, in_shares=False).tolist() == [[False, False, False], [True, False, True]]


def test_factors_are_lambda_times_one_minus_the_normalised_score() -> None:
    assert unit_factors(SCORES, 4, 0.5, in_shares=False).tolist() == [1.0, 0.0, 0.375, 0.25, 0.0]
    assert unit_factors(SCORES, 1, 0.5, in_shares=False).tolist() == [1.0, 0.0, 1.0, 1.0, 1.0]
    assert unit_factors(SCORES, 0.4, 0.0).tolist() == [1.0, 0.0, 1.0, 1.0, 0.0]
    own = torch.stack((SCORES, SCORES.flip(0) * 3, torch.zeros(5)))
    assert unit_factors(own, 2, 1.0, in_shares=False).tolist() == [[1.0, 0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0, 1.0], [1.0] * 5]


@pytest.fixture(scope="module")
def generator() -> Generator:
    return small_dcgan()


def scores_of(generator: Generator, *layers: int) -> dict[int, Tensor]:
    random = torch.Generator().manual_seed(7)
    return {layer: torch.rand(generator.layers[layer].units, generator=random, dtype=torch.float64) for layer in layers}


def test_sequential_correction_is_the_naive_one(generator: Generator) -> None:
    latents = sample_latents(generator, range(MICRO_BATCH + 3), 1)
    scores = scores_of(generator, 0, 1, 2)

    def naive(count: int, lambda_: float) -> Tensor:
        state = generator.start(latents)
        for layer in generator.layers:
            state = generator.advance(state)
            if layer.index in scores:
                activation = state.activation.clone()
                of_layer = scores[layer.index]
                for unit in of_layer.argsort(descending=True)[:count].tolist():
                    activation[:, unit] *= lambda_ * (1.0 - float(of_layer[unit] / of_layer.max()))
                state = state.edited(activation)
        return generator.resume(state)

    ours = sequential_correction(generator, latents, scores, size=2, lambda_=0.9, in_shares=False)
    torch.testing.assert_close(ours, naive(2, 0.9), rtol=0.0, atol=1e-5)
    zero = sequential_correction(generator, latents, scores, size=3, lambda_=0.0, in_shares=False)
    torch.testing.assert_close(zero, naive(3, 0.0), rtol=0.0, atol=1e-5)
    assert not torch.allclose(ours, zero)
    first = sequential_correction(generator, latents[:3], scores, size=2, in_shares=False)
    torch.testing.assert_close(first, ours[:3], rtol=0.0, atol=1e-5)
    shares = sequential_correction(generator, latents[:3], scores)
    torch.testing.assert_close(shares, sequential_correction(generator, latents[:3], scores, size=0.2, lambda_=0.9))


def test_the_generator_is_left_as_it_was(generator: Generator) -> None:
    latents = sample_latents(generator, range(4), 1)
    images = generator(latents)
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    assert not torch.allclose(sequential_correction(generator, latents, scores_of(generator, 0, 1)), images)
    assert torch.equal(generator(latents), images)
    assert all(torch.equal(tensor, before[name]) for name, tensor in generator.state_dict().items())


def test_a_correction_that_hits_no_unit_is_an_error() -> None:
    with pytest.raises(InputError, match=r"no unit of layers \[0, 2\] has a score above 0"):
        unit_attenuation({0: torch.zeros(3), 2: -torch.ones(2)}, 0.2)
    assert set(unit_attenuation({0: torch.zeros(3), 2: torch.ones(2)}, 0.2)) == {0, 2}
    with pytest.raises(LayerError):
        sequential_correction(small_dcgan(), sample_latents(small_dcgan(), [0], 1), {9: torch.ones(3)})


@pytest.mark.parametrize(
    ("size", "lambda_", "in_shares"),
    [(0.0, 0.9, True), (1.5, 0.9, True), (0.5, 0.9, False), (2, 1.1, False), (2, -0.1, False), (-1, 0.5, False)],
)
def test_sizes_and_lambdas_out_of_range(size: float, lambda_: float, in_shares: bool) -> None:
    with pytest.raises(InputError, match="cannot be attenuated so"):
        unit_attenuation({0: SCORES}, size, lambda_, in_shares=in_shares)


def test_random_units_are_by_layer_and_seed(generator: Generator) -> None:
    scores = random_units(generator, [0, 1])
    assert {layer: one.shape for layer, one in scores.items()} == {0: (8,), 1: (6,)}
    assert all(((one > 0) & (one < 1)).all() for one in scores.values())
    assert torch.equal(random_units(generator, [1])[1], scores[1])
    assert not torch.equal(random_units(generator, [0], seed=1)[0], scores[0])
    assert not torch.equal(scores[0][:6], scores[1])


def test_own_low_rate_activity() -> None:
    generator = small_dcgan()
    rates = activation_rates(generator, [0, 1], 300)
    latents = sample_latents(generator, range(70), 1)
    scores = own_low_rate_activity(generator, latents, rates, 0.3, (0, 1))
    state = generator.run(generator.start(latents), 1)
    active = (state.activation > 0) & rates.low_rate(1, 0.3)
    torch.testing.assert_close(scores[1], active.double().mean(dim=(2, 3)), rtol=0.0, atol=1e-6)
    assert scores[0].shape == (70, 8)
    other = own_low_rate_activity(generator, latents, rates, 0.1, (0, 1))
    assert (other[1] <= scores[1]).all()
    assert not torch.equal(other[1], scores[1])


def test_own_local_activation() -> None:
    generator = small_dcgan()
    latents = sample_latents(generator, range(3), 1)
    scores = own_local_activation(generator, latents, (0, 1))
    exact = local_activation(generator, latents, [0, 1])
    torch.testing.assert_close(scores, exact.unit_score)
