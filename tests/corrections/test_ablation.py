"""Ablation: what is set to 0, on what it is judged, and that nothing else changes."""

from __future__ import annotations

import pytest
import torch
from small import small_dcgan
from torch import Tensor

from qualitygate.corrections.ablation import ablate, high_rate_ablation, low_rate_ablation, random_ablation, sequential_ablation
from qualitygate.errors import InputError, LayerError, ProfileError
from qualitygate.generators.base import sample_latents
from qualitygate.generators.passes import MICRO_BATCH
from qualitygate.latents import Sampling, draw_latents
from qualitygate.scores.low_rate import ActivationRates, activation_rates
from qualitygate.testing import ToyGenerator


def rates_of(*counts: list[int], samples: int = 10) -> ActivationRates:
    """Rates of layers of neurons of 1×1."""
    by_layer = {layer: torch.tensor(one).view(-1, 1, 1) for layer, one in enumerate(counts)}
    return ActivationRates(by_layer, samples, 0, Sampling())


def test_only_positive_values_of_the_chosen_neurons_change() -> None:
    activation = torch.tensor([[3.0, 2.0, -0.5, 0.0], [-1.0, 1.0, 4.0, 5.0]]).view(2, 4, 1, 1)
    before = activation.clone()
    chosen = torch.tensor([True, False, True, True]).view(4, 1, 1)
    assert ablate(activation, chosen).flatten(1).tolist() == [[0.0, 2.0, -0.5, 0.0], [-1.0, 1.0, 0.0, 0.0]]
    own = torch.stack((chosen, ~chosen))
    assert ablate(activation, own).flatten(1).tolist() == [[0.0, 2.0, -0.5, 0.0], [-1.0, 0.0, 4.0, 5.0]]
    assert torch.equal(activation, before)


def test_low_and_high_rate_are_the_two_halves_of_those_that_fire() -> None:
    rates = rates_of([0, 1, 3, 4, 10])
    activation = torch.ones(1, 5, 1, 1)
    low = low_rate_ablation(rates, [0], 0.3, "cpu")[0](activation)
    high = high_rate_ablation(rates, [0], 0.3, "cpu")[0](activation)
    assert low.flatten().tolist() == [1.0, 0.0, 0.0, 1.0, 1.0]  # the one that never fired stays
    assert high.flatten().tolist() == [1.0, 1.0, 1.0, 0.0, 0.0]
    assert low_rate_ablation(rates, [0], 0.1, "cpu")[0](activation).flatten().tolist() == [1.0, 0.0, 1.0, 1.0, 1.0]


def inhibited() -> tuple[ToyGenerator, ActivationRates]:
    """Layer 0: one low-rate neuron, always 2. Layer 1: ``1 − h`` (low-rate, silenced by it) and ``h`` (high-rate)."""
    toy = ToyGenerator([[[0.0]], [[-1.0], [1.0]], [[1.0, 0.5]]], [[2.0], [1.0, 0.0], [0.0]])
    return toy, rates_of([1], [1, 9], [9])


def test_activity_is_judged_on_what_earlier_ablations_left() -> None:
    toy, rates = inhibited()
    latents = draw_latents(range(2), 0, 1)

    def layers(*edited: int) -> list[list[float]]:
        edits = low_rate_ablation(rates, edited, 0.3, "cpu")
        return [state.activation[0].flatten().tolist() for state in toy.states(toy.start(latents), edits=edits)]

    assert [state.activation[0].flatten().tolist() for state in toy.states(toy.start(latents))] == [[2.0], [0.0, 2.0], [1.0]]
    assert layers(1) == [[2.0], [0.0, 2.0], [1.0]]  # not active untouched, so single ablation of layer 1 changes nothing
    assert layers(0) == [[0.0], [1.0, 0.0], [1.0]]  # single ablation of layer 0 wakes it
    assert layers(0, 1) == [[0.0], [0.0, 0.0], [0.0]]  # and sequential ablation silences it then
    images = [sequential_ablation(toy, latents, rates, layers=chosen) for chosen in ([1], [0], [0, 1])]
    assert [float(image[1]) for image in images] == pytest.approx([0.7615941559557649, 0.7615941559557649, 0.0])


