"""The shapes that docstrings say are held while tests run: a wrong one is caught."""

from __future__ import annotations

import inspect
import re

import pytest
import shapes
import torch
from torch import Tensor

import qualitygate
from qualitygate.generators.base import Generator, State
from qualitygate.latents import Latents, Sampling
from qualitygate.scores.low_rate import ActivationRates, low_rate_counts
from qualitygate.testing import ToyGenerator, random_toy

PUBLIC = {name: one for name in qualitygate.__all__ if inspect.isfunction(one := getattr(qualitygate, name))}


class Narrow(ToyGenerator):
    def finish(self, state: State) -> Tensor:
        return super().finish(state)[..., :1]


class Widened(ToyGenerator):
    def advance(self, state: State) -> State:
        after = super().advance(state)
        return State(after.layer, after.activation.repeat(1, 1, 1, 2), after.carry)


def of(family: type[ToyGenerator]) -> tuple[ToyGenerator, Latents]:
    toy = random_toy(3, [(4, 2, 2)])
    return family(list(toy.weight), list(toy.bias), toy.shapes), qualitygate.sample_latents(toy, range(5), 0)


def test_an_image_of_another_shape_is_caught() -> None:
    generator, latents = of(Narrow)
    message = r"is \(5, 1, 2, 1\), not \(N, channels, height, width\) = \(5, 1, 2, 2\)"
    with pytest.raises(AssertionError, match=rf"Generator\.forward {message}"):
        generator(latents)
    with pytest.raises(AssertionError, match=r"Generator\.forward"):
        list(generator.image_batches(latents))


def test_an_activation_of_another_shape_is_caught() -> None:
    generator, latents = of(Widened)
    with pytest.raises(AssertionError, match=r"Generator\.activations of layer 0 is \(5, 4, 2, 4\), not .* = \(5, 4, 2, 2\)"):
        list(generator.activations(latents, [0]))


def test_what_comes_in_is_looked_at_too() -> None:
    generator, latents = random_toy(3, [(4, 2, 2), (2, 2, 2)]), of(ToyGenerator)[1]
    rates = ActivationRates({0: torch.zeros(4, 2, 2, dtype=torch.int64), 1: torch.zeros(2, 2, 1, dtype=torch.int64)}, 10, 0, Sampling())
    with pytest.raises(AssertionError, match=r"low_rate_counts: rates\.counts of layer 1 is \(2, 2, 1\), not .* = \(2, 2, 2\)"):
        low_rate_counts(generator, latents, rates, layers=[0])


def test_a_function_that_gives_another_shape_is_caught() -> None:
    def wrong(generator: Generator, latents: Latents) -> Tensor:
        return torch.zeros(len(latents) - 1, 1)

    with pytest.raises(AssertionError, match=r"wrong is \(4, 1\), not \(N, layers\) = \(5, 1\)"):
        shapes.checked(wrong, "N layers")(*of(ToyGenerator))


def test_every_public_function_of_tensors_is_held() -> None:
    tensors = {name for name, one in PUBLIC.items() if re.search("Latents|Tensor|ActivationRates", str(inspect.signature(one)))}
    assert {"low_rate_counts", "local_activation", "sequential_ablation", "gate"} <= tensors
    assert all(hasattr(getattr(qualitygate, name), "__wrapped__") for name in tensors)
