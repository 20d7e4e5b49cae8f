"""Shards in every form: what goes in comes out, and the same images make the same bytes."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from qualitygate.errors import InputError, StorageError, public
from qualitygate.produce.request import Form
from qualitygate.produce.shards import Encoding, Entry, read_shard, shard_writer
from qualitygate.produce.store import LocalStore, open_store
from qualitygate.produce.worker import _digest

ENTRIES = [
    Entry(one, bytes([one % 256]) * (one + 1), {"id": one, "label": None, "verdict": "accept", "strength": 0.1}) for one in range(0, 600, 2)
]


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("form", list(Form))
def test_what_goes_in_comes_out_and_makes_the_same_bytes(form: Form, suffix: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        with shard_writer(form, tmp_path / name, suffix) as add:
            for entry in ENTRIES:
                add(entry)
    assert list(read_shard(form, tmp_path / "a")) == ENTRIES
    assert _digest(tmp_path / "a") == _digest(tmp_path / "b")


@pytest.mark.parametrize("form", [Form.WEBDATASET, Form.PARQUET])
def test_half_a_shard_is_an_error(form: Form, tmp_path: Path) -> None:
    with shard_writer(form, tmp_path / "whole") as add:
        for entry in ENTRIES:
            add(entry)
    (tmp_path / "half").write_bytes((tmp_path / "whole").read_bytes()[:50_000])
    with pytest.raises(StorageError, match="Cannot read the shard"):
        list(read_shard(form, tmp_path / "half"))


class Broken:
    """Fails with the third entry; until ``go`` is set it does not take any."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.go = threading.Event()

    def add(self, entry: Entry) -> None:
        self.go.wait(10)
        if len(self.taken) == 2:
            raise OSError(28, "No space left on device")
        self.taken.append(entry.id)


def feed(writer: Broken, handed: list[int]) -> None:
    image = np.zeros((2, 2, 1), dtype=np.uint8)
    with Encoding(writer.add, 2) as encoding:
        for sample in range(100_000):
            encoding.put(sample, image, {})
            handed.append(sample)


def test_an_error_of_the_writing_thread_reaches_the_generating_one() -> None:
    writer, handed = Broken(), list[int]()
    writer.go.set()
    with pytest.raises(OSError, match="No space"):
        feed(writer, handed)
    assert writer.taken == [0, 1]
    assert len(handed) < 100_000


def test_generation_waits_where_writing_is_slow() -> None:
    writer, handed = Broken(), list[int]()

    def generate() -> None:
        with pytest.raises(OSError, match="No space"):
            feed(writer, handed)

    thread = threading.Thread(target=generate)
    thread.start()
    thread.join(1.0)
    assert 0 < len(handed) < 600  # the queue is full
    writer.go.set()
    thread.join(10)
    assert not thread.is_alive()


def test_a_local_store_creates_once_and_replaces_at_will(tmp_path: Path) -> None:
    store = open_store(tmp_path / "set")
    assert isinstance(store, LocalStore)
    assert store.create("folder/file", b"first")
    assert not store.create("folder/file", b"second")
    assert store.read("folder/file") == b"first"
    store.put("folder/file", b"third")
    assert store.read("folder/file") == b"third"
    assert store.names("folder") == ["file"]
    store.remove("folder")
    assert store.read("folder/file") is None
    store.sweep()
    assert list((tmp_path / "set").iterdir()) == []


def test_passwords_of_a_store_are_not_shown() -> None:
    assert public("s3://key:secret@bucket/x") == "s3://***@bucket/x"
    with pytest.raises(InputError) as refused:
        open_store("nowhere://key:secret@bucket/x")
    assert "secret" not in str(refused.value)