def test_sequential_ablation_is_the_naive_one() -> None:
    generator = small_dcgan()
    rates = activation_rates(generator, [0, 1, 2, 3], 300)
    latents = sample_latents(generator, range(MICRO_BATCH + 3), 1)

    def naive(rate: float, layers: tuple[int, ...]) -> Tensor:
        state = generator.start(latents)
        for layer in generator.layers:
            state = generator.advance(state)
            if layer.index in layers:
                neurons = (state.activation > 0) & rates.low_rate(layer.index, rate)
                state = state.edited(state.activation.masked_fill(neurons, 0.0))
        return generator.resume(state)

    ours = sequential_ablation(generator, latents, rates, 0.2, [0, 1, 3])
    torch.testing.assert_close(ours, naive(0.2, (0, 1, 3)), rtol=0.0, atol=1e-5)
    preset = sequential_ablation(generator, latents, rates)
    torch.testing.assert_close(preset, naive(0.3, (0, 1, 2)), rtol=0.0, atol=1e-5)
    assert not torch.allclose(ours, preset)
    assert not torch.allclose(ours, sequential_ablation(generator, latents, rates, 0.1, [0, 1, 3]))
    for size in (1, 2, 3):
        parts = [sequential_ablation(generator, latents[at : at + size], rates, 0.2, [0, 1, 3]) for at in range(0, 6, size)]
        torch.testing.assert_close(torch.cat(parts), ours[:6], rtol=0.0, atol=1e-5)


def test_the_generator_is_left_as_it_was() -> None:
    generator = small_dcgan()
    rates = activation_rates(generator, [0, 1, 2], 200)
    latents = sample_latents(generator, range(4), 1)
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    images = generator(latents)
    counts = {layer: tensor.clone() for layer, tensor in rates.counts.items()}
    assert not torch.allclose(sequential_ablation(generator, latents, rates), images)
    assert torch.equal(generator(latents), images)
    assert all(torch.equal(tensor, before[name]) for name, tensor in generator.state_dict().items())
    assert all(torch.equal(tensor, counts[layer]) for layer, tensor in rates.counts.items())


def test_an_ablation_that_hits_nothing_is_an_error() -> None:
    never, always = rates_of([0, 0], [4, 10]), rates_of([1, 2], [0, 3])
    with pytest.raises(InputError, match=r"layers \[0, 1\] have no low-rate neurons at R = 0.3"):
        low_rate_ablation(never, [0, 1], 0.3, "cpu")
    with pytest.raises(InputError, match=r"have no high-rate neurons at R = 0.3"):
        high_rate_ablation(always, [0, 1], 0.3, "cpu")
    toy, rates = inhibited()
    with pytest.raises(InputError, match="would change nothing"):
        sequential_ablation(toy, draw_latents([0], 0, 1), rates, layers=[2])
    with pytest.raises(LayerError):
        sequential_ablation(toy, draw_latents([0], 0, 1), rates, layers=[5])
    with pytest.raises(ProfileError, match="layer 1"):
        low_rate_ablation(rates_of([1]), [0, 1], 0.3, "cpu")
    assert set(low_rate_ablation(rates_of([0], [1]), [0, 1], 0.3, "cpu")) == {0, 1}  # one layer with some is enough


# random ablation


def test_random_ablation_takes_its_share_of_the_active() -> None:
    latents = draw_latents(range(30), 0, 1)
    activation = torch.randn(30, 20, 8, 8, generator=torch.Generator().manual_seed(0))
    for share, edits in ((0.3, random_ablation(latents, [2])), (0.6, random_ablation(latents, [2], share=0.6))):
        edited = edits[2](activation)
        active = activation > 0
        assert torch.equal(edited[~active], activation[~active])
        gone = (edited == 0) & active
        assert torch.equal(edited[active & ~gone], activation[active & ~gone])
        of_each = gone.sum(dim=(1, 2, 3)) / active.sum(dim=(1, 2, 3))
        assert ((of_each - share).abs() < 0.1).all()
        assert float(gone.sum() / active.sum()) == pytest.approx(share, abs=0.01)
    assert (random_ablation(latents, [0], share=1.0)[0](activation) <= 0).all()


def test_random_ablation_is_by_id_layer_and_seed() -> None:
    latents = draw_latents(range(8), 0, 1)
    activation = torch.ones(8, 5, 4, 4)
    whole = random_ablation(latents, [0, 1])
    edited = whole[0](activation)
    for rows in ([3], [5, 2], [7, 6, 5]):
        assert torch.equal(random_ablation(latents[rows], [0])[0](activation[: len(rows)]), edited[rows])
    assert len({one.numpy().tobytes() for one in edited}) == 8
    assert not torch.equal(whole[1](activation), edited)
    assert not torch.equal(random_ablation(latents, [0], seed=1)[0](activation), edited)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, float("nan")])
def test_shares_out_of_range(share: float) -> None:
    with pytest.raises(InputError, match="share of neurons is out of range"):
        random_ablation(draw_latents([0], 0, 1), [0], share)
