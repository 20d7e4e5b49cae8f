"""The shard worker: a range of ids to images, a table of records and a row in the manifest. The same on every machine."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from qualitygate import names, storage, timing
from qualitygate.errors import CheckpointError
from qualitygate.expectations import run_suite
from qualitygate.gating.profile import load_profile
from qualitygate.gating.stage import GatedBlock, GateStage
from qualitygate.generators.base import Generator
from qualitygate.generators.passes import Progress, on_host, silent
from qualitygate.latents import Latents, load_latents
from qualitygate.policy.model import Policy
from qualitygate.policy.suite import POLICY_ID
from qualitygate.produce.manifest import DRAIN, GATE, IMAGES, JUDGE, OTHER, PUBLISH, RECORDS, SHARDS, Manifest, Plan, Shard, ShardRow
from qualitygate.produce.records import PROVENANCE, sample_rows
from qualitygate.produce.request import Form
from qualitygate.produce.shards import cores, encoding, read_shard, shard_writer
from qualitygate.produce.store import Store, local_path, open_store
from qualitygate.produce.watch import Scales
from qualitygate.records.gate import SuiteResult, Verdict
from qualitygate.storage import file_sha256

_PROBE_SHARE = 16  # the probe takes at most such a part of the first shard
_SUFFIX = {Form.WEBDATASET: ".tar", Form.PARQUET: ".parquet", Form.FOLDER: ""}


@dataclass(frozen=True)
class GateSource:
    """What is gated and by which rules: small, and the same for every worker."""

    generator: Callable[[str], Generator]
    file: Path | None
    """Its checkpoint, where that is a local file: watched for changes."""
    profile: Path
    policy: Policy | None  # None for the profile's
    seed: int
    latents: Path | None = None
    """File of the user's own latents, in place of a seed; ids are its rows."""

    def open(self, device: str) -> OpenedSource:
        return OpenedSource(self, device)


class OpenedSource:
    """A source on a device: the stage, the samples, and a watch over the checkpoint's file."""

    def __init__(self, source: GateSource, device: str) -> None:
        self._file, self._seen = source.file, _signature(source.file)
        profile = load_profile(source.profile)
        own = None if source.latents is None else load_latents(source.latents)
        self.stage = GateStage(
            source.generator(device),
            profile,
            source.policy or profile.policy,
            seed=source.seed if own is None else None,
            latents_sha256=None if source.latents is None else file_sha256(source.latents),
            as_pixels=True,
        )
        self.own = None if own is None else self.stage.generator.checked(own)
        self._sha256 = None if source.file is None else file_sha256(source.file)

    def latents(self, ids: np.ndarray | range) -> Latents:
        return self.stage.latents(ids) if self.own is None else self.own[np.asarray(ids)]

    def blocks(self, ids: range) -> Iterator[GatedBlock]:
        return self.stage.blocks(ids) if self.own is None else self.stage.blocks(latents=self.own[ids.start : ids.stop])

    def check_unchanged(self) -> None:
        """Raises `CheckpointError` if it is another file by now: by its size and time, and its hash only where these changed."""
        if (seen := _signature(self._file)) != self._seen and self._file is not None:
            _check(file_sha256(self._file) if seen else "no such file", self._sha256)
            self._seen = seen


@dataclass(frozen=True)
class Job:
    source: GateSource
    plan: Plan
    place: str

    @property
    def workplace(self) -> str:
        """Where it is made. One folder on a disk is made beside its place, under a hidden name that the same job finds again."""
        path = local_path(self.place)
        if path is None or self.plan.form is not None:
            return self.place
        return str(path.with_name(f".{path.name}.partial-{self.plan.id[:12]}"))

    def manifest(self) -> Manifest:
        return Manifest(open_store(self.workplace), self.plan)

    def open(self, device: str, opened: OpenedSource | None = None) -> OpenedSource:
        """The source on a device, where it may be open already, in the micro-batches that the set was begun in."""
        opened = opened or self.source.open(device)
        opened.stage.generator.micro_batch = self.manifest().begun.micro_batch
        return opened


