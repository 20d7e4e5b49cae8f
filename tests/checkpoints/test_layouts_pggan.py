"""PGGAN checkpoints beyond what the reference cases cover: level of detail, preference, TensorFlow names, refusals."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from reference.cases_pggan import genforce_tree, genforce_tree_with_settings, hub_tree
from reference.vectors import TOLERANCE, Vectors, load
from torch import Tensor

from qualitygate.checkpoints.contents import Contents, TensorGroup
from qualitygate.checkpoints.load import Checkpoint, assemble_contents
from qualitygate.errors import CheckpointError
from qualitygate.generators.families.pggan import PGGANDiscriminator
from qualitygate.latents import Latents

PLAIN, LABEL = "genforce_pggan_r32", "genforce_pggan_r32_fused_label"


def assemble(tree: Any) -> Checkpoint:
    return assemble_contents(Contents("test", tree), "test.pth")


def latents(vectors: Vectors) -> Latents:
    return Latents(np.arange(4), None, vectors.tensors["input/z"], vectors.tensors.get("input/c"))


def raw_image(loaded: Checkpoint, given: Latents) -> Tensor:
    """The image before it is clamped, as the originals return it."""
    generator = loaded.generator
    return generator.finish(generator.run(generator.start(given), generator.layers[-1].index))


def assert_close(ours: Tensor, recorded: Tensor) -> None:
    torch.testing.assert_close(ours, recorded, rtol=0.0, atol=TOLERANCE * recorded.std().item())


def with_lod(group: TensorGroup | Mapping[str, Tensor], lod: float) -> TensorGroup:
    if not isinstance(group, TensorGroup):
        group = TensorGroup("", group)
    return TensorGroup(group.path, {**group.tensors, "lod": torch.tensor(lod)}, group.settings)


@pytest.mark.parametrize("lod", [0.4, 1.0])
@pytest.mark.parametrize(("file", "tree"), [(PLAIN, genforce_tree), (LABEL, genforce_tree_with_settings)])
def test_genforce_level_of_detail(file: str, tree: Any, lod: float) -> None:
    vectors = load(file)
    networks = tree(vectors)
    loaded = assemble(networks | {"generator_smooth": with_lod(networks["generator_smooth"], lod)})
    image = raw_image(loaded, latents(vectors))
    assert_close(image, vectors.tensors[f"output/image_lod{lod}"])
    assert image.shape[1:] == loaded.generator.image_shape
    assert len(loaded.generator.layers) == (8 if lod < 1.0 else 6)


def test_hub_blending_is_read_off_the_config() -> None:
    vectors = load("fb_pgan_r32")
    tree = hub_tree(vectors)
    tree["config"] |= {"alpha": 0.3}
    loaded = assemble(tree)
    assert_close(raw_image(loaded, latents(vectors)), vectors.tensors["output/image_alpha0.3"])
    assert loaded.discriminator is not None
    assert loaded.discriminator.settings["lod"] == 0.3


@pytest.mark.parametrize("file", [PLAIN, LABEL])
def test_the_averaged_generator_is_preferred_and_the_other_one_taken_alone(file: str) -> None:
    vectors = load(file)
    tree = genforce_tree(vectors)
    assert assemble(tree).group == "generator_smooth"
    del tree["generator_smooth"]
    settings = {"final_tanh": vectors.settings().get("final_tanh", False)}
    loaded = assemble(tree | {"generator": TensorGroup("", tree["generator"], settings)})
    assert loaded.group == "generator"
    assert_close(raw_image(loaded, latents(vectors)), vectors.tensors["checkpoint_generator_output/image"])


def test_a_discriminator_that_predicts_classes_gives_the_value_before_them() -> None:
    vectors = load(LABEL)
    discriminator = assemble(genforce_tree_with_settings(vectors)).discriminator
    assert discriminator is not None
    image = vectors.tensors["output/image"]
    assert_close(discriminator(image), vectors.tensors["disc/output"][:, 0])
    for key, tensor in vectors.under("disc/activation/").items():
        name = f"activation/{key}"
        assert_close(discriminator.taps(image, names=[name])[name], tensor)


def test_what_one_genforce_network_does_not_show_its_neighbour_does() -> None:
    tree = genforce_tree(load(LABEL))
    loaded = assemble(tree)
    assert loaded.generator.label_size == 3
    assert loaded.generator.latent_size == 24
    assert loaded.discriminator is not None
    assert loaded.discriminator.settings["fused"] is True
    assert loaded.discriminator.settings["group_size"] == 16


def test_the_level_of_detail_of_the_discriminator_is_continuous() -> None:
    vectors = load(PLAIN)
    images = vectors.tensors["output/image"]

    def values(lod: float) -> Tensor:
        tree = genforce_tree(vectors)
        found = assemble(tree | {"discriminator": with_lod(tree["discriminator"], lod)}).discriminator
        assert found is not None
        assert found.image_shape == (3, 32, 32)
        return found(images)

    whole = [values(float(lod)) for lod in range(4)]
    for lod, (this, following) in enumerate(pairwise(whole)):
        assert not torch.allclose(this, following, atol=1e-3)
        torch.testing.assert_close(values(lod + 1e-6), this, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(values(lod + 1 - 1e-6), following, rtol=1e-4, atol=1e-4)


# TensorFlow


def tensorflow_generator(tensors: Mapping[str, Tensor], fused: bool) -> dict[str, Tensor]:
    """genforce tensors written as the variables of NVIDIA's generator."""
    dense = tensors["layer0.weight"].flip(2, 3).transpose(0, 1).flatten(1)
    variables = {"lod": tensors["lod"], "4x4/Dense/weight": dense, "4x4/Dense/bias": tensors["layer0.bias"]}
    up = "Conv0_up" if fused else "Conv0"
    for index in range(1, 8):
        size = 4 * 2 ** (index // 2)
        name = f"{size}x{size}/{'Conv' if index == 1 else 'Conv1' if index % 2 else up}"
        variables[f"{name}/weight"] = tensors[f"layer{index}.weight"].permute(2, 3, 1, 0)
        variables[f"{name}/bias"] = tensors[f"layer{index}.bias"]
    for index in range(4):
        variables[f"ToRGB_lod{3 - index}/weight"] = tensors[f"output{index}.weight"].permute(2, 3, 1, 0)
        variables[f"ToRGB_lod{3 - index}/bias"] = tensors[f"output{index}.bias"]
    return variables


def tensorflow_discriminator(tensors: Mapping[str, Tensor], fused: bool) -> dict[str, Tensor]:
    down = "Conv1_down" if fused else "Conv1"
    names = [f"{size}x{size}/{name}" for size in (32, 16, 8) for name in ("Conv0", down)]
    names += ["4x4/Conv", "4x4/Dense0", "4x4/Dense1"]
    sources = {name: f"layer{index}" for index, name in enumerate(names)}
    sources |= {f"FromRGB_lod{index}": f"input{index}" for index in range(4)}
    variables = {"lod": tensors["lod"]}
    for name, source in sources.items():
        weight = tensors[f"{source}.weight"]
        variables[f"{name}/weight"] = weight.permute(2, 3, 1, 0) if weight.ndim == 4 else weight.T
        variables[f"{name}/bias"] = tensors[f"{source}.bias"]
    return variables


def tensorflow_tree(vectors: Vectors, fused: bool, generator: dict[str, Any], discriminator: dict[str, Any]) -> Any:
    """As the pickles hold them: generator, discriminator, averaged generator."""
    raw = tensorflow_generator(vectors.under("checkpoint/generator/"), fused)
    averaged = tensorflow_generator(vectors.under("state_dict/"), fused)
    judge = tensorflow_discriminator(vectors.under("disc/state_dict/"), fused)
    return {
        "G": TensorGroup("G", raw, generator),
        "D": TensorGroup("D", judge, discriminator),
        "Gs": TensorGroup("Gs", averaged, generator),
    }


def test_tensorflow_variables() -> None:
    vectors = load(PLAIN)
    settings = {"resolution": 32, "fmap_base": 256, "fmap_max": 32, "label_size": 0, "fused_scale": False}
    loaded = assemble(tensorflow_tree(vectors, False, settings, {}))
    assert (loaded.layout, loaded.group) == ("NVIDIA TensorFlow PGGAN", "Gs")
    assert_close(raw_image(loaded, latents(vectors)), vectors.tensors["output/image"])
    assert loaded.discriminator is not None
    assert_close(loaded.discriminator(vectors.tensors["output/image"]), vectors.tensors["disc/output"][:, 0])


def test_tensorflow_variables_fused_with_labels() -> None:
    vectors = load(LABEL)
    loaded = assemble(tensorflow_tree(vectors, True, {"label_size": 3}, {"label_size": 3, "mbstd_group_size": 2}))
    # here the label joins before the only norm: a z that is normalised already makes that the same
    z = vectors.tensors["input/z"]
    normalised = z / z.square().mean(dim=1, keepdim=True).sqrt()
    given = Latents(np.arange(4), None, normalised, vectors.tensors["input/c"])
    assert_close(torch.tanh(raw_image(loaded, given)), vectors.tensors["output/image"])
    assert loaded.discriminator is not None
    assert_close(loaded.discriminator(vectors.tensors["output/image"]), vectors.tensors["disc/output"][:, 0])


def test_tensorflow_level_of_detail() -> None:
    vectors = load(PLAIN)
    tree = tensorflow_tree(vectors, True, {}, {})
    assert assemble({"Gs": with_lod(tree["Gs"], 2.5)}).generator.settings["lod"] == 2.5


# GAN Dissection


def test_old_names_of_gan_dissection() -> None:
    vectors = load("gandissect_proggan_r32")
    tensors: dict[str, Tensor] = {}
    for name, tensor in vectors.under("state_dict/").items():
        module, rest = name.split(".", 1)
        old = "output" if module.startswith("output") else f"features.{int(module.removeprefix('layer')) - 1}"
        tensors[f"{old}.{rest}"] = tensor
        tensors[f"{old}.wscale.scale"] = torch.tensor(1.0)
    loaded = assemble(tensors)
    assert loaded.layout == "GAN Dissection PGGAN"
    assert_close(raw_image(loaded, latents(vectors)), vectors.tensors["output/image"])


# refusals


def plain_tensors() -> dict[str, Tensor]:
    return load(PLAIN).under("state_dict/")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layer5.bias": None}, "no tensor layer5.bias"),
        ({"layer5.weight": None, "layer5.bias": None}, "nothing reads layer6.bias"),
        ({"layer6.weight": None, "layer6.bias": None}, "nothing reads layer7.bias"),
        ({"layer7.weight": None, "layer7.bias": None}, "7 layers, the last without its second"),
        ({"layer3.weight": torch.zeros(32, 32, 5, 5)}, "layer 3 is (32, 32, 5, 5), not a 3×3 convolution"),
        ({"layer3.weight": torch.zeros(32)}, "layer3.weight (32,) does not have 4 or 2 dimensions"),
        ({"layer0.weight": torch.zeros(512, 32)}, "not a 4×4 convolution"),
        ({"layer3.weight": torch.zeros(32, 0, 3, 3)}, "layer3.weight (32, 0, 3, 3) does not have 4 or 2 dimensions, and values"),
        ({"extra": torch.zeros(1)}, "nothing reads extra"),
        ({"lod": torch.tensor(3.5)}, "level of detail 3.5 with 4 resolutions"),
        ({"lod": torch.tensor(float("nan"))}, "level of detail nan"),
        ({"layer3.weight": torch.zeros(32, 31, 3, 3)}, "weight.3 is (32, 31, 3, 3), not (32, 32, 3, 3)"),
        ({"layer2.weight": torch.zeros(31, 32, 3, 3)}, "weight.2 is (4, 4, 32, 31), not (4, 4, 32, 32)"),
        ({"output3.weight": torch.zeros(3, 9, 1, 1)}, "rgb_weight.0 is (3, 9, 1, 1), not (3, 8, 1, 1)"),
        ({"layer4.bias": torch.full((16,), torch.nan)}, "16 of 16 values of bias.4"),
    ],
)
def test_genforce_tensors_that_do_not_fit(change: dict[str, Tensor | None], said: str) -> None:
    tensors = {name: tensor for name, tensor in (plain_tensors() | change).items() if tensor is not None}
    with pytest.raises(CheckpointError) as caught:
        assemble({"generator_smooth": tensors})
    assert said in str(caught.value)


