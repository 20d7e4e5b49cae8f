"""What the layouts of StyleGAN2 read off tensors and settings, and what they refuse."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from reference.cases_stylegan2 import genforce_tree, nvidia_tree, rosinality_tree
from reference.vectors import Vectors, assert_agrees, load
from torch import Tensor

from qualitygate.checkpoints.contents import Contents, TensorGroup
from qualitygate.checkpoints.load import Checkpoint, assemble_contents
from qualitygate.errors import CheckpointError, LatentsError
from qualitygate.generators.base import Generator
from qualitygate.latents import Latents, Sampling


def assembled(tree: Any) -> Checkpoint:
    return assemble_contents(Contents("test", tree), "test.pt")


def latents_of(vectors: Vectors, **sampling: Any) -> Latents:
    z = vectors.tensors["input/z"]
    return Latents(np.arange(len(z)), None, z, vectors.tensors.get("input/c"), Sampling(**sampling))


def raw_image(generator: Generator, latents: Latents) -> Tensor:
    return generator.finish(generator.run(generator.start(latents), generator.layers[-1].index))


# settings


@pytest.mark.parametrize("name", ["skip", "resnet", "orig", "skip_cond"])
def test_a_bare_state_dict_tells_what_the_stored_arguments_tell(name: str) -> None:
    vectors = load(f"nvlabs_stylegan2_r32_{name}")
    bare = assembled({"G_ema": vectors.under("state_dict/"), "D": vectors.under("disc/state_dict/")})
    full = assembled(nvidia_tree(vectors))
    assert bare.generator.settings == full.generator.settings
    assert bare.discriminator is not None
    assert full.discriminator is not None
    assert bare.discriminator.settings == full.discriminator.settings
    stored = vectors.settings()
    assert full.generator.settings["architecture"] == stored.get("architecture", "skip")
    assert full.generator.latent_size == stored["z_dim"]
    assert full.generator.label_size == stored["c_dim"]
    assert len(full.generator.settings["mapping"]) == stored["mapping_kwargs"]["num_layers"]


def test_the_clamp_is_read_off_the_settings() -> None:
    vectors = load("nvlabs_stylegan2_r32_skip")
    generator = assembled(nvidia_tree(vectors, conv_clamp=0.5)).generator
    assert_agrees(raw_image(generator, latents_of(vectors)), vectors.tensors["output/image_conv_clamp0.5"], "output/image_conv_clamp0.5")


@pytest.mark.parametrize(("nested", "clamp"), [({"channel_base": 256}, None), ({"conv_clamp": 128}, 128)])
def test_the_first_torch_version_nests_the_arguments(nested: dict[str, Any], clamp: float | None) -> None:
    vectors = load("nvlabs_stylegan2_r32_skip")
    settings = {"init_args": [32, 0, 32, 32, 3, {"num_layers": 8}, nested], "init_kwargs": {}}
    group = TensorGroup("G_ema", vectors.under("state_dict/"), settings, "Generator")
    assert assembled(group).generator.settings["clamp"] == clamp


def test_the_learning_rate_of_the_mapping_is_read_off_the_settings() -> None:
    vectors = load("nvlabs_stylegan2_r32_orig")
    ours = assembled(nvidia_tree(vectors)).generator
    other = assembled(nvidia_tree(vectors, mapping_kwargs={"num_layers": 2, "lr_multiplier": 0.02})).generator
    torch.testing.assert_close(other.mapping.layers[0].weight, 2 * ours.mapping.layers[0].weight)
    torch.testing.assert_close(other.mapping.layers[0].bias, 2 * ours.mapping.layers[0].bias)


def test_the_group_of_the_deviation_is_read_off_the_settings() -> None:
    vectors = load("nvlabs_stylegan2_r32_skip")
    settings = {"init_args": [], "init_kwargs": {"epilogue_kwargs": {"mbstd_group_size": 2}}}
    tree = {"G_ema": vectors.under("state_dict/"), "D": TensorGroup("", vectors.under("disc/state_dict/"), settings, "Discriminator")}
    discriminator = assembled(tree).discriminator
    assert discriminator is not None
    assert discriminator.settings["group"] == 2


def test_the_averaged_generator_is_preferred() -> None:
    for name in ("genforce_stylegan2_r32_skip", "genforce_stylegan2_r32_origin_label"):
        vectors = load(name)
        assert assembled(genforce_tree(vectors)).group == "generator_smooth"
        raw = assembled({"generator": vectors.under("checkpoint/generator/")}).generator
        assert_agrees(
            raw_image(raw, latents_of(vectors)), vectors.tensors["checkpoint_generator_output/image"], "checkpoint_generator_output/image"
        )


# rosinality's training checkpoints


def test_a_training_checkpoint_works_without_truncation_and_refuses_it() -> None:
    vectors = load("rosinality_stylegan2_r32")
    tree = {**rosinality_tree(vectors), "g_optim": {"state": {}, "param_groups": [{"lr": 0.002}]}, "ada_aug_p": 0.0}
    del tree["latent_avg"]
    generator = assembled(tree).generator
    assert_agrees(raw_image(generator, latents_of(vectors)), vectors.tensors["output/image"], "output/image")
    with pytest.raises(LatentsError, match=r"(?s)Truncation by 0\.7 needs the mean w.*without it.*psi = 1"):
        generator(latents_of(vectors, psi=0.7))


# TensorFlow variables


def tensorflow_variables(vectors: Vectors, to_rgb: str = "{0}x{0}/ToRGB") -> dict[str, Tensor]:
    """The tensors of a torch network under the names, and in the form, of NVIDIA's TensorFlow code."""
    variables = {}
    for name, tensor in vectors.under("state_dict/").items():
        if name.endswith("resample_filter"):
            continue
        if name == "mapping.w_avg":
            variables["dlatent_avg"] = tensor
        elif name == "synthesis.b4.const":
            variables["4x4/Const/const"] = tensor[None]
        elif found := re.fullmatch(r"mapping\.(fc(\d+)|embed)\.(weight|bias)", name):
            module = "LabelEmbed" if found[1] == "embed" else f"Dense{found[2]}"
            variables[f"mapping/{module}/{found[3]}"] = tensor.T if found[3] == "weight" else tensor
        else:
            variables |= _tensorflow_layer(name, tensor, to_rgb)
    return variables


