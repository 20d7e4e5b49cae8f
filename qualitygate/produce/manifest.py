"""The manifest of a set: the plan, and one row for every shard that is done.

A shard exists once its row does. Its files are there before the row and are named in it, after their contents: of two workers on one shard
the first row stays, and nobody ever sees a row and a file that do not belong together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, ValidationError, model_serializer

from qualitygate.errors import InputError, StorageError
from qualitygate.generators.passes import MICRO_BATCH
from qualitygate.produce.request import Form
from qualitygate.produce.store import Store
from qualitygate.records import Provenance, Record, canonical_hash
from qualitygate.records.gate import ExpectationResult
from qualitygate.records.images import ImageEncoding

PLAN, ROWS, SHARDS, RECORDS, IMAGES = "plan.json", "manifest", "shards", "records", "images"
TABLE = "manifest.parquet"
COUNTS = ("samples", "accepted", "corrected", "rejected", "borderline")
GATE, DRAIN, JUDGE, PUBLISH, OTHER = "gate", "drain", "judge", "publish", "other"
"""Parts of the work: all of the generating thread, what was still to be encoded and written after its last image, the suite, what follows
it, and what of the first is neither early, late nor waiting."""


@dataclass(frozen=True, order=True)
class Shard:
    """The unit of work: the ids from ``start`` up to, not including, ``stop``."""

    start: int
    stop: int

    @property
    def name(self) -> str:
        return f"{self.start:012d}-{self.stop:012d}"

    @property
    def ids(self) -> range:
        return range(self.start, self.stop)


class Plan(Record):
    """What a set is to hold. Work on a set goes on only under a plan of the same id."""

    format: Literal[1] = 1
    checkpoint_sha256: str
    profile_id: str
    policy_hash: str
    suite_hash: str
    seed: int
    start: int
    stop: int | None
    """The id to stop before; None where a number of images was asked for."""
    accepted: int | None
    """Images to be kept, accepted or corrected; None where a range of ids was asked for."""
    shard_size: int
    form: Form | None
    """None for one folder with a file for each image and one table of samples."""
    images: bool = True
    curvature: int = 0  # samples at either end of the deciding score that get an exact CLA
    latents: str | None = None
    """SHA-256 of the file of the user's own latents; their ids are its rows."""
    image_encoding: ImageEncoding = ImageEncoding()
    micro_batch: int = MICRO_BATCH
    """Samples in one pass, the same for all workers and whenever the set is gone on with. How it is made, not what it holds."""

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As before there was a choice of formats and micro-batches, where none was made."""
        later = {"image_encoding": ImageEncoding(), "micro_batch": MICRO_BATCH}
        return {key: value for key, value in write(self).items() if key not in later or getattr(self, key) != later[key]}

    @property
    def id(self) -> str:
        """Of what the set is to hold; what was added later counts only where it is used."""
        return canonical_hash({"format": self.format, **self.model_dump(mode="json", exclude_defaults=True, exclude={"micro_batch"})})

    def shard(self, index: int) -> Shard:
        start = self.start + index * self.shard_size
        stop = start + self.shard_size
        return Shard(start, stop if self.stop is None else min(stop, self.stop))


class ShardRow(Record):
    """One shard that is done."""

    plan: str
    start: int
    stop: int
    file: str | None
    """Of its images, relative to the set; None where none was kept, and where images have files of their own."""
    bytes: int
    sha256: str | None
    """Of that file; of a folder, of its files' names and SHA-256. Without a file, ``bytes`` are of all images together."""
    records: str
    """The table with one row for every id that was tried."""
    records_sha256: str
    samples: int
    accepted: int
    corrected: int
    rejected: int
    borderline: int
    reasons: dict[str, int]
    histograms: dict[str, tuple[int, ...]]
    """How many samples lie in each step of the scale of each score."""
    seconds: dict[str, float]
    """Of the parts of work, as measured by the worker."""
    probe: float | None
    """Seconds of one image generated without the gate, where this worker measured that."""
    evaluated: int
    """Hand-written expectations on samples that could be evaluated."""
    results: tuple[ExpectationResult, ...]
    """Those that were not met, or could not be evaluated."""
    provenance: Provenance

    @property
    def shard(self) -> Shard:
        return Shard(self.start, self.stop)

    @property
    def kept(self) -> int:
        return self.accepted + self.corrected

    @property
    def files(self) -> tuple[str, ...]:
        return (self.records,) if self.file is None else (self.file, self.records)


