"""A production run from end to end: the same set however it is made, and only what is missing is made."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from shard_helpers.making import Small, assert_whole, entries, records
from small_policy import small_policy

from qualitygate import names, storage
from qualitygate.errors import InputError
from qualitygate.produce.executor import InProcess
from qualitygate.produce.request import Form
from qualitygate.produce.run import produce
from qualitygate.produce.worker import ShardWorker

IDS = range(10, 150)


@pytest.fixture(scope="module")
def made(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("made") / "set"
    assert_whole(place, IDS, small.produce(place, ids=IDS))
    return place


def test_what_is_kept_is_what_the_gate_keeps(small: Small, made: Path) -> None:
    stage = small.source().open("cpu")
    blocks = list(stage.blocks(IDS))
    images = {int(block.latents.ids[row]): image for block in blocks for row, image in block.images.items()}
    written = {entry.id: entry for entry in entries(made)}
    assert written.keys() == images.keys()
    for one, entry in written.items():
        pixels = np.asarray(Image.open(io.BytesIO(entry.png))).astype(int)
        assert np.abs(pixels - storage.to_uint8(images[one])[..., 0]).max() <= 1
        assert entry.about["id"] == one
        assert entry.about["seed"] == 1
    verdicts = [str(verdict) for block in blocks for verdict in block.decisions.verdict]
    assert records(made)[names.VERDICT] == verdicts


def test_several_workers_make_the_same_set(small: Small, made: Path, tmp_path: Path) -> None:
    summary = small.produce(tmp_path / "set", workers=3, ids=IDS)
    assert_whole(tmp_path / "set", IDS, summary)
    assert entries(tmp_path / "set") == entries(made)
    assert records(tmp_path / "set") == records(made)


@pytest.mark.parametrize("form", [Form.PARQUET, Form.FOLDER])
def test_every_form_holds_the_same(small: Small, made: Path, tmp_path: Path, form: Form) -> None:
    summary = small.produce(tmp_path / "set", ids=IDS, form=form)
    assert_whole(tmp_path / "set", IDS, summary, form)
    assert entries(tmp_path / "set", form) == entries(made)


def test_a_number_of_images_is_exact_and_the_start_of_a_longer_set(small: Small, made: Path, tmp_path: Path) -> None:
    wanted = 90
    ours = small.produce(tmp_path / "a", accepted=wanted)
    assert ours.accepted + ours.corrected == wanted
    assert_whole(tmp_path / "a", range(ours.samples), ours)
    assert records(tmp_path / "a")[names.VERDICT][-1] != "reject"
    theirs = small.produce(tmp_path / "b", workers=2, accepted=wanted)
    assert entries(tmp_path / "a") == entries(tmp_path / "b")
    assert records(tmp_path / "a") == records(tmp_path / "b")
    assert theirs.samples == ours.samples
    assert len(list((tmp_path / "a" / "manifest").iterdir())) == 2


def test_what_is_done_is_not_made_again(small: Small, made: Path, tmp_path: Path) -> None:
    job = small.job(tmp_path / "set", ids=IDS)
    job.manifest().begin()
    first = ShardWorker(job, "cpu")(job.plan.shard(0))
    asked = []

    class Counting(InProcess):
        def work(self, shards):
            asked.extend(shards)
            return super().work(shards)

    summary = produce(job, Counting(job, "cpu"), small.loaded())
    assert asked == [job.plan.shard(1), job.plan.shard(2)]
    assert_whole(tmp_path / "set", IDS, summary)
    assert first.file in pq.read_table(tmp_path / "set" / "manifest.parquet").to_pydict()["file"]
    asked.clear()
    assert produce(job, Counting(job, "cpu"), small.loaded()) == summary
    assert asked == []


@pytest.mark.parametrize("changed", ["seed", "ids", "form", "policy"])
def test_a_set_under_another_plan_is_refused(small: Small, made: Path, changed: str) -> None:
    before = sorted(made.rglob("*"))
    source = small.source()
    if changed == "seed":
        source = small.source(seed=2)
    if changed == "policy":
        source = small.source(policy=small_policy(batch=()))
    asked = {"ids": range(10, 151)} if changed == "ids" else {"ids": IDS}
    if changed == "form":
        asked["form"] = Form.FOLDER
    with pytest.raises(InputError, match="under another plan"):
        small.produce(made, source=source, **asked)
    assert sorted(made.rglob("*")) == before


def test_a_place_with_something_else_in_it_is_refused(small: Small, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match=r"not empty\n.*mine\.txt"):
        small.produce(tmp_path)


def test_the_summary_says_where_the_time_went_and_what_an_image_cost(made: Path) -> None:
    metrics = json.loads((made / "summary.json").read_text())["metrics"]
    assert 0 < metrics[names.time_share("early")] < 1
    assert 0 < metrics[names.time_share("late")] < 1
    assert metrics[names.time_share("encode")] > 0
    assert metrics[names.time_share("write")] > 0
    share = metrics[names.ACCEPTED_SHARE]
    assert metrics[names.COST_FILTERED] == pytest.approx(metrics[names.COST_UNGATED] / share)
    assert metrics[names.COST_ACCEPTED] * metrics[names.YIELD] * len(IDS) == pytest.approx(metrics[names.SECONDS])


@pytest.mark.slow
def test_a_set_in_an_object_store(small: Small, made: Path, bucket: str, tmp_path: Path) -> None:
    from qualitygate.produce.store import open_store

    place = bucket.format("one")
    summary = small.produce(place, ids=IDS)
    store = open_store(place)
    for name in ("manifest.parquet", "summary.json"):
        (tmp_path / name).write_bytes(store.read(name))
    for folder in ("shards", "records"):
        (tmp_path / folder).mkdir()
        for name in store.names(folder):
            store.fetch(f"{folder}/{name}", tmp_path / folder)
    assert_whole(tmp_path, IDS, summary)
    assert entries(tmp_path) == entries(made)
    assert store.names(".partial") == []
    assert small.produce(place, ids=IDS) == summary
