"""What goes wrong in a long run, done for real. After each: every id exactly once, nothing half, a true summary."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from shard_helpers.faulty import THRESHOLD, AlwaysKilled, Killed, NotFinite, Swapped, faulty
from shard_helpers.making import Small, assert_whole, entries, executor, nothing_half, records
from shard_helpers.s3 import Server
from small import small_dcgan

from qualitygate import names
from qualitygate.checkpoints.save import save_generator
from qualitygate.cli import _interrupted
from qualitygate.errors import CheckpointError, ProfileError, StorageError, WorkerError
from qualitygate.generators.passes import Reporter
from qualitygate.produce import store as stores
from qualitygate.produce.executor import _PRELOADED, InProcess
from qualitygate.produce.manifest import Manifest
from qualitygate.produce.run import make, produce
from qualitygate.produce.store import open_store
from qualitygate.produce.worker import Job, ShardWorker

pytestmark = pytest.mark.slow

IDS = range(150)


@pytest.fixture(scope="module")
def untouched(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("untouched") / "set"
    small.produce(place, ids=IDS)
    return place


@pytest.fixture
def same(untouched: Path) -> Callable[..., None]:
    """Whether a set is what it would be without the fault."""

    def check(place: Path, summary) -> None:
        assert_whole(place, IDS, summary)
        assert entries(place) == entries(untouched)
        assert records(place) == records(untouched)

    return check


def started(target: Callable[..., None], *arguments: object) -> multiprocessing.Process:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


def drive(small: Small, job: Job, workers: int) -> None:
    """A driver as the command line runs one."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    make(executor(job, workers), Reporter())


