"""A production run from end to end: the same set however it is made, and only what is missing is made."""

from __future__ import annotations

import io
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image
from shard_helpers.making import Small, assert_whole, entries, records
from small_policy import small_policy

from qualitygate import names
from qualitygate.errors import InputError, OutputError, StorageError
from qualitygate.generators import base
from qualitygate.generators.passes import Reporter
from qualitygate.produce import finalise
from qualitygate.produce.executor import InProcess
from qualitygate.produce.manifest import Plan
from qualitygate.produce.report import read_gated
from qualitygate.produce.request import Form
from qualitygate.produce.run import make, produce
from qualitygate.produce.store import LocalStore
from qualitygate.produce.worker import ShardWorker
from qualitygate.storage import image_name

IDS = range(10, 150)


@pytest.fixture(scope="module")
def made(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("made") / "set"
    assert_whole(place, IDS, small.produce(place, ids=IDS))
    return place


def test_what_is_kept_is_what_the_gate_keeps(small: Small, made: Path) -> None:
    blocks = list(small.source().open("cpu").blocks(IDS))
    images = {int(block.latents.ids[row]): image for block in blocks for row, image in block.images.items()}
    written = {entry.id: entry for entry in entries(made)}
    assert written.keys() == images.keys()
    for one, entry in written.items():
        pixels = np.asarray(Image.open(io.BytesIO(entry.image))).astype(int)
        assert np.abs(pixels - images[one][..., 0].astype(int)).max() <= 1
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
        def work(self, shards, progress):
            asked.extend(shards)
            return super().work(shards, progress)

    summary = make(Counting(job, "cpu"), Reporter())
    assert asked == [job.plan.shard(1), job.plan.shard(2)]
    assert_whole(tmp_path / "set", IDS, summary)
    assert first.file in pq.read_table(tmp_path / "set" / "manifest.parquet").to_pydict()["file"]
    asked.clear()
    assert make(Counting(job, "cpu"), Reporter()) == summary
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


def test_a_set_goes_on_in_the_micro_batches_it_was_begun_in(
    small: Small, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(base, "micro_batch_on", lambda device, widest: 16)
        begun = small.job(tmp_path / "set", ids=IDS)
        begun.manifest().begin()
        ShardWorker(begun, "cpu")(begun.plan.shard(0))
    job = small.job(tmp_path / "set", ids=IDS)
    assert (begun.plan.micro_batch, job.plan.micro_batch) == (16, 64)
    summary = make(InProcess(job, "cpu", job.source.open("cpu")), Reporter())
    assert_whole(tmp_path / "set", IDS, summary)
    rows = list(job.manifest().rows(job.manifest().done()))
    assert [row.provenance.micro_batch for row in (*rows, summary)] == [16] * 4
    assert records(tmp_path / "set") == records(made)


def test_ids_of_plans_are_those_of_plans_without_a_micro_batch() -> None:
    asked = {"checkpoint_sha256": "c", "profile_id": "p", "policy_hash": "q", "suite_hash": "s", "seed": 1, "start": 0, "stop": 10}
    plan = Plan(**asked, accepted=None, shard_size=64, form=Form.WEBDATASET)
    assert plan.id == "bbf3f9f8ad57d0d86289e446f9c9ec6331c0a46aaa6c8103c999fa6b2fdbc5e2"
    assert plan.model_copy(update={"micro_batch": 16}).id == plan.id


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
    assert 0 < metrics[names.time_share("wait")] < 1
    share = metrics[names.ACCEPTED_SHARE]
    assert metrics[names.COST_FILTERED] == pytest.approx(metrics[names.COST_UNGATED] / share)
    assert metrics[names.COST_ACCEPTED] * metrics[names.YIELD] * len(IDS) == pytest.approx(metrics[names.SECONDS])


class Broken(InProcess):
    """Its second shard is never finished."""

    def work(self, shards, progress):
        yield next(super().work(shards, progress))
        raise StorageError("Out of luck", "nothing", "a second shard")


def test_one_folder_goes_on_and_holds_what_shards_do(small: Small, made: Path, tmp_path: Path) -> None:
    job = small.job(tmp_path / "set", ids=IDS, form=None)
    for broken in (True, False, False):
        if broken:
            with pytest.raises(StorageError, match="Out of luck"):
                produce(Broken(job, "cpu"))
            assert job.manifest().done() == [job.plan.shard(0)]
            with pytest.raises(StorageError, match="Out of luck"):
                produce(Broken(small.job(tmp_path / "set", ids=range(300), form=None), "cpu"))  # another plan is in nobody's way
            images = sorted(Path(job.workplace, "images").iterdir())
            images[3].write_bytes(b"")  # as after a power cut: the shard is made again
            Path(job.workplace, "images", image_name(IDS[-1])).write_bytes(b"stray")
        elif not (tmp_path / "set").exists():
            summary = produce(InProcess(job, "cpu"))
            assert summary.suite is not None
        else:
            with pytest.raises(OutputError, match="exists already"):
                produce(InProcess(job, "cpu"))
    place = tmp_path / "set"
    table = pq.read_table(place / "samples.parquet").to_pydict()
    assert {name: table[name] for name in records(made)} == records(made)
    assert {int(path.stem): path.read_bytes() for path in (place / "images").iterdir()} == {one.id: one.image for one in entries(made)}
    assert not Path(job.workplace).exists()
    assert not [name for name in ("manifest", "records", "shards", "plan.json", ".partial") if (place / name).exists()]


def test_the_last_steps_of_one_folder_may_be_interrupted_too(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, remove = small.job(tmp_path / "set", ids=range(64), form=None), LocalStore.remove
    for last in ("manifest", "records", "plan.json"):

        def interrupted(store: LocalStore, name: str, last: str = last) -> None:
            if name == last:
                raise KeyboardInterrupt
            remove(store, name)

        with monkeypatch.context() as patch:
            patch.setattr(LocalStore, "remove", interrupted)
            with pytest.raises(KeyboardInterrupt):
                produce(InProcess(job, "cpu"))
        assert not (tmp_path / "set").exists()
    summary = produce(InProcess(job, "cpu"))
    assert len(list((tmp_path / "set" / "images").iterdir())) == summary.accepted + summary.corrected > 0
    assert [one.name for one in tmp_path.iterdir()] == ["set"]


class Interrupted(InProcess):
    """Ctrl-C after so many shards."""

    after = 0

    def work(self, shards, progress):
        yield from itertools.islice(super().work(shards, progress), self.after)
        raise KeyboardInterrupt


@pytest.mark.parametrize("form", [None, Form.WEBDATASET])
def test_an_interruption_says_whether_anything_is_kept(small: Small, tmp_path: Path, form: Form | None) -> None:
    executor = Interrupted(small.job(tmp_path / "set", ids=IDS, form=form), "cpu")
    for executor.after, words in ((0, "no part was done yet"), (1, "what is done is kept")):
        with pytest.raises(KeyboardInterrupt) as stopped:
            produce(executor)
        (note,) = stopped.value.__notes__
        assert words in note
        assert ("beside its place" in note) == (form is None and executor.after == 1)
        assert Path(executor.job.workplace).exists() == (form is not None or executor.after == 1)


def test_columns_of_shards_that_needed_them_are_in_one_table(small: Small, tmp_path: Path) -> None:
    """A strength that was tried in one shard only: 0 elsewhere, as if all had been one block."""
    produce(InProcess(small.job(tmp_path / "small", ids=IDS, form=None, shard_size=4), "cpu"))
    produce(InProcess(small.job(tmp_path / "whole", ids=IDS, form=None, shard_size=1000), "cpu"))
    ours, theirs = (pq.read_table(tmp_path / name / "samples.parquet") for name in ("small", "whole"))
    assert ours.schema.equals(theirs.schema, check_metadata=True)
    pd.testing.assert_frame_equal(ours.to_pandas(), theirs.to_pandas(), rtol=1e-4)


def test_a_large_set_is_judged_in_batches(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = produce(InProcess(small.job(tmp_path / "whole", ids=IDS, form=None), "cpu"))
    monkeypatch.setattr(finalise, "_BATCH", 64)
    monkeypatch.setattr(finalise, "_WHOLE", 100)
    parts = produce(InProcess(small.job(tmp_path / "parts", ids=IDS, form=None), "cpu"))
    assert whole.suite is not None
    assert parts.suite is not None
    outcomes = [[(one.id, one.success) for one in summary.suite.results] for summary in (whole, parts)]
    assert outcomes[0] == outcomes[1]
    assert parts.metrics.keys() == whole.metrics.keys()
    assert read_gated(tmp_path / "parts").drawn_from == len(IDS)
    assert read_gated(tmp_path / "whole").drawn_from is None


@pytest.mark.slow
def test_one_folder_in_an_object_store(small: Small, made: Path, bucket: str) -> None:
    from qualitygate.produce.store import open_store

    place = bucket.format("folder")
    summary = produce(InProcess(small.job(place, ids=IDS, form=None), "cpu"))
    store = open_store(place)
    assert {int(Path(name).stem): store.read(f"images/{name}") for name in store.names("images")} == {
        one.id: one.image for one in entries(made)
    }
    assert not {"manifest", "records", "plan.json", ".partial"} & set(store.names(""))
    assert {"samples.parquet", "summary.json", "report.html", "gallery", "figures", "profile"} <= set(store.names(""))
    assert read_gated(place).columns[names.ID].tolist() == list(IDS)
    assert summary.samples == len(IDS)
    with pytest.raises(OutputError, match="holds a set already"):
        produce(InProcess(small.job(place, ids=IDS, form=None), "cpu"))


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
            with store.local(f"{folder}/{name}") as copy:
                shutil.copy(copy, tmp_path / folder)
    assert_whole(tmp_path, IDS, summary)
    assert entries(tmp_path) == entries(made)
    assert store.names(".partial") == []
    assert small.produce(place, ids=IDS) == summary