def _tensorflow_layer(name: str, tensor: Tensor, to_rgb: str) -> dict[str, Tensor]:
    size, part, attribute = re.fullmatch(r"synthesis\.b(\d+)\.(\w+)\.(.+)", name).groups()  # type: ignore[union-attr]
    block = int(size).bit_length() - 3
    modules = {"conv0": f"{size}x{size}/Conv0_up", "torgb": to_rgb.format(size), "skip": f"{size}x{size}/Skip"}
    module = modules.get(part, "4x4/Conv" if size == "4" else f"{size}x{size}/Conv1")
    if attribute == "weight":
        kernel = tensor.flip(2, 3) if part in ("conv0", "skip") else tensor
        return {f"{module}/weight": kernel.permute(2, 3, 1, 0)}
    if attribute == "affine.weight":
        return {f"{module}/mod_weight": tensor.T}
    if attribute == "affine.bias":
        return {f"{module}/mod_bias": tensor - 1}
    if attribute == "noise_const":
        return {f"noise{2 * block - (part == 'conv0')}": tensor[None, None]}
    return {f"{module}/{attribute}": tensor}


@pytest.mark.parametrize(
    ("name", "to_rgb"),
    [
        ("skip", "{0}x{0}/ToRGB"),
        ("resnet", "{0}x{0}/ToRGB"),
        ("orig", "{0}x{0}/ToRGB"),
        ("orig", "ToRGB_lod0"),
        ("skip_cond", "{0}x{0}/ToRGB"),
    ],
)
def test_tensorflow_variables(name: str, to_rgb: str) -> None:
    vectors = load(f"nvlabs_stylegan2_r32_{name}")
    variables = {"lod": torch.zeros(()), **tensorflow_variables(vectors, to_rgb)}
    gs = TensorGroup("", variables, {"mapping_lrmul": 0.01, "resample_kernel": [1, 3, 3, 1]}, "G_main")
    loaded = assembled([TensorGroup("", {"lod": torch.zeros(())}), TensorGroup("", {"lod": torch.zeros(())}), gs])
    assert loaded.layout == "NVIDIA StyleGAN2 (TensorFlow)"
    assert loaded.ignored[:1] == ("lod",)
    assert_agrees(raw_image(loaded.generator, latents_of(vectors)), vectors.tensors["output/image"], "output/image")
    truncated = raw_image(loaded.generator, latents_of(vectors, psi=0.7, cutoff=3))
    assert_agrees(truncated, vectors.tensors["output/image_psi0.7_cutoff3"], "output/image_psi0.7_cutoff3")


