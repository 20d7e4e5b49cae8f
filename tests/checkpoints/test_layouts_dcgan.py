"""DCGAN state dicts: the plain network as PyTorch runs it is the truth."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from qualitygate.checkpoints.contents import Contents
from qualitygate.checkpoints.load import assemble_contents
from qualitygate.errors import CheckpointError


def plain_generator(latent: int, units: list[int], channels: int) -> nn.Sequential:
    modules: list[nn.Module] = []
    for index, (inputs, outputs) in enumerate(pairwise([latent, *units])):
        stride, padding = (1, 0) if index == 0 else (2, 1)
        modules += [nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return trained(nn.Sequential(*modules, nn.ConvTranspose2d(units[-1], channels, 4, 2, 1, bias=False), nn.Tanh()))


def plain_discriminator(units: list[int], channels: int) -> nn.Sequential:
    modules: list[nn.Module] = [nn.Conv2d(channels, units[0], 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
    for inputs, outputs in pairwise(units):
        modules += [nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)]
    return trained(nn.Sequential(*modules, nn.Conv2d(units[-1], 1, 4, bias=False)))


def trained(network: nn.Sequential) -> nn.Sequential:
    """Batch norms with statistics that are not the initial ones."""
    torch.manual_seed(0)
    for module in network:
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in ((module.running_mean, -1, 1), (module.running_var, 0.3, 2), (module.weight.data, 0.5, 2)):
                assert tensor is not None
                tensor.uniform_(low, high)
            module.bias.data.uniform_(-1, 1)
    return network.eval()


@pytest.mark.parametrize(("latent", "units", "channels"), [(100, [16, 8, 8, 4], 3), (7, [5], 1), (12, [16, 16, 8, 8, 4, 4], 3)])
def test_any_size_is_read_off_the_tensors(latent: int, units: list[int], channels: int) -> None:
    generator, discriminator = plain_generator(latent, units, channels), plain_discriminator(units[::-1], channels)
    tree = {"netG": generator.state_dict(), "netD": discriminator.state_dict()}
    loaded = assemble_contents(Contents("test", tree), "test")
    assert loaded.generator.settings == {"latent_size": latent, "units": units, "image_channels": channels}
    z = torch.randn(3, latent)
    image = generator(z[:, :, None, None])
    assert torch.allclose(loaded.generator(z), image, atol=1e-5)
    assert loaded.discriminator is not None
    assert torch.allclose(loaded.discriminator(image), discriminator(image).flatten(), atol=1e-4)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state},
        lambda state: {"model": state, "epoch": 3},
        lambda state: {"g_ema": state, "g": {name: tensor * 0 for name, tensor in state.items()}},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {f"module.module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"netG": {f"main.{name}": tensor for name, tensor in state.items()}},
        lambda state: dict(reversed(state.items())),
    ],
)
def test_wrappings(wrap: Any) -> None:
    network = plain_generator(6, [8, 4], 3)
    generator = assemble_contents(Contents("test", wrap(dict(network.state_dict()))), "test").generator
    z = torch.randn(2, 6)
    assert torch.allclose(generator(z), network(z[:, :, None, None]), atol=1e-5)


def test_a_damaged_average_is_not_replaced_by_the_raw_generator() -> None:
    state = dict(plain_generator(6, [8, 4], 3).state_dict())
    damaged = {name: tensor for name, tensor in state.items() if name != "3.weight"}
    with pytest.raises(CheckpointError, match="DCGAN"):
        assemble_contents(Contents("test", {"g_ema": damaged, "g": state}), "test")


@pytest.mark.parametrize(
    ("name", "shape", "word"),
    [("0.weight", (6, 8, 3, 3), "4×4"), ("3.weight", (9, 4, 4, 4), "do not meet"), ("1.bias", (7,), "batch norm")],
)
def test_what_does_not_fit_is_said(name: str, shape: tuple[int, ...], word: str) -> None:
    state = dict(plain_generator(6, [8, 4], 3).state_dict())
    state[name] = torch.zeros(shape)
    with pytest.raises(CheckpointError, match=word):
        assemble_contents(Contents("test", state), "test")