class Manifest:
    """The plan and the rows in a store."""

    def __init__(self, store: Store, plan: Plan) -> None:
        self._store, self.plan = store, plan

    def begin(self) -> None:
        """Write the plan down, or go on with the same one, in the micro-batches it was begun in: `InputError` if the place holds something
        else, or a set under another plan."""
        if self._store.read(PLAN) is None:
            if there := [name for name in self._store.names("") if not name.startswith(".")]:
                raise InputError(
                    f"{self._store} is not empty", ", ".join(there[:5]), "an empty place, or a set to go on with", "choose another place"
                )
            self._store.create(PLAN, self.plan.model_dump_json(indent=2).encode())
        found = self.begun
        if found.id != self.plan.id:
            changed = [(key, ours, getattr(found, key)) for key, ours in self.plan if ours != getattr(found, key) and key != "micro_batch"]
            said = [[f"{key} {str(one[side])[:20]}" for key, *one in changed] for side in (1, 0)]
            raise InputError(
                f"{self._store} holds a set under another plan",
                ", ".join(said[0]),
                ", ".join(said[1]),
                "ask for the same as before to go on with it, or choose another place",
            )

    @property
    def begun(self) -> Plan:
        """The plan as it was written down; as it is asked for, where none was yet."""
        data = self._store.read(PLAN)
        return self.plan if data is None else _parsed(Plan, data, PLAN)

    def row(self, shard: Shard) -> ShardRow | None:
        data = self._store.read(_row_name(shard))
        return None if data is None else _parsed(ShardRow, data, _row_name(shard))

    def done(self) -> list[Shard]:
        """All shards that have a row, by their first id; the shorter of two that begin alike first."""
        found = (name.removesuffix(".json").split("-") for name in self._store.names(ROWS) if name.endswith(".json"))
        return sorted(Shard(int(start), int(stop)) for start, stop in found)

    def rows(self, shards: Sequence[Shard]) -> Iterator[ShardRow]:
        for shard in shards:
            row = self.row(shard)
            if row is None:
                raise StorageError(
                    f"The row of shard {shard.name} is gone",
                    "no such file",
                    _row_name(shard),
                    "start the same command again: the shard is made anew",
                )
            yield row

    def commit(self, row: ShardRow) -> ShardRow:
        """Write a row whose files are there. Where another worker was faster, its row is the one, and our files go."""
        if self._store.create(_row_name(row.shard), row.model_dump_json().encode()):
            return row
        first = self.row(row.shard)
        if first is None:
            raise StorageError(f"The row of shard {row.shard.name} cannot be written or read", "neither", "one of the two")
        for name in set(row.files) - set(first.files):
            self._store.remove(name)
        return first

    def withdraw(self, shard: Shard) -> None:
        """Take a shard out of the set: its row first, then its files are nobody's and go with `tidy`."""
        self._store.remove(_row_name(shard))

    def tidy(self, files: set[str]) -> None:
        """Remove what no row names. Only when nobody writes."""
        for folder in (SHARDS, RECORDS):
            for name in self._store.names(folder):
                if f"{folder}/{name}" not in files:
                    self._store.remove(f"{folder}/{name}")
        self._store.sweep()


def _row_name(shard: Shard) -> str:
    return f"{ROWS}/{shard.name}.json"


def _parsed(kind: Any, data: bytes | None, name: str) -> Any:
    try:
        return kind.model_validate_json(data or b"")
    except ValidationError as error:
        raise InputError(f"Cannot read {name} of the set", str(error).splitlines()[0], "what this version of qualitygate writes") from error
