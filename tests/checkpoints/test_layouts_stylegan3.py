"""What is read off a StyleGAN3's tensors, what off its stored arguments, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from reference.vectors import load
from torch import Tensor

from qualitygate.checkpoints.contents import Contents, TensorGroup
from qualitygate.checkpoints.load import assemble_contents
from qualitygate.errors import CheckpointError
from qualitygate.generators.base import Generator


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return load("nvlabs_stylegan3_t_r32").under("state_dict/")


def built(tensors: dict[str, Tensor], *arguments: Any, **named: Any) -> Generator:
    settings = {"init_args": list(arguments), "init_kwargs": named}
    return assemble_contents(Contents("test", {"G_ema": TensorGroup("", tensors, settings, "Generator")}), "file").generator


def test_a_bare_state_dict_is_enough(tensors: dict[str, Tensor]) -> None:
    generator = assemble_contents(Contents("test", tensors), "file").generator
    assert generator.family == "stylegan3"
    settings = {name: value for name, value in generator.settings.items() if name != "layers"}
    assert settings == {
        "latent_size": 32,
        "mapping": [32, 32],
        "label_size": 0,
        "label_features": 0,
        "units": 8,
        "sampling_rate": 16,
        "bandwidth": 2.0,
        "image_channels": 3,
        "clamp": 256.0,
        "output_scale": 0.25,
    }
    layers = generator.settings["layers"]
    taps = {"up": 4, "down": 2, "up_taps": 24, "down_taps": 12, "radial": False}
    assert layers[3] == {"units": 8, "size": 52, "kernel": 3, **taps}
    assert [layer["size"] for layer in layers] == [36, 36, 36, 52, 52, 52, 52, 32]


def test_the_order_of_the_file_means_nothing(tensors: dict[str, Tensor]) -> None:
    backwards = {name: tensors[name] for name in reversed(tensors)}
    z = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(built(backwards)(z), built(tensors)(z))


def test_what_no_tensor_shows_comes_from_the_arguments(tensors: dict[str, Tensor]) -> None:
    generator = built(tensors, first_cutoff=1.5, output_scale=0.5, conv_clamp=None)
    assert (generator.settings["bandwidth"], generator.settings["output_scale"], generator.settings["clamp"]) == (1.5, 0.5, None)
    half_as_many = built(tensors, filter_size=3).settings["layers"][0]
    assert (half_as_many["up"], half_as_many["down"]) == (4, 4)


@pytest.mark.parametrize("positional", [True, False])
def test_the_learning_rate_of_the_mapping(tensors: dict[str, Tensor], positional: bool) -> None:
    inner = {"num_layers": 2, "lr_multiplier": 0.02}
    generator = built(tensors, 32, 0, 32, 32, 3, inner) if positional else built(tensors, mapping_kwargs=inner)
    usual = built(tensors)
    for ours, expected in zip(generator.mapping.layers, usual.mapping.layers, strict=True):
        torch.testing.assert_close(ours.weight, 2.0 * expected.weight)
        torch.testing.assert_close(ours.bias, 2.0 * expected.bias)
    torch.testing.assert_close(generator.input.affine.weight, usual.input.affine.weight)


def test_weights_are_held_normalised(tensors: dict[str, Tensor]) -> None:
    for convolution in built(tensors).convolutions:
        squares = convolution.weight.square().mean(dim=(1, 2, 3))
        np.testing.assert_allclose(squares, 1.0, rtol=1e-5)


def renamed(tensors: dict[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    return {name.replace(old, new): tensor for name, tensor in tensors.items()}


def test_what_does_not_fit_is_refused_with_its_name(tensors: dict[str, Tensor]) -> None:
    for changed, reason in [
        (renamed(tensors, "L3_52_8", "L3_84_8"), "sampling rate 32 in a layer of size 84"),
        (renamed(tensors, "L3_52_8", "L30_52_8"), "not a chain from L0 on"),
        (tensors | {"synthesis.L0_36_8.noise": torch.zeros(36, 36)}, "nothing reads synthesis.L0_36_8.noise"),
        ({name: tensor for name, tensor in tensors.items() if name != "mapping.w_avg"}, "no tensor mapping.w_avg"),
        (renamed(tensors, "mapping.fc0", "mapping.dense0"), r"no tensor named like mapping\\.fc0"),
    ]:
        with pytest.raises(CheckpointError, match=reason):
            built(changed)
    for arguments, reason in [({"filter_size": 5}, "12 and 12 taps"), ({"conv_clamp": "wide"}, "'wide'")]:
        with pytest.raises(CheckpointError, match=reason):
            built(tensors, **arguments)


def test_units_that_the_name_does_not_have(tensors: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match=r"convolutions\.3\.weight is \(8, 8, 3, 3\), not \(9, 8, 3, 3\)"):
        built(renamed(tensors, "L3_52_8", "L3_52_9"))
