"""The shard worker: a range of ids to a shard of images, a table of records and a row in the manifest. The same on every machine."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qualitygate import names, storage, timing
from qualitygate.checkpoints.digest import file_sha256
from qualitygate.errors import CheckpointError
from qualitygate.gating.profile import load_profile
from qualitygate.gating.stage import GatedBlock, GateStage
from qualitygate.generators.base import Generator
from qualitygate.generators.passes import MICRO_BATCH, scored_pass
from qualitygate.policy.model import Policy
from qualitygate.produce.gated_set import PROVENANCE, judge, sample_rows
from qualitygate.produce.manifest import GATE, JUDGE, OTHER, PUBLISH, RECORDS, SHARDS, Manifest, Plan, Shard, ShardRow
from qualitygate.produce.request import Form
from qualitygate.produce.shards import WAIT, Encoding, shard_writer
from qualitygate.produce.store import open_store
from qualitygate.produce.watch import Scales
from qualitygate.records.gate import SuiteResult, Verdict

_PROBE_SHARE = 16  # the probe takes at most such a part of the first shard


@dataclass(frozen=True)
class Source:
    """What is gated and by which rules: small, and the same for every worker.

    Attributes:
        generator: makes the generator on a device.
        file: its checkpoint, where that is a local file: watched for changes.
        profile: folder of the profile.
        policy: None for the profile's.
        seed: of the samples.
    """

    generator: Callable[[str], Generator]
    file: Path | None
    profile: Path
    policy: Policy | None
    seed: int

    def open(self, device: str) -> GateStage:
        """The stage on a device.

        Raises:
            CheckpointError, ProfileError, PolicyError: as the parts of it.
        """
        profile = load_profile(self.profile)
        return GateStage(self.generator(device), profile, self.policy or profile.policy, seed=self.seed)


@dataclass(frozen=True)
class Job:
    """What a worker is to make, and where."""

    source: Source
    plan: Plan
    place: str

    def manifest(self) -> Manifest:
        return Manifest(open_store(self.place), self.plan)


class ShardWorker:
    """Makes shards on one device, one after the other.

    Args:
        job: what to make.
        device: where passes run.

    Raises:
        CheckpointError: the checkpoint is not the one of the plan.
        ProfileError: the profile is of another checkpoint.
    """

    def __init__(self, job: Job, device: str) -> None:
        self._source, self._plan = job.source, job.plan
        self._store = open_store(job.place)
        self._manifest = Manifest(self._store, job.plan)
        self._seen = _signature(job.source.file)
        self._stage = job.source.open(device)
        _check(self._stage.generator.identity().sha256, job.plan.checkpoint_sha256)
        self._file_sha256 = None if job.source.file is None else file_sha256(job.source.file)
        self._scales = Scales.of(self._stage.profile, self._stage.policy)
        self._probed = False

    def __call__(self, shard: Shard) -> ShardRow:
        """Make a shard, unless it is done.

        Raises:
            CheckpointError: the checkpoint's file is another one by now.
            StorageError: the store does not take it.
        """
        known = self._manifest.row(shard)
        if known is not None:
            return known
        self._check_unchanged()
        with self._store.workplace() as place:
            made = _make(self._stage, shard, self._plan.form, place)
            self._check_unchanged()  # weights may be read from the file as they are needed: written over, they changed in mid-shard
            return self._publish(shard, made, place)

    def _publish(self, shard: Shard, made: _Made, place: Path) -> ShardRow:
        start = time.perf_counter()
        provenance = self._stage.provenance
        storage.write_table(place / RECORDS, made.rows, {PROVENANCE: provenance.model_dump_json()})
        file = image_file(place / SHARDS, shard, self._plan.form) if made.kept else None
        records = File.of(place / RECORDS, RECORDS, shard, ".parquet")
        row = ShardRow(
            plan=self._plan.id,
            start=shard.start,
            stop=shard.stop,
            **file_fields(file),
            records=records.name,
            records_sha256=records.sha256,
            **counted(made.rows, self._scales),
            seconds={**made.seconds, PUBLISH: time.perf_counter() - start},
            probe=self._probe(shard),
            evaluated=made.judged.evaluated,
            results=made.judged.failures,
            provenance=provenance,
        )
        for one in (file, records):
            if one is not None:
                self._store.adopt(one.path, one.name)
        return self._manifest.commit(row)

    def _probe(self, shard: Shard) -> float | None:
        """Seconds of one image without the gate, measured once, when everything is warm; a small part of what the shard took."""
        if self._probed:
            return None
        self._probed = True
        count = max(1, min(MICRO_BATCH, len(shard.ids) // _PROBE_SHARE))
        latents = self._stage.latents(shard.ids[:count])
        with scored_pass():
            start = time.perf_counter()
            self._stage.generator(latents).cpu()
            return (time.perf_counter() - start) / count

    def _check_unchanged(self) -> None:
        """A look at the file's size and time; its hash only where these changed."""
        if (seen := _signature(self._source.file)) != self._seen and self._source.file is not None:
            _check(file_sha256(self._source.file) if seen else "no such file", self._file_sha256)
            self._seen = seen


