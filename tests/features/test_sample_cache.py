"""Features of samples are kept where all that they depend on is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from features.small_extractor import Means
from small import small_dcgan
from torch import nn

from qualitygate.features.cache import SampleFeatures
from qualitygate.generators.base import Generator, Origin
from qualitygate.generators.module import ModuleGenerator
from qualitygate.latents import Sampling

ROWS = np.ones((3, Means.features), np.float32)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUALITYGATE_CACHE", str(tmp_path))


def shelf(generator: Generator, *, kept: bool = True) -> SampleFeatures:
    extractor = Means()
    extractor.kept = kept
    return SampleFeatures(generator, Sampling(), 1, extractor)


def somebody_elses() -> Generator:
    return ModuleGenerator(nn.Sequential(nn.ConvTranspose2d(4, 3, 4), nn.Tanh()), ["0"], 4)


@pytest.mark.parametrize(("somebodys", "kept"), [(True, True), (False, False)])
def test_code_that_may_be_edited_keeps_nothing(somebodys: bool, kept: bool, tmp_path: Path) -> None:
    place = shelf(somebody_elses() if somebodys else small_dcgan(), kept=kept)
    place.keep(ROWS)
    assert not list(tmp_path.rglob("*.safetensors"))
    assert len(place.known(3)) == 0


def test_one_file_read_as_of_another_family_is_another_generator() -> None:
    first, second = small_dcgan(), small_dcgan()
    first.origin = second.origin = Origin("model.pt", "a" * 64)
    second.family = "another"  # type: ignore[misc]
    shelf(first).keep(ROWS)
    assert len(shelf(first).known(3)) == 3
    assert len(shelf(second).known(3)) == 0


def test_what_is_kept_is_not_for_an_extractor_that_keeps_nothing() -> None:
    shelf(small_dcgan()).keep(ROWS)
    assert len(shelf(small_dcgan()).known(3)) == 3
    assert len(shelf(small_dcgan(), kept=False).known(3)) == 0
