"""Files as people have them, written from the recorded networks, read by name alone: the images are the recorded ones."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference.cases_biggan import CASES as BIGGAN_CASES
from reference.cases_pggan import genforce_tree as genforce_pggan
from reference.cases_pggan import hub_tree
from reference.cases_stylegan2 import genforce_tree as genforce_stylegan2
from reference.cases_stylegan2 import rosinality_tree
from reference.vectors import Vectors, assert_agrees, load
from torch import Tensor

import qualitygate
from qualitygate.checkpoints.load import Checkpoint, load_checkpoint
from qualitygate.errors import CheckpointError
from qualitygate.latents import Latents, Sampling
from tests.checkpoints.nvidia_files import write_nvidia_pickle, write_tf_pickle
from tests.checkpoints.test_layouts_pggan import tensorflow_generator as pggan_variables
from tests.checkpoints.test_layouts_stylegan2 import tensorflow_variables as stylegan2_variables
from tests.cli.conftest import dcgan_state_dict

Write = Callable[[Path, Vectors], Path]


def saved(name: str, tree: Callable[[Vectors], Any]) -> Write:
    """Written by `torch.save`."""

    def write(folder: Path, vectors: Vectors) -> Path:
        torch.save(tree(vectors), folder / name)
        return folder / name

    return write


def training(vectors: Vectors) -> dict[str, Any]:
    """A training checkpoint: both networks, the average, both optimizers, the arguments of the command line."""
    generator = vectors.under("state_dict/")
    network = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.002)
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return {
        "g": {name: tensor * 0.5 for name, tensor in generator.items()},
        "d": vectors.under("disc/state_dict/"),
        "g_ema": generator,
        "g_optim": optimizer.state_dict(),
        "d_optim": optimizer.state_dict(),
        "args": argparse.Namespace(size=32, latent=32, n_mlp=8, mixing=0.9, path="data", ckpt=None),
        "ada_aug_p": 0.0,
    }


def nvidia(folder: Path, vectors: Vectors) -> Path:
    generator, judge = vectors.under("state_dict/"), vectors.under("disc/state_dict/")
    networks = {
        "G": ("Generator", vectors.settings(), {name: tensor * 0.5 for name, tensor in generator.items()}),
        "D": ("Discriminator", vectors.settings("discriminator_kwargs") if judge else {}, judge),
        "G_ema": ("Generator", vectors.settings(), generator),
    }
    return write_nvidia_pickle(folder / "network-snapshot-025000.pkl", networks)


def tensorflow(build: str, variables: Callable[[Vectors], Mapping[str, Tensor]]) -> Write:
    def write(folder: Path, vectors: Vectors) -> Path:
        averaged = variables(vectors)
        raw = {name: tensor * 0.5 for name, tensor in averaged.items()}
        judge = ("D_basic", {}, {"4x4/Dense1/weight": torch.zeros(1, 1)})
        return write_tf_pickle(folder / "karras-2019.pkl", {"G": (build, {}, raw), "D": judge, "Gs": (build, {}, averaged)})

    return write


def hugging_face(folder: Path, vectors: Vectors) -> Path:
    """A folder as `save_pretrained` leaves it."""
    place = folder / "biggan-deep"
    place.mkdir()
    (place / "config.json").write_text(json.dumps(vectors.settings()))
    torch.save(vectors.under("state_dict/"), place / "pytorch_model.bin")
    return place


def ours(folder: Path, vectors: Vectors) -> Path:
    first = load_checkpoint(nvidia(folder, vectors))
    path = folder / "converted.safetensors"
    qualitygate.save_generator(first.generator, path, discriminator=first.discriminator)
    return path


def data_parallel(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Every state dict as `DataParallel` gives it."""
    return {
        key: {f"module.{name}": tensor for name, tensor in value.items()} if isinstance(value, Mapping) else value
        for key, value in tree.items()
    }


def state_dict(vectors: Vectors) -> dict[str, Tensor]:
    return vectors.under("state_dict/")