class ShardWorker:
    """Makes shards on one device, one after the other. ``opened`` is the job's source on that device, where it is open already; so many
    ``threads`` encode images, by default one for each core. Raises `CheckpointError` if its checkpoint is not the one of the plan, and
    `ProfileError` if the profile is of another one."""

    def __init__(self, job: Job, device: str, opened: OpenedSource | None = None, threads: int | None = None) -> None:
        self._threads = threads or cores()
        self._plan, self._store, self._manifest = job.plan, open_store(job.workplace), job.manifest()
        self._source = job.open(device, opened)
        self._stage = self._source.stage
        _check(self._stage.generator.identity().sha256, job.plan.checkpoint_sha256)
        self._scales = Scales.of(self._stage.profile, self._stage.policy)
        self._probed = job.plan.form is None  # a set in one folder tells no costs

    def __call__(self, shard: Shard, progress: Progress = silent) -> ShardRow:
        """Make a shard, unless it is done. Raises `CheckpointError` if the checkpoint's file is another one by now."""
        if (known := self._manifest.row(shard)) is not None:
            return known
        self._source.check_unchanged()
        with self._store.workplace() as place:
            rows, seconds = self._make(shard, place, progress)
            judged = self._judge(shard, rows, seconds)
            self._source.check_unchanged()  # weights may be read as they are needed: written over, they changed in mid-shard
            return self._publish(shard, rows, seconds, judged, place)

    def _make(self, shard: Shard, place: Path, progress: Progress) -> tuple[dict[str, Any], Counter[str]]:
        """Gate the shard's ids; what is kept is encoded and written while the next block is made."""
        blocks: list[GatedBlock] = []
        start = time.perf_counter()
        with timing.collect() as seconds, storage.explained(place):
            settings = (self._plan.form, place / SHARDS, self._threads, self._plan.image_encoding)
            with encoding(*settings) if self._plan.images else nullcontext() as encoder:
                for block in self._source.blocks(shard.ids):
                    kept = len(block.images)
                    if encoder is not None:
                        for row, image in sorted(block.images.items()):
                            encoder.put(int(block.latents.ids[row]), image, self._about(block, row))
                    block.images.clear()
                    blocks.append(block)
                    progress(len(block.latents) if self._plan.accepted is None else kept)
                gated = time.perf_counter() - start
        if encoder is not None:
            seconds += encoder.seconds
        seconds[DRAIN] = time.perf_counter() - start - gated  # type: ignore[assignment]
        seconds[OTHER] = gated - seconds[timing.EARLY] - seconds[timing.LATE] - seconds[timing.WAIT]  # type: ignore[assignment]
        seconds[GATE] = gated  # type: ignore[assignment]
        return sample_rows(blocks, self._stage.seed), seconds

    def _judge(self, shard: Shard, rows: dict[str, Any], seconds: Counter[str]) -> SuiteResult | None:
        """What was written by hand of samples is asked of every shard, so that a run stops early. The rest of the suite is for the set:
        Great Expectations takes as long over a shard as a GPU takes to make one."""
        suite = self._stage.suite(len(shard.ids))
        written = [one for one in suite["samples"] if POLICY_ID not in one["meta"]]
        if self._plan.form is None or not written:
            return None
        import pandas

        start = time.perf_counter()
        judged = run_suite({**suite, "samples": written, "summary": []}, pandas.DataFrame(rows), pandas.DataFrame())
        seconds[JUDGE] = time.perf_counter() - start  # type: ignore[assignment]
        return judged

    def _about(self, block: GatedBlock, row: int) -> dict[str, Any]:
        """What goes along with an image: enough to make it again, and to train by. Everything else is in the records."""
        labels, strength = block.latents.labels, block.decisions.strength[row]
        return {
            names.ID: int(block.latents.ids[row]),
            names.SEED: self._stage.seed,
            names.LABEL: None if labels is None else int(labels[row]),
            names.VERDICT: str(block.decisions.verdict[row]),
            names.STRENGTH: None if np.isnan(strength) else float(strength),
        }

    def _publish(self, shard: Shard, rows: dict[str, Any], seconds: Counter[str], judged: SuiteResult | None, place: Path) -> ShardRow:
        start = time.perf_counter()
        provenance, counts, form = self._stage.provenance, _counted(rows, self._scales), self._plan.form
        storage.write_table(place / RECORDS, rows, {PROVENANCE: provenance.model_dump_json()})
        written: dict[str, Any] = {"file": None, "bytes": 0, "sha256": None}
        if self._plan.images and form is None:
            written["bytes"] = sum(one.stat().st_size for one in (place / SHARDS).iterdir())
            self._store.adopt_files(place / SHARDS, IMAGES)
        elif self._plan.images and form is not None and counts["accepted"] + counts["corrected"]:
            written = _adopted(self._store, place / SHARDS, shard, form)
        written |= _adopted(self._store, place / RECORDS, shard, Form.PARQUET)
        row = ShardRow(
            plan=self._plan.id,
            start=shard.start,
            stop=shard.stop,
            **written,
            **counts,
            seconds={**seconds, PUBLISH: time.perf_counter() - start},
            probe=self._probe(shard),
            evaluated=0 if judged is None else judged.evaluated,
            results=() if judged is None else judged.failures,
            provenance=provenance,
        )
        return self._manifest.commit(row)

    def _probe(self, shard: Shard) -> float | None:
        """Seconds of one image without the gate, measured once, when everything is warm; a small part of what the shard took."""
        if self._probed:
            return None
        self._probed = True
        count = max(1, min(self._stage.generator.micro_batch, len(shard.ids) // _PROBE_SHARE))
        latents = self._source.latents(shard.ids[:count])
        with self._stage.generator.scored_pass():
            start = time.perf_counter()
            on_host(self._stage.generator(latents))
            return (time.perf_counter() - start) / count


def cut_shard(job: Job, scales: Scales, row: ShardRow, images: int) -> ShardRow:
    """The row of the same shard up to the id of its ``images``-th kept image (from 1), from what is stored alone. The longer one is left to
    be withdrawn."""
    if images == row.kept:
        return row
    store, plan = open_store(job.workplace), job.plan
    with store.workplace() as place, storage.explained(place):
        with store.local(row.records) as path:
            table = pq.read_table(path)
        kept = np.asarray(table[names.VERDICT]) != Verdict.REJECT
        count = int(np.flatnonzero(kept)[images - 1]) + 1
        shard = Shard(row.start, row.start + count)
        table = table.slice(0, count)
        pq.write_table(table, place / RECORDS, compression="zstd")
        fields = {"stop": shard.stop} | _adopted(store, place / RECORDS, shard, Form.PARQUET)
        if row.file is not None and plan.form is not None:
            with shard_writer(plan.form, place / SHARDS, plan.image_encoding.suffix) as add, store.local(row.file) as path:
                for entry in read_shard(plan.form, path):
                    if entry.id < shard.stop:
                        add(entry)
            fields |= _adopted(store, place / SHARDS, shard, plan.form)
        columns = {name: table[name].to_pylist() for name in table.column_names}
        return job.manifest().commit(row.model_copy(update={**fields, **_counted(columns, scales)}))


def _counted(rows: Mapping[str, Any], scales: Scales) -> dict[str, Any]:
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


def _adopted(store: Store, path: Path, shard: Shard, form: Form) -> dict[str, Any]:
    """Move images or records, named as their folder is, into the store, under a name after their contents; what a row says of them."""
    sha256, size = _digest(path)
    name = f"{path.name}/{shard.name}.{sha256[:8]}{_SUFFIX[form]}"
    store.adopt(path, name)
    return {"records": name, "records_sha256": sha256} if path.name == RECORDS else {"file": name, "bytes": size, "sha256": sha256}


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
