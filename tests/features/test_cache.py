"""Features of real images are computed once for each extractor, content and size, and never trusted when damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from features.small_extractor import Means
from PIL import Image
from small import small_dcgan
from torch import Tensor, nn

from qualitygate.errors import InputError
from qualitygate.features.cache import REAL, SampleFeatures, identity, real_features
from qualitygate.features.images import ImageSet, open_images
from qualitygate.generators.base import Generator, Origin
from qualitygate.generators.module import ModuleGenerator
from qualitygate.generators.passes import Reporter
from qualitygate.latents import Sampling

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 6, 6, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUALITYGATE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    place = tmp_path / "real"
    place.mkdir()
    for row, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(place / f"{row}.png")
    return place


def passes(images: ImageSet, extractor: Means | None = None) -> int:
    """How often the extractor had to work."""
    extractor = extractor or Means()
    found = real_features(extractor, images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, 0].mean(), PIXELS[..., 0].mean() / 127.5 - 1, atol=0.02)
    return len(extractor.passes)


def test_features_are_computed_once(images: Path) -> None:
    assert passes(open_images(images)) == 1
    assert passes(open_images(images)) == 0


def test_names_and_dates_do_not_count(images: Path, tmp_path: Path) -> None:
    passes(open_images(images))
    images.rename(tmp_path / "elsewhere")
    for path in (tmp_path / "elsewhere").iterdir():
        path.rename(path.with_name(f"x{path.name}"))
    assert passes(open_images(tmp_path / "elsewhere")) == 0


def test_all_else_counts(images: Path) -> None:
    passes(open_images(images))
    other = Means()
    other.key = "other means"
    assert passes(open_images(images), other) == 1
    assert passes(open_images(images, size=4)) == 1
    (images / "4.png").rename(images / "04.png")  # another order
    assert passes(open_images(images)) == 1


class Broken(Means):
    """Cannot see white images."""

    def __call__(self, images: Tensor) -> Tensor:
        return super().__call__(images) / (images.mean(dim=(1, 2, 3)) < 1.0)[:, None]


def test_what_has_no_features_is_named(images: Path) -> None:
    Image.fromarray(np.full((6, 6, 3), 255, np.uint8)).save(images / "2.png")
    with pytest.raises(InputError, match=r"features of .*/2\.png are not finite"):
        real_features(Broken(), open_images(images))
    generator = small_dcgan()
    generator.image_batches = lambda latents, progress: [(np.arange(4), torch.ones(4, 3, 6, 6))]  # type: ignore[assignment,misc]
    with pytest.raises(InputError, match="features of sample 7 are not finite"):
        SampleFeatures(generator, Sampling(), 0, Broken(), first=7).get(4, Reporter())


def test_what_is_not_to_be_kept_is_computed_every_time(images: Path) -> None:
    passes(open_images(images))
    edited = Means()
    edited.kept = False
    assert passes(open_images(images), edited) == 1
    assert passes(open_images(images), edited) == 2


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: b"nonsense", lambda data: data[:-9], lambda data: data[:-1] + b"\xff"])
def test_what_is_damaged_is_computed_anew(images: Path, damage: Callable[[bytes], bytes]) -> None:
    passes(open_images(images))
    path = REAL.place(identity(Means(), open_images(images)))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match="cannot be read and is computed anew"):
        assert passes(open_images(images)) == 1
    assert passes(open_images(images)) == 0


def test_a_cache_that_cannot_be_written_is_no_obstacle(images: Path, home: Path) -> None:
    home.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="is not kept"):
        assert passes(open_images(images)) == 1


ROWS = np.ones((3, Means.features), np.float32)


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