SKIP = "nvlabs_stylegan2_r32_skip"
FILES: dict[str, tuple[str, Write, str]] = {
    "genforce PGGAN": ("genforce_pggan_r32", saved("pggan_celebahq1024.pth", genforce_pggan), "genforce PGGAN"),
    "genforce StyleGAN2": ("genforce_stylegan2_r32_skip", saved("stylegan2_ffhq1024.pth", genforce_stylegan2), "genforce StyleGAN2"),
    "GAN Dissection": ("gandissect_proggan_r32", saved("church.pth", lambda v: {"state_dict": state_dict(v)}), "GAN Dissection PGGAN"),
    "torch hub": ("fb_pgan_r32", saved("celebaHQ16_december_last.pth", hub_tree), "torch hub PGAN"),
    "rosinality, converted": ("rosinality_stylegan2_r32", saved("stylegan2-ffhq-config-f.pt", rosinality_tree), "rosinality StyleGAN2"),
    "rosinality, in training": ("rosinality_stylegan2_r32", saved("550000.pt", training), "rosinality StyleGAN2"),
    "rosinality, data parallel": (
        "rosinality_stylegan2_r32",
        saved("parallel.pt", lambda v: data_parallel(rosinality_tree(v))),
        "rosinality StyleGAN2",
    ),
    "NVIDIA StyleGAN2": (SKIP, nvidia, "NVIDIA StyleGAN2"),
    "NVIDIA StyleGAN2, classes": ("nvlabs_stylegan2_r32_skip_cond", nvidia, "NVIDIA StyleGAN2"),
    "NVIDIA StyleGAN2, residual": ("nvlabs_stylegan2_r32_resnet", nvidia, "NVIDIA StyleGAN2"),
    "NVIDIA StyleGAN3-T": ("nvlabs_stylegan3_t_r32", nvidia, "NVIDIA StyleGAN3"),
    "NVIDIA StyleGAN3-R": ("nvlabs_stylegan3_r_r32_cond", nvidia, "NVIDIA StyleGAN3"),
    "TensorFlow PGGAN": (
        "genforce_pggan_r32",
        tensorflow("G_paper", lambda v: pggan_variables(state_dict(v), False)),
        "NVIDIA TensorFlow PGGAN",
    ),
    "TensorFlow StyleGAN2": ("nvlabs_stylegan2_r32_orig", tensorflow("G_main", stylegan2_variables), "NVIDIA StyleGAN2 (TensorFlow)"),
    "BigGAN": ("biggan_r64", saved("G_ema_best0.pth", state_dict), "ajbrock BigGAN"),
    "U-Net GAN": ("unetgan_uncond_r128", saved("G_ema.pth", state_dict), "U-Net GAN"),
    "Hugging Face": ("hf_biggan_deep_r32", hugging_face, "Hugging Face BigGAN-deep"),
    "our own": (SKIP, ours, "qualitygate safetensors"),
}


def image(loaded: Checkpoint, vectors: Vectors, **sampling: Any) -> Tensor:
    """In raw range, as recorded."""
    z, labels = vectors.tensors["input/z"], vectors.tensors.get("input/c")
    labels = labels.long() if labels is not None and labels.ndim == 1 else labels
    generator = loaded.generator
    count = len(vectors.tensors["output/image"])
    latents = Latents(np.arange(len(z)), None, z, labels, Sampling(**sampling))[:count]
    return generator.finish(generator.run(generator.start(latents), generator.layers[-1].index))


@pytest.mark.parametrize("what", FILES)
def test_a_file_makes_the_recorded_images(what: str, tmp_path: Path) -> None:
    recorded, write, layout = FILES[what]
    vectors = load(recorded)
    loaded = load_checkpoint(write(tmp_path, vectors))
    assert loaded.layout == layout
    sampling = next((case.images["output/image"] for case in BIGGAN_CASES if case.file == recorded), {})
    assert_agrees(image(loaded, vectors, **sampling), vectors.tensors["output/image"], what)
    value = vectors.tensors.get("disc/output")
    if loaded.discriminator is not None and value is not None and value.numel() == len(value):
        labels = vectors.tensors.get("input/c")
        seen = loaded.discriminator(vectors.tensors["output/image"], labels)
        assert_agrees(seen, value.flatten(), f"{what}: disc/output")


# a DCGAN under the wrappings of everybody's own training loop


def dcgan_by_hand(stored: Mapping[str, Tensor], z: Tensor) -> Tensor:
    """The network of PyTorch's tutorial."""
    layers: list[torch.nn.Module] = []
    convolutions = [name for name, tensor in stored.items() if tensor.ndim == 4]
    for index, name in enumerate(convolutions):
        inputs, outputs = stored[name].shape[:2]
        layers.append(torch.nn.ConvTranspose2d(inputs, outputs, 4, 2 if index else 1, 1 if index else 0, bias=False))
        last = index == len(convolutions) - 1
        layers += [torch.nn.Tanh()] if last else [torch.nn.BatchNorm2d(outputs), torch.nn.ReLU()]
    network = torch.nn.ModuleDict({"main": torch.nn.Sequential(*layers)})
    network.load_state_dict(dict(stored))
    with torch.no_grad():
        return network.eval()["main"](z[:, :, None, None])


def parallel(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"module.{name}": tensor for name, tensor in stored.items()}


def halved(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor * 0.5 if tensor.is_floating_point() else tensor for name, tensor in stored.items()}


WRAPPINGS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "bare": lambda stored: stored,
    "module.": parallel,
    "module.module.": lambda stored: parallel(parallel(stored)),
    "netG": lambda stored: {"netG": stored, "netD": {"main.0.weight": torch.ones(4, 3, 4, 4)}, "epoch": 25},
    "state_dict": lambda stored: {"state_dict": parallel(stored), "epoch": 25},
    "model": lambda stored: {"model": stored, "optimizer": {"state": {}, "param_groups": []}},
    "g_ema": lambda stored: {"g": halved(stored), "g_ema": stored},
    "generator_state_dict": lambda stored: {"discriminator_state_dict": {}, "generator_state_dict": stored},
    "checkpoint.netG_ema": lambda stored: {"checkpoint": {"netG": halved(stored), "netG_ema": parallel(stored)}},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
