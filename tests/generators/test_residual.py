"""Building blocks of the residual families against their definitions, and what the chain promises of an edit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qualitygate.generators.base import Generator, State
from qualitygate.generators.convolutions import nearest_then_3x3
from qualitygate.generators.families.biggan import BigGAN
from qualitygate.generators.families.biggan_deep import BigGANDeep
from qualitygate.generators.residual import SelfAttention, UpsamplingConv, operations
from qualitygate.latents import Latents, Sampling


def biggan(block_latent: str = "chunk") -> BigGAN:
    return randomised(BigGAN(12, 3, 5, [16, 16, 8], [0], block_latent))  # type: ignore[arg-type]


def biggan_deep() -> BigGANDeep:
    return randomised(BigGANDeep(6, 3, 5, [32, 32, 16], [False, True], [0], statistics=5))


def randomised(generator: Generator) -> Generator:
    torch.manual_seed(0)
    for parameter in generator.parameters():
        nn.init.normal_(parameter, std=0.3)
    return generator.eval().requires_grad_(False)


def latents(generator: Generator, count: int = 3, **sampling: float) -> Latents:
    torch.manual_seed(1)
    z = torch.randn(count, generator.latent_size)
    return Latents(np.arange(count), None, z, torch.arange(count) % generator.label_size, Sampling(**sampling))


@pytest.mark.parametrize("size", [2, 5, 8])
def test_upsampling_convolution_is_nearest_then_3x3(size: int) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 6, size, size), torch.randn(7, 6, 3, 3), torch.randn(7)
    conv = UpsamplingConv(6, 7)
    conv.load_state_dict({"weight": nearest_then_3x3(weight), "bias": bias})
    expected = F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, bias, padding=1)
    assert torch.allclose(conv(x), expected, atol=1e-5)
    assert operations(conv, size) == 2 * 6 * 7 * 4 * (2 * size) ** 2


def test_attention_is_softmax_of_products_with_a_half_size_map() -> None:
    torch.manual_seed(0)
    attention, x = SelfAttention(16), torch.randn(2, 16, 4, 4)
    query = attention.query(x).reshape(2, 2, 16)
    key = F.max_pool2d(attention.key(x), 2).reshape(2, 2, 4)
    value = F.max_pool2d(attention.value(x), 2).reshape(2, 8, 4)
    shares = torch.softmax(torch.einsum("ncq,nck->nqk", query, key), dim=2)
    read = torch.einsum("nqk,nck->ncq", shares, value).reshape(2, 8, 4, 4)
    assert torch.allclose(attention(x), x + attention.output(read), atol=1e-5)
    products = 16 * 4 * (2 + 8)
    assert attention.operations(4) == 2 * (16 * (2 + 2 + 8) * 16 + products + 8 * 16 * 16)


def test_operations_of_biggan_by_hand() -> None:
    generator = biggan()
    norm = 2 * 2 * (5 + 4)  # gain and bias, from the embedded label and a chunk of 12 / 3
    expected = 2 * 3 * 5 + 2 * 4 * 16 * 16 + norm * 16
    assert generator.layers[0].operations == expected
    expected += 2 * 16 * 16 * 4 * 64 + norm * 16
    assert generator.layers[1].operations == expected
    expected += 2 * 16 * 16 * 9 * 64 + 2 * 16 * 16 * 16 + SelfAttention(16).operations(8) + norm * 16
    assert generator.layers[2].operations == expected


def test_an_edit_changes_the_branch_and_not_the_shortcut() -> None:
    generator = biggan()
    block = generator.blocks[0]
    state = generator.run(generator.start(latents(generator)), 1)
    edited = state.edited(torch.zeros_like(state.activation))
    shortcut = F.interpolate(block.shortcut(state.carry.shortcut), scale_factor=2.0)
    closed = block.close(edited.activation, edited.carry.shortcut)
    assert torch.allclose(closed, shortcut + block.last.bias[:, None, None], atol=1e-6)


@pytest.mark.parametrize("make", [biggan, biggan_deep])
def test_samples_of_a_state_are_apart_in_activation_and_carry(make: type[Generator]) -> None:
    generator = make()
    state = generator.run(generator.start(latents(generator, psi=0.6)), 2)
    kept = torch.tensor([2, 0])
    part = State(state.layer, state.activation[kept], type(state.carry)(*(tensor[kept] for tensor in state.carry)))
    # batches of another size may be summed in another order: equal to rounding, not to the bit
    assert torch.allclose(generator.resume(part), generator.resume(state)[kept], atol=1e-4)


@pytest.mark.parametrize(("block_latent", "reaching"), [("chunk", [8, 8, 12, 12, 12]), ("none", [12] * 5)])
def test_axes_that_reach_a_layer(block_latent: str, reaching: list[int]) -> None:
    generator = biggan(block_latent)
    given = latents(generator)
    for layer, count in zip(generator.layers, reaching, strict=True):
        axes = generator.axes_reaching(layer.index)
        assert axes == range(count)
        beyond, last = given.z.clone(), given.z.clone()
        beyond[:, count:] += 1.0
        last[:, count - 1] += 1.0
        before, without, within = (
            generator.run(generator.start(replace(given, z=z)), layer.index).activation for z in (given.z, beyond, last)
        )
        assert torch.equal(before, without)
        assert not torch.equal(before, within)


def test_statistics_between_two_truncations_are_blended_with_the_weights_swapped() -> None:
    generator = biggan_deep()
    for name, buffer in generator.named_buffers():
        rows = torch.arange(1.0, 6.0)[:, None].expand_as(buffer)
        buffer.copy_(rows if name.endswith("mean") else torch.ones_like(rows))

    def mean(psi: float) -> float:
        carry = generator.start(latents(generator, psi=psi)).carry
        return float(generator.norms[0].statistics(carry)[0][0, 0])

    assert mean(0.5) == 3.0
    assert mean(1.0) == 5.0
    assert mean(0.25 + 0.05) == pytest.approx(0.2 * 2.0 + 0.8 * 3.0)
