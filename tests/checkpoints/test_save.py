"""Our own file: the same networks again, bit for bit, and never over something else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from reference.test_reference import CASES
from reference.vectors import Case, load
from safetensors import safe_open
from torch import nn

import qualitygate
from qualitygate.checkpoints.contents import Contents
from qualitygate.checkpoints.load import assemble_contents, load_checkpoint
from qualitygate.errors import CheckpointError, InputError, OutputError, StorageError
from qualitygate.generators.base import Discriminator
from qualitygate.generators.families import DISCRIMINATORS
from qualitygate.generators.families.dcgan import DCGAN
from qualitygate.generators.module import ModuleGenerator


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.file)
def test_every_family_comes_back_with_its_discriminator(case: Case, tmp_path: Path) -> None:
    first = assemble_contents(Contents("test", case.tree(load(case.file))), case.file)
    path = tmp_path / "model.safetensors"
    qualitygate.save_generator(first.generator, path, discriminator=first.discriminator)
    again = load_checkpoint(path, family=first.generator.family)
    assert again.layout == "qualitygate safetensors"
    assert again.ignored == ()
    latents = qualitygate.sample_latents(first.generator, range(2), seed=1)
    images = first.generator(latents)
    assert_same(again.generator, first.generator)
    torch.testing.assert_close(again.generator(latents), images)
    assert again.generator.settings == first.generator.settings
    assert (again.discriminator is None) == (first.discriminator is None)
    if first.discriminator is not None:
        assert type(again.discriminator) is type(first.discriminator)
        assert_same(again.discriminator, first.discriminator)
        torch.testing.assert_close(again.discriminator(images, latents.labels), first.discriminator(images, latents.labels))


def assert_same(network: torch.nn.Module, other: torch.nn.Module) -> None:
    """The same weights, bit for bit. What they make may be summed in another order, by where they lie in memory."""
    ours, theirs = network.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_every_discriminator_is_registered_under_its_name() -> None:
    def concrete(base: type) -> set[type]:
        return {base, *(below for one in base.__subclasses__() for below in concrete(one))}

    ours = {one for one in concrete(Discriminator) - {Discriminator} if one.__module__.startswith("qualitygate.")}
    assert set(DISCRIMINATORS.values()) == ours


@pytest.fixture
def generator() -> DCGAN:
    torch.manual_seed(0)
    generator = DCGAN(4, [6, 5], 3).requires_grad_(False)
    for parameter in generator.parameters():
        parameter.normal_()
    return generator


def test_the_file_is_plain_safetensors(generator: DCGAN, tmp_path: Path) -> None:
    qualitygate.save_generator(generator, tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(generator.state_dict())
        assert set(file.metadata()) == {"qualitygate"}
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_the_same_generator_makes_the_same_file(generator: DCGAN, tmp_path: Path) -> None:
    for name in ("a", "b"):
        qualitygate.save_generator(generator, tmp_path / f"{name}.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_nothing_is_written_over(generator: DCGAN, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_text("precious")
    with pytest.raises(OutputError, match="exists already"):
        qualitygate.save_generator(generator, path)
    assert path.read_text() == "precious"


def test_a_name_that_does_not_say_what_it_is(generator: DCGAN, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"(?s)'\.pt'.*name it model\.safetensors"):
        qualitygate.save_generator(generator, tmp_path / "model.pt")


def test_a_place_that_cannot_be_written(generator: DCGAN, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="Cannot write"):
        qualitygate.save_generator(generator, tmp_path / "nowhere" / "model.safetensors")


def test_a_network_of_someone_elses_cannot_be_saved(tmp_path: Path) -> None:
    network = nn.Sequential(nn.ConvTranspose2d(4, 3, 4), nn.ReLU())
    with pytest.raises(InputError, match="family 'module' cannot be saved"):
        qualitygate.save_generator(ModuleGenerator(network, ["1"], 4), tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_another_family_than_the_file_says(generator: DCGAN, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    qualitygate.save_generator(generator, path)
    with pytest.raises(CheckpointError, match="is not a generator we know"):
        qualitygate.load_generator(path, family="pggan")