def test_a_dcgan_under_any_wrapping(wrapping: str, half: bool, tmp_path: Path) -> None:
    stored = dcgan_state_dict()
    kept = {name: tensor.half() if half and tensor.is_floating_point() else tensor for name, tensor in stored.items()}
    torch.save(WRAPPINGS[wrapping](kept), tmp_path / "netG_epoch_25.pth")
    generator = qualitygate.load_generator(tmp_path / "netG_epoch_25.pth")
    z = qualitygate.sample_latents(generator, range(4), seed=0).z
    by_hand = dcgan_by_hand({name: tensor.to(stored[name].dtype) for name, tensor in kept.items()}, z)
    assert_agrees(generator(z), by_hand, wrapping)


# files that are something else


def resnet() -> dict[str, Tensor]:
    """Names and shapes of torchvision's ResNet-18, with fewer units."""
    stored = {"conv1.weight": torch.zeros(8, 3, 7, 7)}
    for stage, (inputs, outputs) in enumerate([(8, 8), (8, 16), (16, 32), (32, 64)], start=1):
        for block in (0, 1):
            first = inputs if block == 0 else outputs
            name = f"layer{stage}.{block}"
            stored |= {f"{name}.conv1.weight": torch.zeros(outputs, first, 3, 3)}
            stored |= {f"{name}.conv2.weight": torch.zeros(outputs, outputs, 3, 3)}
            for norm in ("bn1", "bn2"):
                stored |= {f"{name}.{norm}.{part}": torch.zeros(outputs) for part in ("weight", "bias", "running_mean", "running_var")}
    return {**stored, "fc.weight": torch.zeros(10, 64), "fc.bias": torch.zeros(10)}


def refused(path: Path, tree: Any) -> str:
    torch.save(tree, path)
    with pytest.raises(CheckpointError) as raised:
        load_checkpoint(path)
    return str(raised.value)


def test_a_classifier(tmp_path: Path) -> None:
    message = refused(tmp_path / "resnet18.pth", resnet())
    assert "resnet18.pth is not a generator we know" in message
    assert "the first conv1.weight (8, 3, 7, 7)" in message
    assert "closest is DCGAN, but fc, with bias, weight, is neither a convolution nor a batch norm after one" in message


@pytest.mark.parametrize(
    ("file", "source"),
    [
        (SKIP, "NVIDIA StyleGAN2"),
        ("rosinality_stylegan2_r32", "rosinality StyleGAN2"),
        ("genforce_pggan_r32", "genforce PGGAN"),
        ("biggan_r64", "ajbrock BigGAN discriminator"),
    ],
)
def test_a_discriminator_alone(file: str, source: str, tmp_path: Path) -> None:
    judge = load(file).under("disc/state_dict/")
    message = refused(tmp_path / "D.pth", judge)
    first = next(iter(judge))
    assert "D.pth is not a generator we know" in message
    assert f"the first {first} " in message
    assert f"the top level is a discriminator ({source})" in message


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    stored = load("rosinality_stylegan2_r32").under("state_dict/")
    stored["convs.0.activate.bias"][3] = torch.nan
    message = refused(tmp_path / "diverged.pt", {"g_ema": stored})
    assert "1 of 32 values of synthesis.1.bias are NaN or infinite" in message
    assert "take an earlier snapshot" in message


def test_wrong_shapes_are_listed_all_at_once(tmp_path: Path) -> None:
    stored = load(SKIP).under("state_dict/")
    names = ("synthesis.b8.conv1.bias", "synthesis.b16.conv0.bias", "mapping.w_avg")
    message = refused(tmp_path / "model.pt", {"G_ema": stored | {name: torch.zeros(3) for name in names}})
    for ours in ("synthesis.2.bias is (3,), not (32,)", "synthesis.3.bias is (3,)", "mapping.average is (3,), not (32,)"):
        assert ours in message


@pytest.mark.parametrize(
    "file",
    [
        SKIP,
        "rosinality_stylegan2_r32",
        "genforce_stylegan2_r32_skip",
        "nvlabs_stylegan3_t_r32",
        "biggan_r64",
        "unetgan_uncond_r128",
        "hf_biggan_deep_r32",
    ],
)
def test_missing_tensors_are_listed_all_at_once(file: str, tmp_path: Path) -> None:
    stored = load(file).under("state_dict/")
    biases = [name for name in stored if name.endswith("bias") and "mapping" not in name and "style" not in name]
    lost = (biases[1], biases[-2])
    message = refused(tmp_path / "model.pt", {"g_ema": {name: tensor for name, tensor in stored.items() if name not in lost}})
    assert all(name in message for name in lost)
