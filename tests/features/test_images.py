"""Real images from everything they come packed in: the same pixels, the same hash, and errors that name the image."""

from __future__ import annotations

import io
import itertools
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from qualitygate.errors import InputError
from qualitygate.features.image_sources import Item, Source
from qualitygate.features.images import ImageSet, digits_images, open_images

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (70, 6, 6, 3), dtype=np.uint8)
NAMES = [f"{'b/' if row >= 35 else ''}{row:03d}.png" for row in range(70)]
ORDER = np.argsort(NAMES)
"""The folder is sorted by path: "000.png" … before "b/035.png" …"""


def file_bytes(pixels: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


FILES = {name: file_bytes(pixels) for name, pixels in zip(NAMES, PIXELS, strict=True)}


def as_folder(path: Path) -> Path:
    for name, content in FILES.items():
        (path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (path / "set" / name).write_bytes(content)
    (path / "set" / "labels.json").write_text("{}")
    (path / "set" / "._000.png").write_bytes(b"of another system")
    return path / "set"


def as_zip(path: Path) -> Path:
    with zipfile.ZipFile(path / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("readme.txt", "no image")
        for name in reversed(NAMES):
            archive.writestr(name, FILES[name])
    return path / "set.zip"


def as_tar(path: Path, kind: str = "w") -> Path:
    place = path / ("set.tar" if kind == "w" else "set.tar.gz")
    with tarfile.open(place, kind) as archive:  # type: ignore[call-overload]
        for name in reversed(NAMES):
            entry = tarfile.TarInfo(name)
            entry.size = len(FILES[name])
            archive.addfile(entry, io.BytesIO(FILES[name]))
    return place


def as_parquet(path: Path) -> Path:
    contents = [FILES[NAMES[row]] for row in ORDER]
    pq.write_table(pa.table({"label": [0] * 70, "picture": contents}), path / "set.parquet", row_group_size=20)
    return path / "set.parquet"


def as_records(path: Path) -> Path:
    contents = [{"bytes": FILES[NAMES[row]], "path": NAMES[row]} for row in ORDER]
    pq.write_table(pa.table({"image": contents, "thumbnail": [b""] * 70}), path / "set.parquet")
    return path / "set.parquet"


def as_npy(path: Path) -> Path:
    np.save(path / "set.npy", PIXELS[ORDER])
    return path / "set.npy"


def as_npz(path: Path) -> Path:
    np.savez_compressed(path / "set.npz", images=PIXELS[ORDER].transpose(0, 3, 1, 2), labels=np.zeros(70))
    return path / "set.npz"


def as_floats(path: Path) -> Path:
    np.savez(path / "set.npz", PIXELS[ORDER].astype(np.float64) / 127.5 - 1)
    return path / "set.npz"


PACKED = (as_folder, as_zip, as_tar, lambda path: as_tar(path, "w:gz"), as_parquet, as_records)
ARRAYS = (as_npy, as_npz, as_floats)


def all_of(images: ImageSet) -> torch.Tensor:
    return torch.cat(list(images))


def test_what_sets_real_images_apart_is_said(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (12, 8, 3), dtype=np.uint8)
    for name, pixels, kind in (
        ("a.jpg", colours[:8], "JPEG"),
        ("b.png", colours, "PNG"),
        ("c.png", colours[:8, :, 0], "PNG"),
        ("d.png", np.repeat(np.repeat(colours[:8], 4, 0), 4, 1), "PNG"),
        ("e.png", np.repeat(np.repeat(colours[:8], 2, 0), 2, 1), "PNG"),
    ):
        (tmp_path / name).write_bytes(file_bytes(pixels, kind))
    assert open_images(tmp_path, size=16).remarks(3) == (
        "5 real images are fewer than 1,000: which ones they are decides much",
        "of 5 real images, 1 were stored with losses (1 JPEG), generated ones were not",
        "of 5 real images, 3 were enlarged to 16×16, and have less detail than that",
        "of 5 real images, 1 were made smaller, to 16×16",
        "of 5 real images, 1 were cropped to their centre square",
        "of 5 real images, 1 are grey, generated ones have colours",
    )
    assert "of 5 real images, 4 are stored in colours, generated ones are grey" in open_images(tmp_path, size=16).remarks(1)
    assert digits_images(8).remarks(1) == ()
    assert digits_images(32).remarks(1) == ("of 1,797 real images, 1,797 were enlarged to 32×32, and have less detail than that",)


def test_files_under_other_names_are_the_same_set_but_not_the_same_rows(tmp_path: Path) -> None:
    before = open_images(place := as_folder(tmp_path))
    hashes = before.sha256, before.ordered_sha256
    first, *_ = sorted(place.rglob("[!.]*.png"))
    first.rename(place / "zzz.png")
    after = open_images(place)
    assert after.sha256 == hashes[0]
    assert after.ordered_sha256 != hashes[1]


@pytest.mark.parametrize("pack", [*PACKED, *ARRAYS])
def test_the_same_images_however_packed(pack: Callable[[Path], Path], tmp_path: Path) -> None:
    images = open_images(pack(tmp_path))
    assert (len(images), images.preparation) == (70, "as stored")
    batches = list(images)
    assert [batch.shape for batch in batches] == [(64, 3, 6, 6), (6, 3, 6, 6)]
    expected = torch.from_numpy(PIXELS[ORDER]).permute(0, 3, 1, 2).float() / 127.5 - 1
    torch.testing.assert_close(torch.cat(batches), expected, rtol=0, atol=0)
    torch.testing.assert_close(all_of(images), expected, rtol=0, atol=0)  # a second time


@pytest.mark.parametrize("packs", [PACKED, ARRAYS])
def test_the_hash_is_of_contents_in_order(packs: tuple[Callable[[Path], Path], ...], tmp_path: Path) -> None:
    hashes = set()
    for index, pack in enumerate(packs):
        place = tmp_path / str(index)
        place.mkdir()
        hashes.add(open_images(pack(place)).sha256)
    assert len(hashes) == 1


def test_the_hash_sees_every_change(tmp_path: Path) -> None:
    def hash_of(pixels: np.ndarray) -> str:
        np.save(tmp_path / "a.npy", pixels)
        return open_images(tmp_path / "a.npy").sha256

    changed = PIXELS.copy()
    changed[69, 5, 5, 2] ^= 1
    variants = [PIXELS, changed, PIXELS[::-1], PIXELS[:69], PIXELS.reshape(140, 3, 6, 3)]
    assert len({hash_of(pixels) for pixels in variants}) == len(variants)


def test_resizing_is_pillows_bicubic_of_the_centre(tmp_path: Path) -> None:
    wide = RANDOM.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(wide).save(tmp_path / "a.png")
    Image.fromarray(wide[:, :10].copy()).save(tmp_path / "b.png")
    images = open_images(tmp_path, size=8)
    found = all_of(images)
    expected = Image.fromarray(wide[:, 5:25].copy()).resize((8, 8), Image.Resampling.BICUBIC)
    torch.testing.assert_close(found[0].permute(1, 2, 0), torch.from_numpy(np.array(expected)) / 127.5 - 1)
    assert found.shape == (2, 3, 8, 8)
    assert images.preparation == "centre square, Pillow bicubic to 8"
    assert images.sha256 == open_images(tmp_path).sha256


def test_sizes_must_agree_without_one_to_bring_them_to(tmp_path: Path) -> None:
    for size in (4, 5):
        Image.fromarray(PIXELS[0, :size, :size].copy()).save(tmp_path / f"{size}.png")
    with pytest.raises(InputError, match=r"not of one size\n.*5×5×3 in .*5\.png, 4×4×3 before it"):
        list(open_images(tmp_path))


@pytest.mark.parametrize(
    ("kind", "mode"), [("PNG", "L"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "1"), ("JPEG", "CMYK"), ("WEBP", "RGB"), ("BMP", "RGB")]
)
def test_files_of_every_kind_are_rgb(kind: str, mode: str, tmp_path: Path) -> None:
    image = Image.fromarray(PIXELS[0]).convert(mode)
    image.save(tmp_path / f"a.{kind.lower()}", kind, **({"lossless": True} if kind == "WEBP" else {}))
    found = all_of(open_images(tmp_path)) if kind != "JPEG" else None
    if found is not None:
        expected = np.array(image.convert("RGB"))
        torch.testing.assert_close(found[0].permute(1, 2, 0), torch.from_numpy(expected) / 127.5 - 1)


def test_memory_holds_a_few_batches_only() -> None:
    given = itertools.count()
    batches = iter(ImageSet("endless", Source(10**9, lambda: (Item(f"image {row}", PIXELS[0]) for row in given))))
    for _ in range(3):
        next(batches)
    assert next(given) <= 6 * 64


def test_grey_arrays_have_one_channel(tmp_path: Path) -> None:
    for index, array in enumerate((PIXELS[..., 0], PIXELS[..., :1])):
        np.save(tmp_path / f"{index}.npy", array)
        assert next(iter(open_images(tmp_path / f"{index}.npy", size=5))).shape == (64, 1, 5, 5)


BROKEN = {
    "cut off": file_bytes(PIXELS[0])[:60],
    "no image": b"<html>",
    "empty": b"",
    "16 bit": file_bytes(np.zeros((4, 4), np.uint16)),
    "another format": file_bytes(PIXELS[0], "GIF"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_image_is_named(fault: str, tmp_path: Path) -> None:
    place = as_folder(tmp_path)
    (place / "010.png").write_bytes(BROKEN[fault])
    with pytest.raises(InputError, match=r"010\.png"):
        list(open_images(place))


def test_images_beyond_pillows_limit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = as_folder(tmp_path)
    for limit in (35, 17):  # Pillow warns at the limit, and refuses at twice of it
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(InputError, match=r"000\.png is too large for an image"):
            list(open_images(place))


@pytest.mark.parametrize("pack", [*PACKED, as_npy])
def test_files_beyond_the_limit_are_not_read(pack: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qualitygate.features import image_sources

    images = open_images(pack(tmp_path))
    monkeypatch.setattr(image_sources, "MAX_FILE", 50)
    with pytest.raises(InputError, match="too large for an image"):
        list(images)


@pytest.mark.parametrize("pack", [as_zip, as_tar, as_parquet, as_npy, as_npz])
def test_files_that_are_cut_off(pack: Callable[[Path], Path], tmp_path: Path) -> None:
    path = pack(tmp_path)
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"set\."):
        list(open_images(path))


def test_places_without_images(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("")
    pq.write_table(pa.table({"a": [b"", b""], "b": [b"", b""]}), tmp_path / "two.parquet")
    pq.write_table(pa.table({"image": pa.array([None], pa.binary())}), tmp_path / "null.parquet")
    np.savez(tmp_path / "vectors.npz", features=np.zeros((3, 5)))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    for name, message in {
        "nowhere": "nothing at",
        "empty": "no images in",
        "notes.txt": "no set of images",
        "two.parquet": "not clear which column",
        "null.parquet": "no image in row 0",
        "vectors.npz": "not clear what",
        "objects.npy": "not clear what",
    }.items():
        with pytest.raises(InputError, match=message):
            list(open_images(tmp_path / name))
    with pytest.raises(InputError, match="cannot have this size"):
        open_images(as_folder(tmp_path), size=0)


def test_floats_must_be_in_the_range_of_images(tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 2 * 4 * 4 * 3, dtype=np.float32).reshape(2, 4, 4, 3)
    for array, message in ((ramp, r"seem to be in \[0, 1\]"), (ramp * 255, "none of an image"), (ramp * np.nan, "none of")):
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(InputError, match=message):
            list(open_images(tmp_path / "a.npy"))


def test_digits() -> None:
    images = digits_images()
    first = next(iter(images))
    assert (images.count, first.shape) == (1797, (64, 1, 32, 32))
    assert (first.min(), first.max()) == (-1.0, 1.0)
    assert images.sha256 == "6e4ebde3fc8943d58097e9a5da1063891cbfedbbafb90ddacb90c9a6a449fcc2"
    assert images.preparation == "centre square, Pillow bicubic to 32"