@pytest.mark.parametrize(("setting", "value"), [("leakyReluLeak", 0.1), ("perChannelNormalization", False)])
def test_hub_settings_that_are_not_known(setting: str, value: Any) -> None:
    tree = hub_tree(load("fb_pgan_r32"))
    tree["config"] |= {setting: value}
    with pytest.raises(CheckpointError, match=f"{setting} = {value}"):
        assemble(tree)


def test_hub_loss_decides_on_the_tanh() -> None:
    tree = hub_tree(load("fb_pgan_r32"))
    tree["config"] |= {"lossCriterion": "MSE"}
    assert assemble(tree).generator.settings["final_tanh"] is True


def test_more_classes_than_inputs() -> None:
    with pytest.raises(CheckpointError, match="32 inputs, of which 32 would be classes"):
        assemble(tensorflow_tree(load(PLAIN), True, {"label_size": 32}, {}))


def test_tensorflow_settings_that_are_not_known() -> None:
    with pytest.raises(CheckpointError, match="use_pixelnorm = False"):
        assemble(tensorflow_tree(load(PLAIN), True, {"use_pixelnorm": False}, {}))


@pytest.mark.parametrize("index", [4, 8])
def test_a_damaged_discriminator_is_left_out(index: int) -> None:
    tree = genforce_tree(load(PLAIN))
    del tree["discriminator"][f"layer{index}.weight"], tree["discriminator"][f"layer{index}.bias"]
    loaded = assemble(tree)
    assert loaded.generator.label_size == 0
    assert loaded.discriminator is None
    assert "discriminator" in loaded.ignored


def test_groups_that_the_batch_is_no_multiple_of_become_the_whole_batch() -> None:
    vectors = load(PLAIN)
    found = assemble(genforce_tree(vectors)).discriminator
    assert found is not None
    pairs = PGGANDiscriminator(**{**found.settings, "group_size": 2})
    pairs.load_state_dict(found.state_dict())
    three = vectors.tensors["output/image"][:3]
    torch.testing.assert_close(pairs(three), found(three))