def test_tensorflow_labels_of_the_first_code_are_joined_before_they_are_normalised() -> None:
    vectors = load("nvlabs_stylegan2_r32_skip_cond")
    variables = tensorflow_variables(vectors)
    weight = variables.pop("mapping/LabelEmbed/weight")
    del variables["mapping/LabelEmbed/bias"]
    generator = assembled(TensorGroup("", {**variables, "mapping/LabelConcat/weight": weight})).generator
    assert generator.settings["normalisation"] == "joint"
    assert generator.label_size == 3


# refusals


def test_a_missing_tensor_is_named() -> None:
    vectors = load("nvlabs_stylegan2_r32_skip")
    tensors = vectors.under("state_dict/")
    del tensors["synthesis.b8.conv1.bias"]
    with pytest.raises(CheckpointError, match=r"closest is NVIDIA StyleGAN2, but no tensor synthesis\.b8\.conv1\.bias"):
        assembled(tensors)


def test_a_gap_in_the_chain_is_noticed() -> None:
    vectors = load("genforce_stylegan2_r32_skip")
    tensors = {name: t for name, t in vectors.under("state_dict/").items() if not name.startswith("synthesis.layer3.")}
    with pytest.raises(CheckpointError, match=r"nothing reads synthesis\.layer4"):
        assembled(tensors)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("synthesis.b8.conv1.weight", (32, 16, 3, 3), r"synthesis\.2\.weight is \(32, 16, 3, 3\), not \(32, 32, 3, 3\)"),
        ("synthesis.b8.conv1.weight", (32, 32), r"synthesis\.b8\.conv1\.weight \(32, 32\) does not have 4 dimensions"),
        ("mapping.w_avg", (31,), r"mapping\.average is \(31,\), not \(32,\)"),
        ("synthesis.b8.conv1.noise_const", (4, 4), r"synthesis\.2\.noise is \(4, 4\), not \(8, 8\)"),
    ],
)
def test_a_tensor_of_the_wrong_shape_is_named(name: str, shape: tuple[int, ...], message: str) -> None:
    vectors = load("nvlabs_stylegan2_r32_skip")
    with pytest.raises(CheckpointError, match=message):
        assembled({**vectors.under("state_dict/"), name: torch.zeros(shape)})


def test_another_filter_is_refused() -> None:
    vectors = load("nvlabs_stylegan2_r32_skip")
    tensors = {**vectors.under("state_dict/"), "synthesis.b8.conv0.resample_filter": torch.full((4, 4), 1 / 16)}
    with pytest.raises(CheckpointError, match=r"resample_filter is not \[1, 3, 3, 1\]"):
        assembled(tensors)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"activation": "relu"}, "layers with 'relu', not with LeakyReLU"),
        ({"conv_clamp": "high"}, "conv_clamp is 'high', not a positive number"),
    ],
)
def test_settings_that_we_do_not_have_are_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        assembled(nvidia_tree(load("nvlabs_stylegan2_r32_skip"), **setting))


@pytest.mark.parametrize("setting", [{"nonlinearity": "relu"}, {"normalize_latents": False}, {"resample_kernel": [1, 2, 1]}])
def test_tensorflow_settings_that_we_do_not_have_are_refused(setting: dict[str, Any]) -> None:
    variables = tensorflow_variables(load("nvlabs_stylegan2_r32_orig"))
    with pytest.raises(CheckpointError, match=f"{next(iter(setting))} is "):
        assembled(TensorGroup("", variables, setting))
