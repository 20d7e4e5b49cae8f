"""The toys are what their docstring says."""

from __future__ import annotations

import math

import pytest
import torch

from qualitygate.errors import InputError, LatentsError
from qualitygate.latents import draw_latents
from qualitygate.testing import ToyGenerator, check_generator, random_toy


def test_one_neuron_by_hand() -> None:
    toy = ToyGenerator([[[3.0, 4.0]]], [[5.0]])
    z = torch.tensor([[1.0, -1.0], [-3.0, 0.0]])
    assert toy.run(toy.start(z), 0).activation.flatten().tolist() == [4.0, 0.0]
    assert toy(z).flatten().tolist() == pytest.approx([math.tanh(4.0), 0.0])
    assert ToyGenerator([[[3.0, 4.0]]], [[5.0]], slope=0.25).run(toy.start(z), 0).activation.flatten().tolist() == [4, -1]
    assert toy.operations == 2 * 2 + 1


def test_neurons_are_in_the_order_unit_row_column() -> None:
    toy = ToyGenerator([torch.zeros(12, 1)], [torch.arange(12.0)], [(2, 3, 2)])
    activation = toy.run(toy.start(torch.zeros(1, 1)), 0).activation
    assert activation[0, 1, 2, 0] == 10.0
    assert toy(torch.zeros(1, 1)).shape == (1, 1, 3, 2)


def test_probabilities_of_activity() -> None:
    toy = ToyGenerator([[[3.0, 4.0], [0.0, 1.0], [0.0, 0.0]]], [[5.0, 0.0, -1.0]])
    assert toy.activation_probability().flatten().tolist() == pytest.approx([0.5 * (1 + math.erf(0.5**0.5)), 0.5, 0.0])
    conditional = ToyGenerator([[[1.0, 1.0, -1.0]]], [[0.0]], label_size=2)
    assert float(conditional.activation_probability()) == pytest.approx(0.5)


def test_labels_shift_the_first_layer() -> None:
    toy = ToyGenerator([[[1.0, 10.0, 20.0]]], [[0.0]], label_size=2)
    latents = draw_latents(range(4), 0, 1, label_size=2)
    activation = toy.run(toy.start(latents), 0).activation.flatten()
    torch.testing.assert_close(activation, latents.z[:, 0] + 10.0 * (1 + latents.labels))
    with pytest.raises(LatentsError, match="conditional"):
        toy(latents.z)
    for label in (2, -1):
        latents.labels[1] = label
        with pytest.raises(LatentsError, match=r"A label is of no class\n  found: .*\n  needed: \[0, 2\)"):
            toy(latents)


@pytest.mark.parametrize(
    ("weights", "biases", "shapes"),
    [
        ([], [], None),
        ([torch.zeros(2, 3), torch.zeros(1, 3)], [torch.zeros(2), torch.zeros(1)], None),
        ([torch.zeros(2, 3)], [torch.zeros(2)], [(3, 1, 1)]),
        ([torch.zeros(2, 3)], [torch.zeros(2), torch.zeros(2)], None),
    ],
)
def test_what_does_not_fit_together(weights: list, biases: list, shapes: list | None) -> None:
    with pytest.raises(InputError, match="do not fit together"):
        ToyGenerator(weights, biases, shapes)


def test_random_toys_keep_the_contract_and_their_arguments_matter() -> None:
    shapes = [(3, 2, 2), (2, 4, 4)]
    toy = random_toy(3, shapes)
    check_generator(toy)
    check_generator(random_toy(3, shapes, slope=0.1, label_size=2))
    z = draw_latents(range(3), 1, 3).z
    for other in (random_toy(3, shapes, slope=0.2), random_toy(3, shapes, shift=0.3), random_toy(3, shapes, seed=1)):
        assert not torch.allclose(other(z), toy(z))
    assert torch.equal(random_toy(3, shapes)(z), toy(z))