def wait_for(happened: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_worker_killed_in_mid_shard_is_replaced(small: Small, same, tmp_path: Path) -> None:
    source = small.source(generator=faulty(Killed, small.checkpoint, tmp_path / "mark"))
    summary = small.produce(tmp_path / "set", workers=2, source=source, ids=IDS)
    assert (tmp_path / "mark").exists()
    same(tmp_path / "set", summary)


def test_workers_that_always_die_end_the_run(small: Small, same, tmp_path: Path) -> None:
    source = small.source(generator=faulty(AlwaysKilled, small.checkpoint))
    with pytest.raises(WorkerError, match=r"3 workers died(.|\n)*signal 9"):
        small.produce(tmp_path / "set", workers=2, source=source, ids=IDS)
    same(tmp_path / "set", small.produce(tmp_path / "set", ids=IDS))


@pytest.mark.parametrize(
    ("number", "workers", "code"), [(signal.SIGKILL, 2, -9), (signal.SIGTERM, 1, 143), (signal.SIGTERM, 2, 143), (signal.SIGINT, 1, 130)]
)
def test_a_driver_that_is_ended(small: Small, same, tmp_path: Path, number: int, workers: int, code: int) -> None:
    place = tmp_path / "set"
    job = small.job(place, ids=IDS)
    driver = started(drive, small, job, workers)
    wait_for(lambda: (place / "manifest").is_dir() and list((place / "manifest").iterdir()))
    assert driver.pid is not None
    os.kill(driver.pid, number)
    driver.join(30)
    assert driver.exitcode == code
    assert not (place / "summary.json").exists()
    if number != signal.SIGKILL:
        assert nothing_half(place)
    same(place, small.produce(place, ids=IDS))


def test_two_workers_on_one_shard_end_with_one(small: Small, tmp_path: Path) -> None:
    job = small.job(tmp_path / "set", ids=range(64))
    job.manifest().begin()
    both = [started(make_first, job) for _ in range(2)]
    for one in both:
        one.join(60)
        assert one.exitcode == 0
    row = job.manifest().row(job.plan.shard(0))
    assert row is not None
    there = {f"{one.parent.name}/{one.name}" for folder in ("shards", "records") for one in (tmp_path / "set" / folder).iterdir()}
    assert there == set(row.files)
    assert_whole(tmp_path / "set", range(64), small.produce(tmp_path / "set", ids=range(64)))


def test_two_runs_of_one_folder_at_once_end_with_one_whole_set(small: Small, tmp_path: Path) -> None:
    job = small.job(tmp_path / "set", ids=IDS, form=None)
    both = [started(drive_folder, job) for _ in range(2)]
    for one in both:
        one.join(120)
    assert 0 in [one.exitcode for one in both]
    table = pq.read_table(tmp_path / "set" / "samples.parquet").to_pydict()
    assert table[names.ID] == list(IDS)
    kept = {row for row, verdict in enumerate(table[names.VERDICT]) if verdict != "reject"}
    assert {int(path.stem) for path in (tmp_path / "set" / "images").iterdir()} == kept
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def drive_folder(job: Job) -> None:
    produce(InProcess(job, "cpu"))


def make_first(job: Job) -> None:
    ShardWorker(job, "cpu")(job.plan.shard(0))


def test_the_slower_of_two_workers_takes_its_files_back(small: Small, tmp_path: Path) -> None:
    """As where two kinds of devices make images that differ in the last digit."""
    job = small.job(tmp_path / "set", ids=range(64))
    manifest = job.manifest()
    manifest.begin()
    first = ShardWorker(job, "cpu")(job.plan.shard(0))
    slower = first.model_copy(update={"file": "shards/other.tar"})
    (tmp_path / "set" / "shards" / "other.tar").write_bytes(b"")
    assert manifest.commit(slower) == first
    assert not (tmp_path / "set" / "shards" / "other.tar").exists()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, far too small."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_a_disk_that_is_full(small: Small, same, disk: Path) -> None:
    with pytest.raises(StorageError, match=r"No space left on device(.|\n)*free some space"):
        small.produce(disk / "set", ids=IDS)
    assert nothing_half(disk / "set")
    assert not (disk / "set" / "summary.json").exists()
    subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
    same(disk / "set", small.produce(disk / "set", ids=IDS))


def test_a_store_that_refuses_and_comes_back(small: Small, bucket: str, tmp_path: Path, monkeypatch) -> None:
    server = Server()
    server.start()
    server.make_bucket("sets")
    place = server.uri("sets").format("away")
    job = small.job(place, ids=range(64))
    job.manifest().begin()
    server.stop()
    back = threading.Timer(1.5, server.start)
    back.start()
    row = ShardWorker(job, "cpu")(job.plan.shard(0))  # waits
    back.join()
    assert job.manifest().row(job.plan.shard(0)) == row
    server.stop()
    monkeypatch.setattr(stores, "_WAITS", (0.1,))
    with pytest.raises(StorageError, match=r"does not take or give anything(.|\n)*start the same command again"):
        small.produce(place, ids=range(64))
    server.start()
    summary = small.produce(place, ids=range(64))
    assert summary.samples == 64
    store = open_store(place)
    assert Manifest(store, job.plan).done() == [job.plan.shard(0)]
    assert store.names(".partial") == []
    server.stop()


def test_a_checkpoint_swapped_in_mid_run_is_refused(small: Small, same, tmp_path: Path) -> None:
    mine = tmp_path / "mine.safetensors"
    shutil.copy(small.checkpoint, mine)
    save_generator(small_dcgan(seed=9), tmp_path / "another.safetensors")
    (tmp_path / "another.safetensors").rename(tmp_path / "mine.other")
    source = small.source(generator=faulty(Swapped, mine, tmp_path / "mine"), file=mine)
    with pytest.raises(CheckpointError, match="another one than the set was begun with"):
        small.produce(tmp_path / "set", source=source, ids=IDS)
    job = small.job(tmp_path / "set", ids=IDS)
    assert job.manifest().done() == []  # not even the shard that was being made
    assert nothing_half(tmp_path / "set")
    other = Job(small.source(generator=faulty(Swapped, mine, tmp_path / "mine")), job.plan, job.place)
    with pytest.raises(ProfileError, match="belongs to another checkpoint"):  # nor does a worker begin with it
        ShardWorker(other, "cpu")
    same(tmp_path / "set", small.produce(tmp_path / "set", ids=IDS))


def test_a_stale_profile_is_refused_before_anything_is_written(small: Small, tmp_path: Path) -> None:
    save_generator(small_dcgan(seed=9), tmp_path / "newer.safetensors")
    newer = Small(tmp_path / "newer.safetensors", small.profile)
    with pytest.raises(ProfileError, match="calibrate this checkpoint"):
        newer.produce(tmp_path / "set", ids=IDS)
    assert not (tmp_path / "set").exists()


def test_a_sample_that_is_not_finite_is_rejected_and_harms_no_other(small: Small, untouched: Path, tmp_path: Path) -> None:
    stage = small.source().open("cpu").stage
    sums = stage.generator.run(stage.generator.start(stage.latents(IDS)), 0).activation.sum(dim=(1, 2, 3))
    broken = torch.nonzero(sums > THRESHOLD).flatten().tolist()
    assert 0 < len(broken) < 10
    source = small.source(generator=faulty(NotFinite, small.checkpoint))
    summary = small.produce(tmp_path / "set", source=source, ids=IDS)
    assert_whole(tmp_path / "set", IDS, summary)
    ours, theirs = records(tmp_path / "set"), records(untouched)
    for row in IDS:
        if row in broken:
            assert ours[names.VERDICT][row] == "reject"
            assert ours[names.REASONS][row] == ["score_not_finite:low_rate"]
        else:
            assert ours[names.VERDICT][row] == theirs[names.VERDICT][row]
    assert summary.reasons["score_not_finite:low_rate"] == len(broken)
