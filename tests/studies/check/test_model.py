"""Profiles are kept where all that they depend on is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small import small_dcgan
from torch import nn

from qualitygate.generators.base import Generator, Origin
from qualitygate.generators.module import ModuleGenerator
from qualitygate.policy.model import Policy
from qualitygate.studies.check import model


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
