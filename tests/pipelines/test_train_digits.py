"""The training script: snapshots that load, and a run that goes on where it was interrupted."""

from __future__ import annotations

import importlib.util
import signal
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from qualitygate.checkpoints.load import load_checkpoint

SCRIPT = Path(__file__).parents[2] / "pipelines" / "train_digits.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_digits", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_digits"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["train_digits.py", *arguments])
    return script.main()


def test_a_run_that_was_interrupted_goes_on_to_the_same_snapshots(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run(script, monkeypatch, "--out", str(whole), "--steps", "4") == 0
    names = sorted(path.name for path in whole.glob("*.safetensors"))
    assert names == [f"snapshot-{step:06d}.safetensors" for step in range(5)]

    step = script.train_step

    def interrupted(training, *rest):
        if training.step == 2:
            signal.raise_signal(signal.SIGINT)
        return step(training, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(script, "train_step", interrupted)
        assert run(script, patched, "--out", str(cut), "--steps", "4") == 130
    assert not (cut / "snapshot-000004.safetensors").exists()
    assert run(script, monkeypatch, "--out", str(cut), "--steps", "4") == 0
    assert sorted(path.name for path in cut.glob("*.safetensors")) == names
    for name in names:
        ours, theirs = load_file(cut / name), load_file(whole / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)

    last = load_checkpoint(whole / names[-1])
    assert last.discriminator is not None
    assert last.generator.latent_size == 512
    assert last.generator.image_shape == (1, 32, 32)
    assert last.ignored == ()
    with safe_open(whole / names[-1], "pt") as file:
        assert file.metadata()["kimg"] == "0.128"
    with np.load(whole / "reals.npz") as reals:
        assert reals["images"].shape == (1797, 32, 32, 1)
        assert reals["images"].dtype == np.uint8


def test_another_run_in_the_same_folder_is_refused(script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert run(script, monkeypatch, "--out", str(tmp_path), "--steps", "1", "--half") == 0
    with pytest.raises(SystemExit, match="another run"):
        run(script, monkeypatch, "--out", str(tmp_path), "--steps", "1", "--half", "--seed", "1")


def test_half_precision_reads_as_float32(script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert run(script, monkeypatch, "--out", str(tmp_path), "--steps", "1", "--half") == 0
    path = tmp_path / "snapshot-000001.safetensors"
    with safe_open(path, "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118
    generator = load_checkpoint(path).generator
    assert {parameter.dtype for parameter in generator.parameters()} == {torch.float32}
