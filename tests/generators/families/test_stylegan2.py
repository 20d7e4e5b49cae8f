"""StyleGAN2 as a chain: what an edit reaches, which latents it takes, and what it needs autograd for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from qualitygate.errors import LatentsError
from qualitygate.generators.families.stylegan2 import StyleGAN2, StyleGAN2Discriminator
from qualitygate.generators.network import minibatch_deviation
from qualitygate.latents import Latents, Sampling


def randomised(module: torch.nn.Module, scale: float = 0.3) -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            tensor.normal_().mul_(scale)
    return module.eval().requires_grad_(False)


def small(architecture: str = "skip", **settings: Any) -> StyleGAN2:
    return randomised(StyleGAN2(5, [7, 6], [8, 6, 4], 3, architecture, **settings))  # type: ignore[arg-type]


def drawn(count: int = 3, seed: int = 0, **sampling: Any) -> Latents:
    z = torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))
    return Latents(np.arange(count), None, z, sampling=Sampling(**sampling))


def test_the_chain() -> None:
    generator = small()
    assert [(layer.units, layer.height) for layer in generator.layers] == [(8, 4), (6, 8), (6, 8), (4, 16), (4, 16)]
    assert generator.image_shape == (3, 16, 16)
    assert (generator.presets.low_rate, generator.presets.curvature, generator.presets.stop) == ((0, 1, 3), (2,), 4)


def test_presets_are_clipped_to_the_layers_there_are() -> None:
    presets = StyleGAN2(5, [6], [4], 3, "skip").presets
    assert (presets.low_rate, presets.curvature, presets.stop) == ((0,), (0,), 0)


def test_operations_by_hand() -> None:
    generator = small("orig")
    mapping = 2 * (5 * 7 + 7 * 6)
    first = 2 * (6 * 8 + 8 * 8 + 9 * 8 * 8 * 16)
    second = 2 * (6 * 8 + 8 * 6 + 9 * 8 * 6 * 16 + 8 * 6 * 64)
    assert [layer.operations for layer in generator.layers[:2]] == [mapping + first, mapping + first + second]
    assert generator.operations == generator.layers[-1].operations + 2 * (6 * 4 + 3 * 4 * 256)


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_a_sample_does_not_depend_on_its_batch(architecture: str) -> None:
    generator = small(architecture)
    latents = drawn(5)
    together = generator(latents)
    for start, stop in ((0, 1), (1, 3), (3, 5)):
        torch.testing.assert_close(generator(latents[start:stop]), together[start:stop])


def test_an_edit_reaches_to_rgb_and_the_next_layer() -> None:
    generator = small("skip")
    state = generator.run(generator.start(drawn()), 2)
    closed = generator.run(state.edited(torch.zeros_like(state.activation)), 3)
    bias = generator.to_rgb[1].bias.view(3, 1, 1)
    painted = closed.carry.image - generator.run(state, 3).carry.image
    assert painted.abs().max() > 0
    seen = generator.taps(drawn(), names=["rgb/1"])["rgb/1"]
    torch.testing.assert_close(painted, bias - seen)


def test_in_resnet_the_shortcut_passes_an_edit_by() -> None:
    generator = small("resnet")
    start = generator.start(drawn())
    kept = generator.run(start, 3).carry.shortcut
    by_block = [generator.run(start, 3, {index: torch.zeros_like}).carry.shortcut for index in (0, 1, 2)]
    assert all(not torch.allclose(shortcut, kept) for shortcut in by_block)
    assert torch.equal(generator.run(start, 2, {1: torch.zeros_like}).carry.shortcut, generator.run(start, 2).carry.shortcut)


def test_latents_in_w() -> None:
    generator = small()
    latents = drawn(psi=0.5)
    w = generator.taps(latents, names=["w"])["w"]
    given = Latents(latents.ids, None, w, sampling=latents.sampling, space="w")
    assert torch.equal(generator(given), generator(latents))
    with pytest.raises(LatentsError, match=r"w of shape \(3, 5\)"):
        generator(Latents(latents.ids, None, latents.z, space="w"))


@pytest.mark.parametrize("sampling", [{"psi": 0.5}, {"psi": 0.5, "cutoff": 2}, {"noise": "none"}])
def test_every_sampling_setting_has_an_effect(sampling: dict[str, Any]) -> None:
    generator = small()
    assert not torch.allclose(generator(drawn(**sampling)), generator(drawn()))


def test_no_truncation_leaves_w_as_it_is() -> None:
    generator = small()
    assert torch.equal(generator(drawn(psi=0.5, cutoff=0)), generator(drawn()))
    assert torch.equal(generator(drawn(psi=0.5, cutoff=9)), generator(drawn(psi=0.5)))


def test_the_two_orders_of_joining_the_label_differ() -> None:
    labels = torch.tensor([0, 1, 2])
    settings = {"label_size": 3, "label_features": 4}
    images = []
    for normalisation in ("apart", "joint"):
        generator = small(normalisation=normalisation, **settings)
        latents = drawn()
        images.append(generator(Latents(latents.ids, None, latents.z, labels)))
        with pytest.raises(LatentsError, match="latents without labels"):
            generator(latents)
    assert not torch.allclose(*images)


def test_the_clamp_bounds_activations() -> None:
    generator = small("resnet", clamp=0.1)
    for state in generator.states(generator.start(drawn())):
        bound = 0.1 * (0.5**0.5 if state.layer in (2, 4) else 1.0)
        assert state.activation.abs().max() <= bound * (1 + 1e-6)


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_gradients_flow_from_the_discriminator_to_an_activation(architecture: str) -> None:
    generator = small(architecture, clamp=256.0)
    discriminator = randomised(StyleGAN2Discriminator([4, 6, 8], 3, architecture))  # type: ignore[arg-type]
    state = generator.run(generator.start(drawn()), 1)
    activation = state.activation.clone().requires_grad_()
    discriminator(generator.resume(state.edited(activation))).sum().backward()
    assert activation.grad is not None
    assert activation.grad.abs().max() > 0


# discriminator


def _deviation_by_hand(x: Tensor, group: int) -> Tensor:
    groups = len(x) // group
    values = [x[i % groups :: groups].std(dim=0, correction=0).mean() for i in range(len(x))]
    return torch.stack(values)


@pytest.mark.parametrize(("samples", "group", "used"), [(8, 4, 4), (2, 4, 2), (6, 4, 3), (5, 4, 1), (6, None, 6)])
def test_deviation_over_the_minibatch(samples: int, group: int | None, used: int) -> None:
    x = torch.randn(samples, 6, 4, 4, generator=torch.Generator().manual_seed(1))
    ours = minibatch_deviation(x, group, 1)
    assert ours.shape == (samples, 1, 4, 4)
    torch.testing.assert_close(ours[:, 0, 1, 2], _deviation_by_hand(x, used), atol=2e-4, rtol=1e-4)
    split = minibatch_deviation(x, group, 2)
    torch.testing.assert_close(split[:, 1:], minibatch_deviation(x[:, 3:], group, 1))


def test_a_conditional_discriminator_needs_labels() -> None:
    discriminator = randomised(StyleGAN2Discriminator([4, 8], 3, "orig", label_size=3))
    images = torch.randn(4, 3, 8, 8)
    with pytest.raises(LatentsError, match="images without labels"):
        discriminator(images)
    classes = torch.tensor([0, 1, 2, 0])
    vectors = torch.nn.functional.one_hot(classes, 3).float()
    assert torch.equal(discriminator(images, classes), discriminator(images, vectors))


def test_styles_are_those_that_truncation_acts_on() -> None:
    generator, latents = small(), drawn(psi=0.7)
    w = generator.styles(latents.z)
    assert torch.equal(w, generator.taps(latents, names=["w"])["w"])
    points = Latents(latents.ids, None, w, sampling=latents.sampling, space="w")
    assert torch.equal(generator.styles(points), w)
    torch.testing.assert_close(generator(points), generator(latents))
