"""Family and settings that the user gives, where the file does not show them or would be taken for something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference.cases_pggan import genforce_tree, hub_tree
from reference.cases_stylegan2 import nvidia_tree
from reference.vectors import Vectors, assert_agrees, load
from torch import Tensor

from qualitygate.checkpoints.contents import Contents
from qualitygate.checkpoints.load import Checkpoint, assemble_contents, load_generator
from qualitygate.checkpoints.reader import read
from qualitygate.errors import CheckpointError, InputError
from qualitygate.latents import Latents

SKIP = "nvlabs_stylegan2_r32_skip"


def assembled(tree: Any, family: str | None = None, **settings: Any) -> Checkpoint:
    return assemble_contents(Contents("test", tree), "test.pt", family, settings)


def raw_image(loaded: Checkpoint, vectors: Vectors) -> Tensor:
    z = vectors.tensors["input/z"]
    generator = loaded.generator
    state = generator.start(Latents(np.arange(len(z)), None, z, vectors.tensors.get("input/c")))
    return generator.finish(generator.run(state, generator.layers[-1].index))


@pytest.mark.parametrize("stored", [None, 128.0])
def test_a_setting_that_is_given_goes_before_one_that_is_stored(stored: float | None) -> None:
    vectors = load(SKIP)
    tree = {"G_ema": vectors.under("state_dict/")} if stored is None else nvidia_tree(vectors, conv_clamp=stored)
    image = raw_image(assembled(tree, conv_clamp=0.5), vectors)
    assert_agrees(image, vectors.tensors["output/image_conv_clamp0.5"], "output/image_conv_clamp0.5")


def test_a_setting_that_the_source_nests() -> None:
    vectors = load(SKIP)
    plain = assembled(nvidia_tree(vectors)).generator
    given = assembled(nvidia_tree(vectors), lr_multiplier=0.02).generator
    torch.testing.assert_close(given.mapping.layers[0].weight, 2 * plain.mapping.layers[0].weight)


def test_the_level_of_detail_of_a_hub_file_without_its_config() -> None:
    vectors = load("fb_pgan_r32")
    tree = hub_tree(vectors)
    del tree["config"]
    image = raw_image(assembled(tree, alpha=0.3), vectors)
    assert_agrees(image, vectors.tensors["output/image_alpha0.3"], "output/image_alpha0.3")


def test_a_setting_of_the_discriminator() -> None:
    loaded = assembled(genforce_tree(load("genforce_pggan_r32")), minibatch_std_group_size=2)
    assert loaded.discriminator is not None
    assert loaded.discriminator.settings["group_size"] == 2


def test_a_tanh_that_no_tensor_shows() -> None:
    assert assembled(genforce_tree(load("genforce_pggan_r32")), final_tanh=True).generator.settings["final_tanh"] is True


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"conv_clmap": 1}, r"(?s)NVIDIA StyleGAN2 has no such setting.*conv_clmap.*conv_clamp, lr_multiplier"),
        ({"z_dim": 32}, "has no such setting"),
    ],
)
def test_settings_that_nothing_reads_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        assembled(nvidia_tree(load(SKIP)), **settings)


def test_a_file_that_shows_everything_takes_no_settings() -> None:
    with pytest.raises(InputError, match="all of its settings are seen in the file"):
        assembled({"g_ema": load("rosinality_stylegan2_r32").under("state_dict/")}, label_size=3)


@pytest.mark.parametrize(
    ("file", "settings"),
    [
        (SKIP, {"conv_clamp": "high"}),
        ("genforce_pggan_r32", {"label_size": "three"}),
        ("genforce_pggan_r32", {"label_size": [1]}),
        ("fb_pgan_r32", {"alpha": "half"}),
        ("hf_biggan_deep_r32", {"layers": [[1]]}),
    ],
)
def test_settings_of_the_wrong_kind_do_not_fit(file: str, settings: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="closest is"):
        assembled({"g_ema": load(file).under("state_dict/")}, **settings)


def test_only_layouts_of_the_given_family_are_tried() -> None:
    vectors = load(SKIP)
    assert assembled(nvidia_tree(vectors), "stylegan2").layout == "NVIDIA StyleGAN2"
    with pytest.raises(CheckpointError, match=r"(?s)closest is NVIDIA StyleGAN3.*one of NVIDIA StyleGAN3\n"):
        assembled(nvidia_tree(vectors), "stylegan3")


def test_a_family_that_there_is_not() -> None:
    with pytest.raises(InputError, match=r"(?s)no such family.*'stylegan4'.*biggan, .*stylegan3"):
        assembled(nvidia_tree(load(SKIP)), "stylegan4")


def test_given_settings_make_another_generator_of_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "ema.pt"
    torch.save({"G_ema": load(SKIP).under("state_dict/")}, path)
    plain, given = load_generator(path).identity(), load_generator(path, settings={"conv_clamp": 1}).identity()
    assert plain.sha256 != given.sha256
    assert given.name == 'ema.pt with {"conv_clamp": 1}'
    assert load_generator(path, settings={"conv_clamp": 1}).identity() == given


@pytest.mark.parametrize("replace", [False, True])
def test_a_file_that_changes_while_it_is_read_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replace: bool) -> None:
    """Its hash would be that of the next checkpoint, which is not the one that was read."""
    path, other = tmp_path / "ema.pt", tmp_path / "next.pt"
    tensors = load(SKIP).under("state_dict/")
    for file, tree in ((path, tensors), (other, {**tensors, "more": torch.zeros(1)})):
        torch.save({"G_ema": tree}, file)

    def late(source: Path) -> Contents:
        contents = read(source)
        if replace:
            other.replace(source)
        else:
            with source.open("ab") as file:
                file.write(b"more")
        return contents

    monkeypatch.setattr("qualitygate.checkpoints.load.read", late)
    with pytest.raises(CheckpointError, match=r"ema\.pt was written to while it was read"):
        load_generator(path)
