"""The records of a gated set of any size: written, read again, walked through in bounded memory, and decided again."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qualitygate import names, storage
from qualitygate.errors import InputError, ProfileError, Reason
from qualitygate.gating.exhibit import choose
from qualitygate.gating.profile import Chain, detection_layers, load_profile
from qualitygate.gating.scoring import add_totals
from qualitygate.gating.stage import GatedBlock
from qualitygate.gating.validated import check_validated
from qualitygate.latents import Latents
from qualitygate.policy.decide import Decisions, Limits, decide
from qualitygate.policy.model import Policy, load_policy
from qualitygate.policy.scores import parse
from qualitygate.produce.manifest import TABLE, ShardRow
from qualitygate.produce.store import Store
from qualitygate.records import Provenance
from qualitygate.records.gate import ExhibitRole, RuleLimit, Verdict
from qualitygate.reports.material import rules_on_samples, shown_score

SAMPLES, SURVEY, POLICY, PROFILE = "samples.parquet", "survey.parquet", "policy.yaml", "profile"
PROVENANCE = "qualitygate.provenance"
DRAWN = 20_000
"""Rows of a survey; of a smaller set, all."""
_SEED = 0
_BATCH = 65_536  # rows in memory at once
_ABOUT = "qualitygate.survey"
_NOT_SCORES = (names.STRENGTH, names.MOVED)
_FIXED = (names.ID, names.SEED, names.LABEL, names.VERDICT, names.STRENGTH, names.MOVED, names.BORDERLINE, names.REASONS)
_SHARD_COLUMNS = ["stop", "records", "samples"]


def sample_rows(blocks: Sequence[GatedBlock], seed: int | None) -> dict[str, Any]:
    """The columns of ``samples.parquet``: one row for every sample of these blocks, in their order."""
    decisions = [block.decisions for block in blocks]
    labels = [block.latents.labels for block in blocks]
    count = sum(len(block.latents) for block in blocks)
    columns = sorted({name for block in blocks for name in block.columns} - {names.MOVED})
    return {
        names.ID: np.concatenate([block.latents.ids for block in blocks]),
        names.SEED: [seed] * count,
        names.LABEL: [
            None if part is None else label
            for part, block in zip(labels, blocks, strict=True)
            for label in (part.tolist() if part is not None else [None] * len(block.latents))
        ],
        names.VERDICT: [str(verdict) for part in decisions for verdict in part.verdict],
        names.STRENGTH: _null_for_nan(np.concatenate([part.strength for part in decisions])),
        names.MOVED: _null_for_nan(np.concatenate([block.columns[names.MOVED] for block in blocks])),
        names.BORDERLINE: np.concatenate([part.borderline for part in decisions]),
        names.REASONS: [list(reasons) for part in decisions for reasons in part.reasons],
        **{name: np.concatenate([_column(block, name) for block in blocks]) for name in columns},
    }


def recorded_block(latents: Latents, table: pa.Table) -> GatedBlock:
    """The block that rows of records came from, without its images: what `sample_rows` wrote, read again.

    Args:
        latents: of the samples, in the order of the rows.
        table: whole rows of records.
    """
    scores = [field.name for field in table.schema if pa.types.is_floating(field.type) and field.name != names.STRENGTH]
    columns = {name: _nan_for_null(table[name]) for name in dict.fromkeys((*scores, names.MOVED))}
    decisions = Decisions(
        verdict=np.array(table[names.VERDICT].to_pylist()),
        strength=_nan_for_null(table[names.STRENGTH]),
        reasons=[tuple(reasons) for reasons in table[names.REASONS].to_pylist()],
        borderline=np.array(table[names.BORDERLINE].to_pylist(), dtype=bool),
    )
    return GatedBlock(latents, columns, decisions, {})


def read_samples(path: str | Path) -> tuple[dict[str, np.ndarray], Provenance]:
    """Columns and provenance of a gated set's ``samples.parquet``.

    Raises:
        InputError: not such a file.
    """
    table, metadata = storage.read_table(path)
    if PROVENANCE not in metadata:
        raise InputError(
            f"{path} is not a table of gated samples",
            f"a table of {', '.join(table.column_names[:5])} …",
            "samples.parquet as `qualitygate gate` writes it",
        )
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
    return columns, Provenance.model_validate_json(metadata[PROVENANCE])


def _column(block: GatedBlock, name: str) -> np.ndarray:
    """A block's column; a strength that no sample of the block needed was not tried there."""
    empty = 0.0 if names.is_tried(name) else np.nan
    return block.columns.get(name, np.full(len(block.latents), empty))


