"""Writing: in one step or not at all, also when the disk is full."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shard_helpers.making import JPEG, WEBP

from qualitygate import storage
from qualitygate.errors import InputError, OutputError, ProfileError, StorageError
from qualitygate.produce import shards
from qualitygate.produce.shards import encoding


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "er" / "set"
    with storage.new_folder(place) as folder:
        storage.write_bytes(folder / "one", b"1")
        (folder / "sub").mkdir()
        assert not place.exists()
    assert names(place) == ["one", "sub"]
    assert names(place.parent) == ["set"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    with storage.new_folder(tmp_path / "a") as folder:
        (tmp_path / "a").mkdir()
        storage.write_bytes(folder / "one", b"1")
    assert names(tmp_path / "a") == ["one"]


def test_what_is_there_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name, found in (("full", "a folder with mine"), ("file", "a file"), ("dangling", "a file")):
        with pytest.raises(OutputError, match=f"exists already\n  found: {found}"):
            with storage.new_folder(tmp_path / name):
                raise AssertionError("not reached")
    assert names(tmp_path) == ["dangling", "file", "full"]
    assert (tmp_path / "full" / "mine").read_text() == "x"


def test_what_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    def write() -> None:
        with storage.new_folder(tmp_path / "a"):
            (tmp_path / "a").mkdir()
            (tmp_path / "a" / "other").write_text("x")

    with pytest.raises(StorageError, match="not empty"):
        write()
    assert names(tmp_path) == ["a"]
    assert names(tmp_path / "a") == ["other"]


def test_two_containers_on_one_volume_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container every process may be number 1: temporary names must differ all the same."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with storage.new_folder(tmp_path / "set") as ours:
        storage.write_bytes(ours / "one", b"1")
        with storage.new_folder(tmp_path / "other") as theirs:
            storage.write_bytes(theirs / "two", b"2")
            assert ours.name.rpartition("-")[2] != theirs.name.rpartition("-")[2]
        assert names(ours) == ["one"]
    with storage.new_file(tmp_path / "file") as first:
        first.write_bytes(b"first")
        with storage.new_file(tmp_path / "file") as second:
            second.write_bytes(b"second")
        assert first.read_bytes() == b"first"
    assert (tmp_path / "file").read_bytes() == b"first"
    assert names(tmp_path) == ["file", "other", "set"]


@pytest.mark.parametrize("failure", [ValueError("no"), KeyboardInterrupt(), SystemExit(143)])
def test_nothing_stays_of_a_failure(tmp_path: Path, failure: BaseException) -> None:
    def write() -> None:
        with storage.new_folder(tmp_path / "a") as folder:
            storage.write_bytes(folder / "one", b"1")
            raise failure

    with pytest.raises(type(failure)):
        write()
    assert names(tmp_path) == []


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="File exists") as raised:
        with storage.new_folder(tmp_path / "file" / "a"):
            raise AssertionError("not reached")
    assert raised.value.remedy == "check the place and its permissions"
    assert raised.value.exit_code == 3
    with pytest.raises(StorageError, match="No such file"):
        storage.write_bytes(tmp_path / "none" / "a", b"1")


def test_a_file_changes_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "a.json"
    storage.write_bytes(place, b"old")
    seen: list[bytes] = []
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        seen.append(place.read_bytes())
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    storage.write_bytes(place, b"new and longer")
    assert seen == [b"old"]
    assert place.read_bytes() == b"new and longer"
    assert names(tmp_path) == ["a.json"]


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write_bytes(tmp_path / "a", b"old")
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(StorageError, match="No space left on device") as raised:
        storage.write_bytes(tmp_path / "a", b"new")
    assert raised.value.remedy == "free some space or choose another place"
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_a_full_disk_leaves_no_half_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.zeros((1, 4, 4), dtype=np.float32)

    def write() -> None:
        with storage.new_folder(tmp_path / "set") as folder:
            with encoding(None, folder / "images") as encoder:
                encoder.put(0, storage.to_uint8(image), {})
                monkeypatch.setattr(Path, "write_bytes", no_space)
                encoder.put(1, storage.to_uint8(image), {})

    with pytest.raises(StorageError, match="No space left on device"):
        write()
    assert names(tmp_path) == []


LIMITED = """
import resource, signal, sys
from pathlib import Path
from qualitygate import storage
from qualitygate.errors import StorageError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    with storage.new_folder(Path(sys.argv[1])) as folder:
        storage.write_bytes(folder / "small", b"1")
        storage.write_bytes(folder / "large", bytes(100_000))
except StorageError as error:
    print(error)
