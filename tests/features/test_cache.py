"""Features of real images are computed once for each extractor, content and size, and never trusted when damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from features.small_extractor import Means
from PIL import Image

from qualitygate.features.cache import CACHE, identity, real_features
from qualitygate.features.images import ImageSet, open_images

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


def test_what_is_not_to_be_kept_is_computed_every_time(images: Path) -> None:
    passes(open_images(images))
    edited = Means()
    edited.kept = False
    assert passes(open_images(images), edited) == 1
    assert passes(open_images(images), edited) == 2


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: b"nonsense", lambda data: data[:-9], lambda data: data[:-1] + b"\xff"])
def test_what_is_damaged_is_computed_anew(images: Path, damage: Callable[[bytes], bytes]) -> None:
    passes(open_images(images))
    path = CACHE.place(identity(Means(), open_images(images)))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match="cannot be read and is computed anew"):
        assert passes(open_images(images)) == 1
    assert passes(open_images(images)) == 0


def test_a_cache_that_cannot_be_written_is_no_obstacle(images: Path, home: Path) -> None:
    home.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="is not kept"):
        assert passes(open_images(images)) == 1
