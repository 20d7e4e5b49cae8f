"""Contributions where the discriminator is linear, and against finite differences elsewhere."""

from __future__ import annotations

import pytest
import torch
from small import small_dcgan, small_pggan, small_stylegan2
from torch import Tensor

from qualitygate.errors import InputError
from qualitygate.generators.base import Discriminator, Generator, State, sample_latents
from qualitygate.testing.toys import ToyGenerator
from qualitygate.units.contribution import contributions


class Weighted(Discriminator):
    """A weighted sum of the pixels."""

    family = "weighted"

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.image_shape = generator.image_shape
        self.weight = torch.nn.Parameter(torch.randn(self.image_shape, generator=torch.Generator().manual_seed(1)))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return (images * self.weight).sum(dim=(1, 2, 3))


class Linear(ToyGenerator):
    """A toy whose image is the plain sum of the last layer's units."""

    def finish(self, state: State) -> Tensor:
        return state.activation.sum(dim=1, keepdim=True)


def test_by_hand() -> None:
    """Both units draw the one pixel; the second layer turns the first unit's sign."""
    toy = Linear([[[1.0], [2.0]], [[-1.0, 0.0], [0.0, 1.0]]], [[0.0, 0.0], [10.0, 0.0]])
    judge = Weighted(toy)
    judge.weight.data.fill_(3.0)
    latents = sample_latents(toy, range(5), 0)
    found = contributions(toy, judge, latents)
    fires = latents.z[:, 0].clamp(min=0.0)
    torch.testing.assert_close(found.parts[0], torch.stack((-3.0 * fires, 6.0 * fires), dim=1))
    torch.testing.assert_close(found.parts[1], torch.stack((3.0 * (10.0 - fires), 6.0 * fires), dim=1))
    torch.testing.assert_close(found.value.float(), 3.0 * (10.0 + fires))
    assert found.mean.source == "negative_contribution"
    assert found.mean.of(0)[0] > 0 > found.mean.of(0)[1]  # the first unit lowers the value


@pytest.mark.parametrize("make", [small_dcgan, small_pggan, small_stylegan2])
def test_is_the_derivative_along_the_units_own_activation(make) -> None:
    generator = make()
    judge, latents = Weighted(generator), sample_latents(generator, range(3), 0)
    found = contributions(generator, judge, latents, [1])
    step = 2e-3

    def value(factor: float) -> Tensor:
        def scale(activation: Tensor) -> Tensor:
            scaled = activation.clone()
            scaled[:, 2] *= factor
            return scaled

        with torch.no_grad():
            last = generator.layers[-1].index
            state = generator.run(generator.start(latents), last, {1: scale})
            return judge(generator.finish(state))

    slope = (value(1.0 + step) - value(1.0 - step)) / (2 * step)
    torch.testing.assert_close(found.parts[1][:, 2], slope, rtol=0.02, atol=0.05)


def test_the_generator_is_left_as_it_was() -> None:
    generator = small_dcgan()
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    contributions(generator, Weighted(generator), sample_latents(generator, range(2), 0), [0])
    assert all(torch.equal(tensor, before[name]) for name, tensor in generator.state_dict().items())
    assert all(parameter.grad is None for parameter in generator.parameters())


def test_a_discriminator_of_other_images() -> None:
    generator = small_dcgan()
    judge = Weighted(small_pggan())
    with pytest.raises(InputError, match="cannot judge"):
        contributions(generator, judge, sample_latents(generator, range(2), 0))
