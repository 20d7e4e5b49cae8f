"""What is read off the tensors of BigGAN, BigGAN-deep and U-Net GAN, and what is refused. The numbers are in tests/reference."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from reference.vectors import TOLERANCE, Vectors, load
from torch import Tensor

from qualitygate.checkpoints.contents import Contents, TensorGroup
from qualitygate.checkpoints.layouts.reading import spectrally_normalised
from qualitygate.checkpoints.load import Checkpoint, assemble_contents
from qualitygate.errors import CheckpointError, LatentsError
from qualitygate.generators.base import Generator
from qualitygate.generators.families.biggan import UNetDiscriminator
from qualitygate.latents import Latents, Sampling


def loaded(tensors: Mapping[str, Tensor], settings: Mapping[str, Any] | None = None, **others: Any) -> Checkpoint:
    return assemble_contents(Contents("test", {"G_ema": TensorGroup("", tensors, settings or {}), **others}), "file")


def latents(vectors: Vectors, **sampling: Any) -> Latents:
    z, c = vectors.tensors["input/z"], vectors.tensors.get("input/c")
    labels = c.long() if c is not None and c.ndim == 1 else c
    return Latents(np.arange(len(z)), None, z, labels, Sampling(**sampling))


def assert_agrees(ours: Tensor, recorded: Tensor) -> None:
    assert ours.shape == recorded.shape
    assert float((ours - recorded).abs().max() / recorded.std()) <= TOLERANCE


def image(generator: Generator, of: Vectors, **sampling: Any) -> Tensor:
    return generator(latents(of, **sampling))


@pytest.mark.parametrize(
    ("file", "units", "attention", "block_latent"),
    [
        ("biggan_r32_mybn", [16, 16, 16, 16], [1], "chunk"),
        ("biggan_r64", [32, 32, 16, 8, 4], [2], "chunk"),
        ("biggan_r32_ch8_nohier", [32, 32, 32, 32], [], "none"),
    ],
)
def test_settings_of_biggan(file: str, units: list[int], attention: list[int], block_latent: str) -> None:
    vectors = load(file)
    recorded = vectors.settings()
    generator = loaded(vectors.under("state_dict/")).generator
    assert generator.settings == {
        "latent_size": recorded["dim_z"],
        "label_size": recorded["n_classes"],
        "label_features": recorded["shared_dim"],
        "units": units,
        "attention": attention,
        "block_latent": block_latent,
        "hidden": 0,
        "bottom_width": recorded["bottom_width"],
        "image_channels": 3,
    }
    assert generator.image_shape == (3, recorded["resolution"], recorded["resolution"])


def test_layers_and_presets_of_biggan() -> None:
    generator = loaded(load("biggan_r32_mybn").under("state_dict/")).generator
    assert [(layer.name, layer.resolution) for layer in generator.layers] == [
        ("block0.relu1", "4x4"),
        ("block0.relu2", "8x8"),
        ("block1.relu1", "8x8"),
        ("block1.relu2", "16x16"),
        ("block2.relu1", "16x16"),
        ("block2.relu2", "32x32"),
        ("output.relu", "32x32"),
    ]
    presets = generator.presets
    assert (presets.low_rate, presets.curvature, presets.stop) == ((0, 1, 3), (2,), 4)


def test_settings_of_biggan_deep() -> None:
    vectors = load("hf_biggan_deep_r32")
    generator = loaded(vectors.under("state_dict/"), vectors.settings()).generator
    assert generator.settings == {
        "latent_size": 16,
        "label_size": 5,
        "label_features": 16,
        "units": [128, 128, 64, 64, 32, 32, 16, 8],
        "doubles": [False, True, False, True, False, True, False],
        "attention": [5],
        "statistics": 51,
        "image_channels": 3,
    }
    by_name = {layer.name: layer.index for layer in generator.layers}
    presets = generator.presets
    assert presets.low_rate == (by_name["block0.relu1"], by_name["block1.relu3"], by_name["block3.relu3"])
    assert presets.curvature == (by_name["block3.relu2"],)
    assert presets.stop == by_name["block5.relu2"]


def test_settings_of_unet_gan() -> None:
    vectors = load("unetgan_uncond_r128")
    found = loaded(vectors.under("state_dict/"), D=vectors.under("disc/state_dict/"))
    settings = found.generator.settings
    assert (settings["block_latent"], settings["hidden"], settings["label_size"]) == ("whole", 24, 0)
    assert found.discriminator is not None
    assert found.discriminator.image_shape == found.generator.image_shape == (3, 128, 128)
    assert found.discriminator.settings["encoder"] == [2, 4, 8, 16, 32]
    assert "linear.weight" in found.ignored


def test_batch_norms_that_were_synchronised_have_other_names() -> None:
    vectors = load("biggan_r64")
    tensors = {name.replace(".stored_", ".bn.running_"): value for name, value in vectors.under("state_dict/").items()}
    tensors["output_layer.0.bn.num_batches_tracked"] = torch.tensor(7)
    found = loaded(tensors)
    assert_agrees(image(found.generator, vectors), vectors.tensors["output/image"])
    assert "output_layer.0.bn.num_batches_tracked" in found.ignored


def test_weights_without_spectral_normalisation_are_taken_as_they_are() -> None:
    vectors = load("biggan_r64")
    stored = vectors.under("state_dict/")
    tensors = {name: value for name, value in stored.items() if not name.endswith((".u0", ".sv0"))}
    for name in stored:
        if name.endswith(".u0"):
            weight = name.removesuffix("u0") + "weight"
            tensors[weight] = spectrally_normalised(stored[weight], stored[name])
    assert_agrees(image(loaded(tensors).generator, vectors), vectors.tensors["output/image"])


def test_norms_may_have_a_table_by_class_in_place_of_a_shared_embedding() -> None:
    vectors = load("biggan_r32_ch8_nohier")
    tensors = vectors.under("state_dict/")
    shared = tensors.pop("shared.weight")
    for name in [name for name in tensors if name.endswith((".gain.u0", ".bias.u0"))]:
        weight = name.removesuffix("u0") + "weight"
        tensors[weight] = shared @ spectrally_normalised(tensors[weight], tensors.pop(name)).T
    generator = loaded(tensors).generator
    assert generator.settings["label_features"] == 0
    assert_agrees(image(generator, vectors), vectors.tensors["output/image"])


@pytest.mark.parametrize("change", ["missing", "shape", "dimensions"])
@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("biggan_r64", "blocks.2.0.conv2.weight"),
        ("biggan_r64", "blocks.2.0.bn1.stored_mean"),
        ("unetgan_uncond_r128", "blocks.1.0.bn1.gain.0.weight"),
        ("hf_biggan_deep_r32", "generator.layers.3.bn_2.scale.weight_u"),
    ],
)
def test_tensors_that_do_not_fit_are_named(file: str, name: str, change: str) -> None:
    tensors = load(file).under("state_dict/")
    if change == "missing":
        del tensors[name]
    elif change == "shape":
        tensors[name] = torch.cat((tensors[name], tensors[name]))
    else:
        tensors[name] = tensors[name][None]
    with pytest.raises(CheckpointError, match=re.escape(name)):
        loaded(tensors)


@pytest.mark.parametrize("file", ["biggan_r64", "unetgan_uncond_r128"])
@pytest.mark.parametrize("name", ["blocks.2.0.conv3.weight", "blocks.9.1.theta.weight"])
def test_tensors_that_nothing_reads_are_named(file: str, name: str) -> None:
    tensors = load(file).under("state_dict/")
    tensors[name] = torch.zeros(3, 3, 1, 1)
    with pytest.raises(CheckpointError, match=re.escape(name)):
        loaded(tensors)


def test_weights_that_are_not_finite_are_refused() -> None:
    tensors = load("biggan_r64").under("state_dict/")
    tensors["linear.bias"][3] = float("nan")
    with pytest.raises(CheckpointError, match="not finite"):
        loaded(tensors)


def test_without_a_config_every_second_block_doubles() -> None:
    vectors = load("hf_biggan_deep_r32")
    generator = loaded(vectors.under("state_dict/")).generator
    assert_agrees(image(generator, vectors, psi=0.4), vectors.tensors["output/image"])


@pytest.mark.parametrize("config", [{"layers": [[False, 16, 16]]}, {"layers": 7}, {"eps": "small"}])
def test_a_config_of_another_network_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        loaded(load("hf_biggan_deep_r32").under("state_dict/"), config)


def test_the_config_has_an_effect() -> None:
    vectors = load("hf_biggan_deep_r32")
    tensors, config = vectors.under("state_dict/"), vectors.settings()
    generator = loaded(tensors, {**config, "eps": 0.5}).generator
    assert not torch.allclose(image(generator, vectors, psi=0.4), vectors.tensors["output/image"], atol=1e-2)
    doubles = [[True, 16, 16], *config["layers"][1:]]
    assert loaded(tensors, {**config, "layers": doubles}).generator.image_shape == (3, 64, 64)


@pytest.mark.parametrize(("file", "halves"), [("biggan_r32_mybn", [1, 1, 0, 0]), ("biggan_r64", [1, 1, 1, 1, 0])])
def test_settings_of_the_projection_discriminator(file: str, halves: list[int]) -> None:
    vectors = load(file)
    discriminator = loaded(vectors.under("state_dict/"), D=vectors.under("disc/state_dict/")).discriminator
    assert discriminator is not None
    assert discriminator.settings["halves"] == [bool(down) for down in halves]
    assert discriminator.settings["resolution"] == vectors.settings("discriminator_kwargs")["resolution"]
    with pytest.raises(LatentsError, match="conditional"):
        discriminator(vectors.tensors["output/image"])


def test_attention_in_the_projection_discriminator() -> None:
    vectors = load("biggan_r32_mybn")
    tensors = vectors.under("disc/state_dict/")
    inputs = vectors.tensors["output/image"], vectors.tensors["input/c"].long()
    for gamma, same in ((0.0, True), (1.0, False)):
        attention = {
            "theta.weight": torch.ones(2, 16, 1, 1),
            "phi.weight": torch.ones(2, 16, 1, 1),
            "g.weight": torch.ones(8, 16, 1, 1),
            "o.weight": torch.ones(16, 8, 1, 1),
            "gamma": torch.tensor(gamma),
        }
        tensors.update({f"blocks.1.1.{name}": value for name, value in attention.items()})
        discriminator = loaded(vectors.under("state_dict/"), D=tensors).discriminator
        assert discriminator is not None
        assert discriminator.settings["attention"] == [1]
        close = torch.allclose(discriminator(*inputs), vectors.tensors["disc/output"].flatten(), rtol=1e-4)
        assert close == same


def test_the_unet_discriminator_values_the_image_by_its_encoder() -> None:
    vectors = load("unetgan_uncond_r128")
    discriminator = loaded(vectors.under("state_dict/"), D=vectors.under("disc/state_dict/")).discriminator
    assert isinstance(discriminator, UNetDiscriminator)
    images = vectors.tensors["output/image"]
    assert_agrees(discriminator(images), vectors.tensors["disc/output_middle"].flatten())
    assert_agrees(discriminator.pixels(images)[:, None], vectors.tensors["disc/output"])


def test_a_conditional_unet_discriminator_adds_the_class_to_both_values() -> None:
    """Embeddings that are multiples of the linear layer: of rank 1, so that their one singular value is their norm."""
    vectors = load("unetgan_uncond_r128")
    tensors = vectors.under("disc/state_dict/")
    images, labels = vectors.tensors["output/image"], torch.tensor([1, 0])
    shares = torch.tensor([[3.0], [4.0]])
    for embedding, linear in (("embed_middle", "linear_middle"), ("embed", "blocks.10")):
        tensors[f"{embedding}.weight"] = shares * tensors[f"{linear}.weight"].flatten()
        tensors[f"{embedding}.u0"] = torch.ones(1, 2)
        tensors[f"{embedding}.sv0"] = torch.ones(1)
    discriminator = loaded(vectors.under("state_dict/"), D=tensors).discriminator
    assert isinstance(discriminator, UNetDiscriminator)
    assert discriminator.label_size == 2
    # divided by 5·‖w‖, the classes are 0.6 and 0.8 of w/‖w‖; the middle's own w is divided by ‖w‖ too, the pixels' is not
    of_class = shares.flatten()[labels] / 5
    bias = tensors["linear_middle.bias"]
    plain = vectors.tensors["disc/output_middle"].flatten() - bias
    assert_agrees(discriminator(images, labels), plain * (1 + of_class) + bias)
    bias, norm = tensors["blocks.10.bias"], tensors["blocks.10.weight"].norm()
    plain = vectors.tensors["disc/output"][:, 0] - bias
    assert_agrees(discriminator.pixels(images, labels), plain * (1 + of_class / norm)[:, None, None] + bias)
    with pytest.raises(LatentsError, match="conditional"):
        discriminator(images)