def _nan_for_null(column: pa.ChunkedArray) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in column.to_pylist()], dtype=np.float64)


def _null_for_nan(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


@dataclass(frozen=True)
class Survey:
    """Of the records of a set.

    Attributes:
        columns: id, verdict, borderline and scores of the rows that were drawn, in the order of their ids; NaN where a score is not known.
        samples: rows that they were drawn from.
        over: by rule, how many samples with a finite score are over its limit, and how many have one: of all rows.
    """

    columns: Mapping[str, np.ndarray]
    samples: int
    over: Mapping[str, tuple[int, int]]

    @property
    def is_part(self) -> bool:
        """Whether there are rows that were not drawn."""
        return len(self.columns[names.ID]) < self.samples

    def put(self, store: Store) -> None:
        """Write it into a set, as a table."""
        with store.workplace() as place:
            about = json.dumps({"samples": self.samples, "over": self.over})
            storage.write_table(place / SURVEY, self.columns, {_ABOUT: about})
            store.adopt(place / SURVEY, SURVEY)


def read_survey(path: Path) -> Survey:
    """What `Survey.put` wrote.

    Raises:
        InputError: another table.
        ProfileError: it cannot be read.
    """
    table, metadata = storage.read_table(path)
    if _ABOUT not in metadata:
        raise InputError(
            f"{path} is no survey of records",
            f"a table of {', '.join(table.column_names[:5])} …",
            f"{SURVEY} as `qualitygate gate --shards` writes it",
        )
    about = json.loads(metadata[_ABOUT])
    return Survey(_arrays(table), about["samples"], {rule: (over, known) for rule, (over, known) in about["over"].items()})


class Records:
    """The records of a set of shards.

    Args:
        store: where the set is kept.
        shards: its shards, in the order of their ids: ``stop``, ``samples`` and the name of the table of ``records`` of each.
    """

    def __init__(self, store: Store, shards: Mapping[str, Sequence[Any]]) -> None:
        self._store, self._shards = store, shards

    @classmethod
    def of_finished(cls, store: Store) -> Records:
        """Those of a set of shards that is finished."""
        with tempfile.TemporaryDirectory(prefix="qualitygate-") as place:
            return cls(store, pq.read_table(store.fetch(TABLE, Path(place)), columns=_SHARD_COLUMNS).to_pydict())

    @classmethod
    def of(cls, store: Store, rows: Iterable[ShardRow]) -> Records:
        """Those of these rows of a manifest."""
        shards = [tuple(getattr(row, name) for name in _SHARD_COLUMNS) for row in rows]
        return cls(store, dict(zip(_SHARD_COLUMNS, zip(*shards, strict=True), strict=True)))

    def survey(
        self, limits: Sequence[RuleLimit], drawn: int = DRAWN, extremes: int = 0
    ) -> tuple[Survey, dict[ExhibitRole, np.ndarray], np.ndarray]:
        """One walk through all of them.

        Args:
            limits: as they were applied; the first rule's score chooses the exhibit.
            drawn: rows of the survey.
            extremes: of the deciding score.

        Returns:
            The survey; the ids to show for each role; and those of so many samples with the lowest and with the highest score.
        """
        limits, samples = rules_on_samples(limits), sum(self._shards["samples"])
        random = np.random.Generator(np.random.Philox(_SEED))
        wanted = np.sort(random.choice(samples, min(drawn, samples), replace=False, shuffle=False))
        rows, counts, held, start = [], _Counts(limits), _Extremes(limits[0].score, extremes), 0
        shown = {names.ID, names.VERDICT, names.BORDERLINE, *(limit.score for limit in limits)}
        for batch in self._batches(lambda name: name in shown or shown_score(name)):
            stop = start + batch.num_rows
            low, high = np.searchsorted(wanted, (start, stop))
            rows.append(batch.take(wanted[low:high] - start))
            counts.add(batch)
            held.add(batch)
            start = stop
        columns = _arrays(pa.concat_tables(rows, promote_options="permissive"))
        return Survey(columns, samples, counts.over), held.chosen(), held.extremes()

    def rows(self, ids: np.ndarray) -> pa.Table:
        """Whole records of the given ids, in the order of their ids."""
        tables = []
        for shard in np.unique(np.searchsorted(self._shards["stop"], ids, side="right")):
            with tempfile.TemporaryDirectory(prefix="qualitygate-") as place:
                table = pq.read_table(self._store.fetch(self._shards["records"][shard], Path(place)))
            tables.append(table.filter(pa.array(np.isin(table[names.ID].to_numpy(), ids))))
        return pa.concat_tables(tables, promote_options="permissive")

    def tables(self, at_once: int) -> Iterator[tuple[int, pa.Table]]:
        """All of them, whole, in tables of the same columns and of about so many rows, each with the number of rows that it must have."""
        schemas = []
        for name in self._shards["records"]:
            with tempfile.TemporaryDirectory(prefix="qualitygate-") as place:
                schemas.append(pq.read_schema(self._store.fetch(name, Path(place))).remove_metadata())
        merged = pa.unify_schemas(schemas, promote_options="permissive")
        fixed = [name for name in _FIXED if name in merged.names]
        schema = pa.schema([merged.field(name) for name in (*fixed, *sorted(set(merged.names) - set(fixed)))])
        waiting: list[pa.Table] = []
        samples = 0
        for name, count in zip(self._shards["records"], self._shards["samples"], strict=True):
            if samples >= at_once:
                yield samples, pa.concat_tables(waiting)
                waiting, samples = [], 0
            with tempfile.TemporaryDirectory(prefix="qualitygate-") as place:
                waiting.append(_with_columns(pq.read_table(self._store.fetch(name, Path(place))), schema))
            samples += count
        yield samples, pa.concat_tables(waiting)

    def _batches(self, wanted: Callable[[str], bool]) -> Iterator[pa.Table]:
        """All rows, with the columns that are wanted: of a shard in which a score was never needed, without that column."""
        for name in self._shards["records"]:
            with tempfile.TemporaryDirectory(prefix="qualitygate-") as place:
                with pq.ParquetFile(self._store.fetch(name, Path(place))) as file:
                    columns = [one for one in file.schema_arrow.names if wanted(one)]
                    for batch in file.iter_batches(_BATCH, columns=columns):
                        yield pa.table(batch)


def _with_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with all columns of the schema. A strength that no sample of a shard needed was not tried there: 0; the rest is NaN."""
    empty = {name: np.full(len(table), 0.0 if names.is_tried(name) else np.nan) for name in schema.names if name not in table.column_names}
    return pa.table([table[name] if name in table.column_names else pa.array(empty[name]) for name in schema.names], schema.names).cast(
        schema
    )


class _Counts:
    """How many samples are over each limit, of those whose score is finite; the others are rejected whatever the limit is."""

    def __init__(self, limits: Sequence[RuleLimit]) -> None:
        self._limits = limits
        self.over = {limit.rule: (0, 0) for limit in limits}

    def add(self, batch: pa.Table) -> None:
        for limit in self._limits:
            if limit.score not in batch.column_names:
                continue
            column = _array(batch[limit.score])
            over, known = self.over[limit.rule]
            finite = np.isfinite(column)
            self.over[limit.rule] = over + int((column[finite] > limit.limit).sum()), known + int(finite.sum())


class _Extremes:
    """The rows that `choose` takes, and those at either end, held while batches pass by: what is taken of all rows is taken of what was
    held and the rest, too."""

    def __init__(self, score: str, ends: int) -> None:
        self._columns, self._ends = [names.ID, score, names.VERDICT, names.BORDERLINE], ends
        self._held: pa.Table | None = None

    def add(self, batch: pa.Table) -> None:
        batch = batch.select(self._columns)
        self._held = batch if self._held is None else pa.concat_tables([self._held, batch])
        self._held = self._held.take(np.unique(np.concatenate([*self._choose().values(), self._at_the_ends()])))

    def chosen(self) -> dict[ExhibitRole, np.ndarray]:
        """Ids by role."""
        return {role: self._ids(rows) for role, rows in self._choose().items()}

    def extremes(self) -> np.ndarray:
        """Ids at either end, rising."""
        return self._ids(self._at_the_ends())

    def _ids(self, rows: np.ndarray) -> np.ndarray:
        assert self._held is not None, "a finished set has samples"
        ids: np.ndarray = self._held[names.ID].to_numpy()[rows]
        return ids

    def _choose(self) -> dict[ExhibitRole, np.ndarray]:
        assert self._held is not None
        score, verdict, borderline = (_array(self._held[name]) for name in self._columns[1:])
        return choose(score, verdict, borderline)

    def _at_the_ends(self) -> np.ndarray:
        assert self._held is not None
        score = _array(self._held[self._columns[1]])
        order = np.argsort(np.where(np.isfinite(score), score, np.inf), kind="stable")
        return np.unique(np.concatenate((order[: self._ends], order[len(order) - min(self._ends, len(order)) :])))


def _arrays(table: pa.Table) -> dict[str, np.ndarray]:
    return {name: _array(table[name]) for name in table.column_names}


def _array(column: pa.ChunkedArray) -> np.ndarray:
    return column.to_numpy(zero_copy_only=False)


@dataclass(frozen=True)
class Change:
    """What another policy makes of the same records.

    Attributes:
        rows: id, verdict, strength, reasons and borderline under the new policy.
        before: verdicts under the old one (N,).
        limits: the new limits.
    """

    rows: dict[str, Any]
    before: np.ndarray
    limits: Limits

    def document(self) -> dict[str, Any]:
        """Counts, yields and limits as plain data."""
        after = np.asarray(self.rows[names.VERDICT])
        had_image = self.before == Verdict.ACCEPT
        needs_image = (after != Verdict.REJECT) & ~(had_image & (after == Verdict.ACCEPT)) & (after != self.before)
        untried = np.array([str(Reason.CORRECTION_NOT_TRIED) in reasons for reasons in self.rows[names.REASONS]])
        return {
            "samples": len(after),
            "before": {str(one): int((self.before == one).sum()) for one in Verdict},
            "after": {str(one): int((after == one).sum()) for one in Verdict},
            "yield_before": float((self.before != Verdict.REJECT).mean()),
            "yield_after": float((after != Verdict.REJECT).mean()),
            "changed": int((after != self.before).sum()),
            "to_gate_again": int((untried | needs_image).sum()),
            "limits": [limit.model_dump(mode="json") for limit in (*self.limits.rules, *self.limits.recheck_limits.values())],
        }


def redecide(gated: str | Path, policy_file: str | Path, profile_folder: str | Path | None = None) -> Change:
    """Decide a gated set again.

    Args:
        gated: the gated set's folder, or its ``samples.parquet``.
        policy_file: the other policy.
        profile_folder: the profile; by default the copy in the gated set.

    Raises:
        ProfileError: no profile, or not the one that the set was gated with.
        PolicyError: the policy cannot be read, or needs scores that the records do not hold.
    """
    table = Path(gated) / SAMPLES if Path(gated).is_dir() else Path(gated)
    columns, provenance = read_samples(table)
    policy = load_policy(policy_file)
    profile = load_profile(profile_folder or table.parent / PROFILE)
    if profile.info.profile_id != provenance.profile_id:
        raise ProfileError(
            "The records were made with another profile",
            f"profile {profile.info.profile_id[:12]}",
            f"profile {provenance.profile_id[:12]}",
            "give the right one with --profile",
        )
    check_validated(profile, policy)
    limits = profile.limits(policy)
    scores = {name: column for name, column in columns.items() if column.dtype.kind == "f" and name not in _NOT_SCORES}
    if not _same_correction(table.parent / POLICY, policy, profile.info.chain):
        scores = {name: column for name, column in scores.items() if not names.is_trial(name)}
    _sum_again(scores, policy.detection.rates, detection_layers(policy, profile.info.chain))
    decisions = decide(limits, scores)
    rows = {
        names.ID: columns[names.ID],
        names.VERDICT: [str(verdict) for verdict in decisions.verdict],
        names.STRENGTH: [None if np.isnan(strength) else float(strength) for strength in decisions.strength],
        names.BORDERLINE: decisions.borderline,
        names.REASONS: [list(map(str, reasons)) for reasons in decisions.reasons],
    }
    return Change(rows, columns[names.VERDICT].astype(str), limits)


def _sum_again(scores: dict[str, np.ndarray], at: Sequence[float], layers: tuple[int, ...]) -> None:
    """The sums over the layers that this policy counts, in place of those that the set was gated with. There is none over a layer
    that the records do not hold."""
    for total in [name for name in scores if "/" not in name and _is_count(name)]:
        del scores[total]
    if all(names.never_seen(layer) in scores for layer in layers):
        known = [r for r in at if all(names.low_rate(r, layer) in scores for layer in layers)]
        add_totals(scores, known, layers)


def _same_correction(gated_policy: Path, policy: Policy, chain: Chain) -> bool:
    """Whether what was tried is what this policy would try: records name method and strength alone. Without the policy that the set was
    gated with, they are taken at their word."""
    before = load_policy(gated_policy).correction if gated_policy.is_file() else None
    after = policy.correction
    if before is None or after is None:
        return True
    layers = [chain.checked(one.edited(chain.preset, chain.stop)) for one in (before, after)]
    return before.edit == after.edit and layers[0] == layers[1]


def _is_count(name: str) -> bool:
    found = parse(name)
    return found is not None and found.score.read_by is not None
