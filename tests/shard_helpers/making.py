"""A small checkpoint with its profile, and orders to produce from it; importable by worker processes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from small import small_dcgan
from small_policy import small_policy

from qualitygate import names
from qualitygate.checkpoints.load import load_generator
from qualitygate.checkpoints.save import save_generator
from qualitygate.gating.calibrate import calibrate
from qualitygate.gating.profile import Profile, load_profile
from qualitygate.generators.base import Generator
from qualitygate.generators.passes import Reporter
from qualitygate.produce.executor import Executor, InProcess, ProcessPool
from qualitygate.produce.manifest import Plan
from qualitygate.produce.request import Form
from qualitygate.produce.run import make, plan
from qualitygate.produce.shards import Entry, read_shard
from qualitygate.produce.worker import GateSource, Job
from qualitygate.records.gate import GateSummary
from qualitygate.records.images import ImageEncoding, ImageFormat

WEBP = ImageEncoding(format=ImageFormat.WEBP, level=None, quality=60)
JPEG = ImageEncoding(format=ImageFormat.JPEG, level=None, quality=90)


@dataclass(frozen=True)
class Small:
    """Files of a small generator."""

    checkpoint: Path
    profile: Path

    @classmethod
    def made(cls, folder: Path) -> Small:
        small = cls(folder / "model.safetensors", folder / "profile")
        save_generator(small_dcgan(), small.checkpoint)
        calibrate(load_generator(small.checkpoint), small_policy()).save(small.profile)
        return small

    def source(self, **changes: Any) -> GateSource:
        given: dict[str, Any] = {
            "generator": partial(load, self.checkpoint),
            "file": self.checkpoint,
            "profile": self.profile,
            "policy": None,
            "seed": 1,
        }
        return GateSource(**{**given, **changes})

    def job(self, place: Path | str, source: GateSource | None = None, **asked: Any) -> Job:
        source = source or self.source()
        return Job(source, self.plan(source, **asked), str(place))

    def plan(self, source: GateSource, **asked: Any) -> Plan:
        asked = {"ids": range(300), **asked} if "accepted" not in asked else asked
        return plan(source.open("cpu"), **{"shard_size": 64, **asked})

    def loaded(self) -> Profile:
        return load_profile(self.profile)

    def produce(self, place: Path | str, workers: int = 1, source: GateSource | None = None, **asked: Any) -> GateSummary:
        job = self.job(place, source, **asked)
        return make(executor(job, workers), Reporter())


def executor(job: Job, workers: int) -> Executor:
    return InProcess(job, "cpu") if workers == 1 else ProcessPool(job, "cpu", workers)


def load(path: Path, device: str) -> Generator:
    return load_generator(path, device)


def entries(place: Path, form: Form = Form.WEBDATASET) -> list[Entry]:
    """All images of a set, in order."""
    files = pq.read_table(place / "manifest.parquet").to_pydict()["file"]
    return [entry for file in files if file is not None for entry in read_shard(form, place / file)]


def records(place: Path) -> dict[str, list[Any]]:
    """One row for every id tried, in order."""
    tables = [pq.read_table(place / name) for name in pq.read_table(place / "manifest.parquet").to_pydict()["records"]]
    rows = [row for table in tables for row in table.to_pylist()]
    return {name: [row.get(name) for row in rows] for name in (names.ID, names.VERDICT, names.LABEL, names.REASONS)}


def assert_whole(place: Path, ids: range, summary: GateSummary, form: Form = Form.WEBDATASET) -> None:
    """Every id exactly once, an image for each that is kept, nothing half, and a summary that is true."""
    rows = records(place)
    assert rows[names.ID] == list(ids)
    kept = [one for one, verdict in zip(rows[names.ID], rows[names.VERDICT], strict=True) if verdict != "reject"]
    assert [entry.id for entry in entries(place, form)] == kept
    assert (summary.samples, summary.accepted + summary.corrected) == (len(ids), len(kept))
    assert summary.accepted == rows[names.VERDICT].count("accept")
    assert GateSummary.model_validate_json((place / "summary.json").read_bytes()) == summary
    table = pq.read_table(place / "manifest.parquet").to_pydict()
    named = {name for column in ("file", "records") for name in table[column] if name is not None}
    there = {f"{folder}/{one.name}" for folder in ("shards", "records") for one in (place / folder).iterdir()}
    assert there == named
    assert not (place / ".partial").exists()


def nothing_half(place: Path) -> bool:
    """Whether no writer left anything behind."""
    return not (place / ".partial").exists() or not list((place / ".partial").iterdir())
