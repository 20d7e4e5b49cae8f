"""Profiles are kept where all that they depend on is known."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
from small import small_dcgan
from torch import nn

from qualitygate.checkpoints.save import save_generator
from qualitygate.generators.base import Generator, Origin
from qualitygate.generators.module import ModuleGenerator
from qualitygate.generators.passes import Reporter
from qualitygate.policy.model import Policy
from qualitygate.studies.check import CheckRequest, model


class Empty:
    """In place of a profile: a folder."""

    def save(self, path: Path) -> None:
        path.mkdir(parents=True)


@pytest.fixture
def calibrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Generator]:
    """What was calibrated."""
    done: list[Generator] = []

    def calibrate(generator: Generator, *_: Any, **__: Any) -> Empty:
        done.append(generator)
        return Empty()

    monkeypatch.setenv("QUALITYGATE_CACHE", str(tmp_path))
    monkeypatch.setattr(model, "calibrate", calibrate)
    return done


def test_somebody_elses_code_is_calibrated_every_time(calibrated: list[Generator], tmp_path: Path) -> None:
    network = nn.Sequential(nn.ConvTranspose2d(4, 3, 4), nn.Tanh())
    for _ in range(2):
        model.cached_profile(ModuleGenerator(network, ["0"], 4), Policy())
    assert len(calibrated) == 2
    assert not list(tmp_path.rglob("profiles/*"))
    model.cached_profile(small_dcgan(), Policy())
    assert len(list(tmp_path.rglob("profiles/*"))) == 1


def test_one_file_read_as_of_another_family_is_another_generator(calibrated: list[Generator], tmp_path: Path) -> None:
    for family in ("dcgan", "another"):
        generator = small_dcgan()
        generator.origin = Origin("model.pt", "a" * 64)
        generator.family = family  # type: ignore[misc]
        model.cached_profile(generator, Policy())
    assert len(calibrated) == 2
    assert len(list(tmp_path.rglob("profiles/*"))) == 2


@pytest.mark.parametrize("candidate", ["module:mine:make", "model.safetensors"])
def test_a_baseline_of_a_function_has_the_options_that_were_given(
    calibrated: list[Generator], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, candidate: str
) -> None:
    mine = types.ModuleType("mine")
    mine.make = lambda: nn.Sequential(nn.ConvTranspose2d(4, 3, 4), nn.ReLU(), nn.Tanh())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mine", mine)
    monkeypatch.chdir(tmp_path)
    save_generator(small_dcgan(), tmp_path / "model.safetensors")
    options = {"layers": "1", "latent_size": 4, "device": "cpu"}
    request = CheckRequest(checkpoint=candidate, baseline="module:mine:make", **options)
    ours, theirs = model.CheckLoader(request, Reporter(), (None, None)).sides()
    assert theirs is not None
    assert isinstance(theirs.generator, ModuleGenerator)
    assert isinstance(ours.generator, ModuleGenerator) == (candidate != "model.safetensors")
