"""Where the command line takes generators from, and `convert`."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import qualitygate
from tests.cli.conftest import Call, Place

NETWORK = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.ConvTranspose2d(8, 6, 4), nn.BatchNorm2d(6), nn.ReLU(), nn.ConvTranspose2d(6, 4, 4, 2, 1), nn.ReLU(),
        nn.Conv2d(4, 3, 1), nn.Sigmoid(),
    )
"""
MODULE = ("module:networks_of_mine:make", "--layers", "2,4", "--latent-size", "8", "--set", "image_range=[0, 1]")


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the user's in the working directory, which is not on the path."""
    (tmp_path / "networks_of_mine.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one not in ("", str(tmp_path))])
    monkeypatch.delitem(sys.modules, "networks_of_mine", raising=False)


def test_convert_writes_the_same_generator(call: Call, place: Place, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    called = call("convert", place.checkpoint, out, "--json")
    assert called.code == 0, called.stderr
    assert called.json["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert called.json["from_sha256"] == hashlib.sha256(place.checkpoint.read_bytes()).hexdigest()
    assert called.json["discriminator"] is False
    assert all(name.endswith("num_batches_tracked") for name in called.json["left_out"])
    first, again = (qualitygate.load_generator(path) for path in (place.checkpoint, out))
    latents = qualitygate.sample_latents(first, range(4), seed=1)
    assert torch.equal(first(latents), again(latents))
    assert "num_batches_tracked" in call("convert", place.checkpoint, tmp_path / "again.safetensors").stdout


def test_convert_writes_over_nothing(call: Call, place: Place, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    out.write_text("precious")
    called = call("convert", place.checkpoint, out)
    assert called.code == 2
    assert "exists already" in called.stderr
    assert out.read_text() == "precious"


def test_a_hash_that_the_file_must_have(call: Call, place: Place) -> None:
    right = hashlib.sha256(place.checkpoint.read_bytes()).hexdigest()
    assert call("inspect", place.checkpoint, "--sha256", right, "--json").json["sha256"] == right
    called = call("inspect", place.checkpoint, "--sha256", "0" * 64)
    assert called.code == 2
    assert right in called.stderr
    assert "0" * 64 in called.stderr


def test_family_and_settings(call: Call, place: Place) -> None:
    assert call("inspect", place.checkpoint, "--family", "dcgan", "--json").json["family"] == "dcgan"
    for options, message in (
        (("--family", "pggan"), "is not a generator we know"),
        (("--set", "final_tanh=true"), "has no such setting"),
        (("--set", "final_tanh"), "NAME=VALUE"),
        (("--layers", "main.2"), "are for module:… only"),
    ):
        called = call("inspect", place.checkpoint, *options)
        assert called.code == 2
        assert message in called.stderr


@pytest.mark.usefixtures("network")
def test_any_network_by_its_import_path(call: Call) -> None:
    called = call("inspect", *MODULE, "--json")
    assert called.code == 0, called.stderr
    document = called.json
    assert (document["family"], document["layout"], document["latent_size"]) == ("module", None, 8)
    assert [layer["name"] for layer in document["layers"]] == ["2", "4"]
    assert document["settings"]["image_range"] == [0, 1]
    assert call("inspect", *MODULE, "--json").json["sha256"] == document["sha256"]
    assert "not a file" in call("inspect", *MODULE).stdout


@pytest.mark.usefixtures("network")
def test_any_network_is_calibrated_and_gated(call: Call, place: Place) -> None:
    assert call("calibrate", *MODULE, "--out", "profile", "--policy", place.policy).code == 0
    called = call("gate", *MODULE, "--profile", "profile", "--ids", "0:20", "--out", "out", "--no-track", "--json", "--exit-zero")
    assert called.code == 0, called.stderr
    assert called.json["samples"] == 20
    assert called.json["provenance"]["family"] == "module"


@pytest.mark.usefixtures("network")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (MODULE[:3], "--layers and --latent-size"),
        ((*MODULE, "--family", "dcgan"), "no --sha256, no --family"),
        ((*MODULE, "--set", "colour=red"), "no such setting"),
        (("module:nowhere:make", *MODULE[1:]), "Cannot import nowhere:make"),
    ],
)
def test_a_network_that_cannot_be_had(call: Call, arguments: tuple[str, ...], message: str) -> None:
    called = call("inspect", *arguments)
    assert called.code == 2
    assert message in called.stderr


@pytest.mark.usefixtures("network")
def test_a_network_cannot_be_converted(call: Call) -> None:
    called = call("convert", *MODULE[:1], "model.safetensors", *MODULE[1:])
    assert called.code == 2
    assert "load it by its import path" in called.stderr
    assert not Path("model.safetensors").exists()


def test_help_loads_neither_torch_nor_mlflow() -> None:
    check = "import sys, qualitygate.cli.app as app; app.command(); assert not {'torch', 'mlflow', 'requests'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
