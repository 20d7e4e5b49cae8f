"""A small checkpoint as people have it, its profile, and a way to call the command line in this process."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from qualitygate.cli import main


@dataclass(frozen=True)
class Called:
    """What a call of the command line came to."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


Call = Callable[..., Called]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Call]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(*arguments: object) -> Called:
        monkeypatch.setattr(sys, "argv", ["qualitygate", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capfd.readouterr()
        return Called(int(ended.value.code or 0), captured.out, captured.err)

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def dcgan_state_dict(seed: int = 0) -> dict[str, torch.Tensor]:
    """A DCGAN of the PyTorch tutorial's shape: latent 8, units 12, 8, 6 at 4×4, 8×8, 16×16, image 3×32×32."""
    torch.manual_seed(seed)
    widths, state = [8, 12, 8, 6, 3], {}
    for index, (inputs, outputs) in enumerate(pairwise(widths)):
        state[f"main.{3 * index}.weight"] = torch.randn(inputs, outputs, 4, 4) * 0.3
        if index < len(widths) - 2:
            norm = f"main.{3 * index + 1}"
            state[f"{norm}.weight"] = torch.rand(outputs) + 0.5
            state[f"{norm}.bias"] = torch.randn(outputs) * 0.5 - 0.5
            state[f"{norm}.running_mean"] = torch.randn(outputs) * 0.1
            state[f"{norm}.running_var"] = torch.rand(outputs) + 0.5
            state[f"{norm}.num_batches_tracked"] = torch.tensor(100)
    return state


def discriminator_state_dict() -> dict[str, torch.Tensor]:
    """A DCGAN discriminator of 32×32 images: units 6, 8, 12."""
    torch.manual_seed(1)
    widths, state = [3, 6, 8, 12, 1], {}
    places = (0, 2, 5, 8)
    for place, (inputs, outputs) in zip(places, pairwise(widths), strict=True):
        state[f"main.{place}.weight"] = torch.randn(outputs, inputs, 4, 4) * 0.2
    for place, units in ((3, 8), (6, 12)):
        state[f"main.{place}.weight"], state[f"main.{place}.bias"] = torch.ones(units), torch.zeros(units)
        state[f"main.{place}.running_mean"], state[f"main.{place}.running_var"] = torch.zeros(units), torch.ones(units)
        state[f"main.{place}.num_batches_tracked"] = torch.tensor(100)
    return state


POLICY = {
    "calibration": {"rate_samples": 600, "score_samples": 300},
    "detection": {"layers": [0, 1], "rates": [0.05, 0.1, 0.3]},
    "rules": [{"id": "low_rate", "score": "low_rate_0.3", "limit": {"quantile": 0.8}}],
    "correction": {"layers": [0, 1], "rates": [0.1, 0.3], "judged_at": 0.3, "limit": {"quantile": 0.9}},
    "batch": [{"id": "yield", "metric": "yield", "min": 0.5}],
}


@dataclass(frozen=True)
class Place:
    """Files of a small gate."""

    checkpoint: Path
    policy: Path
    profile: Path


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    from qualitygate.checkpoints.load import load_generator
    from qualitygate.gating.calibrate import calibrate
    from qualitygate.policy.model import load_policy

    folder = tmp_path_factory.mktemp("gate")
    made = Place(folder / "model.pt", folder / "policy.yaml", folder / "profile")
    torch.save({"netG": dcgan_state_dict()}, made.checkpoint)
    made.policy.write_text(yaml.safe_dump(POLICY), encoding="utf8")
    calibrate(load_generator(made.checkpoint), load_policy(made.policy)).save(made.profile)
    return made