@dataclass(frozen=True)
class _Made:
    rows: dict[str, Any]
    seconds: dict[str, float]
    judged: SuiteResult
    kept: int


def _make(stage: GateStage, shard: Shard, form: Form, place: Path) -> _Made:
    """Gate the shard's ids; what is kept is encoded and written while the next block is made."""
    blocks: list[GatedBlock] = []
    kept, start = 0, time.perf_counter()
    with timing.collect() as seconds, storage.explained(place):
        with Encoding(shard_writer(form, place / SHARDS)) as encoding:
            for block in stage.blocks(shard.ids):
                for row, image in sorted(block.images.items()):
                    encoding.put(int(block.latents.ids[row]), image, _about(stage, block, row))
                kept += len(block.images)
                block.images.clear()
                blocks.append(block)
            gated = time.perf_counter() - start
    rows = sample_rows(blocks, stage.seed)
    start = time.perf_counter()
    suite = {**stage.suite(len(shard.ids)), "summary": []}  # the rules on a whole set are for the whole set
    judged = judge(suite, rows, {})
    seconds += encoding.seconds
    seconds[OTHER] = gated - seconds[timing.EARLY] - seconds[timing.LATE] - seconds[WAIT]  # type: ignore[assignment]
    seconds.update({GATE: gated, JUDGE: time.perf_counter() - start})
    return _Made(rows, dict(seconds), judged, kept)


def _about(stage: GateStage, block: GatedBlock, row: int) -> dict[str, Any]:
    """What goes along with an image: enough to make it again, and to train by. Everything else is in the records."""
    labels, strength = block.latents.labels, block.decisions.strength[row]
    return {
        names.ID: int(block.latents.ids[row]),
        names.SEED: stage.seed,
        names.LABEL: None if labels is None else int(labels[row]),
        names.VERDICT: str(block.decisions.verdict[row]),
        names.STRENGTH: None if np.isnan(strength) else float(strength),
    }


def counted(rows: Mapping[str, Any], scales: Scales) -> dict[str, Any]:
    """The fields of a `ShardRow` that say what is in its records."""
    verdicts = Counter(rows[names.VERDICT])
    reasons = Counter(str(reason) for of_sample in rows[names.REASONS] for reason in of_sample)
    return {
        "samples": len(rows[names.ID]),
        "accepted": verdicts[Verdict.ACCEPT],
        "corrected": verdicts[Verdict.CORRECT],
        "rejected": verdicts[Verdict.REJECT],
        "borderline": int(np.sum(rows[names.BORDERLINE])),
        "reasons": dict(sorted(reasons.items())),
        "histograms": scales.histograms(rows),
    }


@dataclass(frozen=True)
class File:
    """A finished file or folder, still where it was made, and the name it is to have: after its contents."""

    path: Path
    name: str
    sha256: str
    bytes: int

    @classmethod
    def of(cls, path: Path, folder: str, shard: Shard, suffix: str) -> File:
        sha256, size = _digest(path)
        return cls(path, f"{folder}/{shard.name}.{sha256[:8]}{suffix}", sha256, size)


def image_file(path: Path, shard: Shard, form: Form) -> File:
    """The file of a shard's images."""
    return File.of(path, SHARDS, shard, form.suffix)


def file_fields(file: File | None) -> dict[str, Any]:
    """The fields of a `ShardRow` that name the file of its images."""
    if file is None:
        return {"file": None, "bytes": 0, "sha256": None}
    return {"file": file.name, "bytes": file.bytes, "sha256": file.sha256}


def _digest(path: Path) -> tuple[str, int]:
    """SHA-256 and size of a file; of a folder, of the names and SHA-256 of what is in it."""
    if path.is_file():
        return file_sha256(path), path.stat().st_size
    parts = [(one.name, file_sha256(one), one.stat().st_size) for one in sorted(path.iterdir())]
    whole = hashlib.sha256("".join(f"{sha256}  {name}\n" for name, sha256, _ in parts).encode())
    return whole.hexdigest(), sum(size for _, _, size in parts)


def _signature(file: Path | None) -> tuple[int, int, int] | None:
    if file is None or not file.is_file():
        return None
    found = os.stat(file)
    return found.st_ino, found.st_size, found.st_mtime_ns


def _check(found: str, needed: str | None) -> None:
    if found != needed:
        raise CheckpointError(
            "The checkpoint is another one than the set was begun with",
            f"SHA-256 {found[:12]}",
            f"SHA-256 {str(needed)[:12]}",
            "bring the first one back, or begin another set",
        )
