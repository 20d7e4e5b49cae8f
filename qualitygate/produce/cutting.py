"""The end of a set of so many images: its last shard is cut after the image that completes the number, from what is stored alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qualitygate import names, storage
from qualitygate.produce.manifest import RECORDS, SHARDS, Manifest, Shard, ShardRow
from qualitygate.produce.scales import Scales
from qualitygate.produce.shards import read_shard, shard_writer
from qualitygate.produce.store import Store
from qualitygate.produce.worker import File, counted, file_fields, image_file
from qualitygate.records.gate import Verdict


def cut_shard(store: Store, manifest: Manifest, scales: Scales, row: ShardRow, images: int) -> ShardRow:
    """The row of the same shard up to the id of its ``images``-th kept image. The longer one is left for `finish` to withdraw.

    Args:
        store: where the set is kept.
        manifest: of the set.
        scales: of its scores.
        row: the shard's.
        images: how many are wanted of it, from 1.
    """
    if images == row.kept:
        return row
    with store.workplace() as place, storage.explained(place):
        table = pq.read_table(store.fetch(row.records, place))
        kept = np.asarray(table[names.VERDICT]) != Verdict.REJECT
        count = int(np.flatnonzero(kept)[images - 1]) + 1
        shard = Shard(row.start, row.start + count)
        table = table.slice(0, count)
        pq.write_table(table, place / "cut.parquet", compression="zstd")
        records = File.of(place / "cut.parquet", RECORDS, shard, ".parquet")
        file = _cut_images(store, manifest, row, shard, place)
        shorter = row.model_copy(
            update={
                "stop": shard.stop,
                **file_fields(file),
                **counted(_columns(table), scales),
                "records": records.name,
                "records_sha256": records.sha256,
            }
        )
        for one in (file, records):
            store.adopt(one.path, one.name)
        return manifest.commit(shorter)


def _cut_images(store: Store, manifest: Manifest, row: ShardRow, shard: Shard, place: Path) -> File:
    assert row.file is not None, "a shard with images has a file of them"
    form = manifest.plan.form
    with shard_writer(form, place / SHARDS) as writer:
        for entry in read_shard(form, store.fetch(row.file, place)):
            if entry.id < shard.stop:
                writer.add(entry)
    return image_file(place / SHARDS, shard, form)


def _columns(table: pa.Table) -> dict[str, object]:
    return {name: table[name].to_pylist() for name in table.column_names}