"""


def test_the_system_refuses_to_write_more(tmp_path: Path) -> None:
    """For real: a process that may not write files beyond 4 KiB."""
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path / "set")], capture_output=True, text=True, check=True)
    assert "large\n  found: File too large" in done.stdout
    assert names(tmp_path) == []


# images


def test_every_format_and_setting_has_its_effect() -> None:
    y, x = np.mgrid[:64, :64]
    image = np.stack((2 * x + y, 255 - 3 * y, (x * y) // 16), axis=2).astype(np.uint8)
    for one in (storage.PNG, WEBP, JPEG):
        data = storage.encode(image, one)
        assert data == storage.encode(image, one)
        with Image.open(io.BytesIO(data)) as file:
            assert file.format == one.format.upper()
            away = np.abs(np.asarray(file).astype(int) - image)
        assert (away.max() == 0) == (one == storage.PNG)
        assert away.mean() < 8
        grey = storage.encode(image[:, :, :1], one)
        assert np.asarray(Image.open(io.BytesIO(grey))).shape[:2] == (64, 64)
        less = {"level": 9} if one == storage.PNG else {"quality": 5}
        assert len(storage.encode(image, one.model_copy(update=less))) < len(data)


def test_what_a_format_cannot_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for one in (storage.PNG, WEBP, JPEG):
        for channels in (1, 3):
            storage.check_encoding(one, (channels, 1024, 1024))
    storage.check_encoding(WEBP, (4, 64, 64))
    with pytest.raises(InputError, match=r"as jpeg\n.*4 channels of 64×64\n.*1 or 3 channels(.|\n)*--image-format"):
        storage.check_encoding(JPEG, (4, 64, 64))
    with pytest.raises(InputError, match=r"as webp\n.*16384×8\n.*at most 16,383"):
        storage.check_encoding(WEBP, (3, 16_384, 8))
    monkeypatch.setattr(storage.features, "check", lambda name: name != "webp")
    storage.check_encoding(JPEG, (3, 64, 64))
    with pytest.raises(InputError, match=r"cannot write webp(.|\n)*install Pillow"):
        storage.check_encoding(WEBP, (3, 64, 64))


# tables


def test_tables_keep_nan_and_null_apart(tmp_path: Path) -> None:
    columns = {"score": np.array([1.0, np.nan]), "strength": [None, 0.1], "reasons": [["a"], []]}
    storage.write_table(tmp_path / "t.parquet", columns, {"who": "me"})
    table, metadata = storage.read_table(tmp_path / "t.parquet")
    assert metadata["who"] == "me"
    assert table["score"].null_count == 0
    assert np.isnan(table["score"].to_pylist()[1])
    assert table["strength"].to_pylist() == [None, 0.1]
    assert table["reasons"].to_pylist() == [["a"], []]
    (tmp_path / "bad").write_text("no table")
    for name in ("bad", "none"):
        with pytest.raises(ProfileError, match="Cannot read the table"):
            storage.read_table(tmp_path / name)


# images


def test_rounding_to_bytes() -> None:
    levels = np.arange(256, dtype=np.float32) / 127.5 - 1.0
    image = np.stack([levels, levels[::-1], levels]).reshape(3, 16, 16)
    as_bytes = storage.to_uint8(image)
    assert as_bytes.shape == (16, 16, 3)
    assert as_bytes[..., 0].flatten().tolist() == list(range(256))
    assert as_bytes[..., 1].flatten().tolist() == list(range(255, -1, -1))
    just_off = np.array([-1.0, -0.997, -0.995, 0.0, 0.99, 1.0, 1.2, -1.2], dtype=np.float32).reshape(1, 1, 8)
    assert storage.to_uint8(just_off).flatten().tolist() == [0, 0, 1, 128, 254, 255, 255, 0]


@pytest.mark.parametrize("channels", [1, 3])
def test_png_round_trip(channels: int, tmp_path: Path) -> None:
    image = np.random.default_rng(0).uniform(-1, 1, (channels, 5, 7)).astype(np.float32)
    with encoding(None, tmp_path / "images") as encoder:
        for sample_id in (3, 2**40):
            encoder.put(sample_id, storage.to_uint8(image), {})
    assert names(tmp_path / "images") == ["00000003.png", "1099511627776.png"]
    read = np.asarray(Image.open(io.BytesIO((tmp_path / "images" / "00000003.png").read_bytes())))
    assert np.array_equal(read.reshape(5, 7, channels), storage.to_uint8(image))


def test_many_images_and_a_failure_in_the_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_AHEAD", 2)
    image = np.zeros((1, 2, 2), dtype=np.float32)
    with encoding(None, tmp_path / "images") as encoder:
        for sample_id in range(20):
            encoder.put(sample_id, storage.to_uint8(image), {})
    assert len(names(tmp_path / "images")) == 20

    def write() -> None:
        with encoding(None, tmp_path / "more") as encoder:
            encoder.put(0, storage.to_uint8(image), {})
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        write()


# the cache


MADE = {"mean": np.zeros(2)}


def test_kinds_and_identities_have_places_of_their_own(tmp_path: Path) -> None:
    means, radii = (storage.array_cache(kind, tmp_path) for kind in ("means", "radii"))
    means.keep({"of": "x"}, MADE)
    means.keep({"of": "y"}, {"mean": np.ones(1)})
    assert radii.find({"of": "x"}) is None
    found = [means.find({"of": of}) for of in ("x", "y")]
    assert [(one["mean"].dtype, one["mean"].shape) for one in found if one is not None] == [(np.float64, (2,)), (np.float64, (1,))]
    means.remove({"of": "x"})
    assert means.find({"of": "x"}) is None
    means.remove({"of": "x"})


def test_something_else_in_a_place_is_not_used(tmp_path: Path) -> None:
    cache = storage.array_cache("means", tmp_path)
    cache.keep({"of": "x"}, MADE)
    cache.place({"of": "x"}).rename(cache.place({"of": "y"}))
    with pytest.warns(UserWarning, match=r"(?s)computed anew: .*something else than its name says"):
        assert cache.find({"of": "y"}) is None


def test_a_cache_without_a_place_costs_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.warns(UserWarning, match="is not kept"):
        storage.array_cache("means", tmp_path / "file").keep({}, MADE)


def test_a_folder_that_another_process_kept_first_is_left(tmp_path: Path) -> None:
    def write(place: Path, text: str) -> None:
        with storage.new_folder(place) as folder:
            storage.write_bytes(folder / "text", text.encode())

    cache = storage.ContentCache("texts", lambda place: (place / "text").read_text(), write, root=tmp_path)
    cache.keep({}, "first")
    cache.keep({}, "second")
    assert cache.find({}) == "first"
