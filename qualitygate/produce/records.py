"""The records of a gated set of any size: written, read again, walked through in bounded memory, and decided again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qualitygate import names, storage
from qualitygate.errors import InputError, ProfileError, Reason
from qualitygate.gating.exhibit import choose
from qualitygate.gating.profile import Chain, check_validated, detection_layers, load_profile
from qualitygate.gating.scoring import add_totals
from qualitygate.gating.stage import GatedBlock
from qualitygate.latents import Latents
from qualitygate.policy.decide import Decisions, Limits, decide, over_limit
from qualitygate.policy.model import Policy, load_policy
from qualitygate.policy.scores import badness, parse
from qualitygate.produce.manifest import TABLE
from qualitygate.produce.store import Store
from qualitygate.records import Provenance
from qualitygate.records.gate import ExhibitRole, RuleLimit, Verdict
from qualitygate.reports.material import rules_on_samples, shown_score

SAMPLES, SURVEY, POLICY, PROFILE = "samples.parquet", "survey.parquet", "policy.yaml", "profile"
PROVENANCE = "qualitygate.provenance"
DRAWN = 20_000  # rows of a survey; of a smaller set, all
_BATCH = 65_536  # rows in memory at once
_ABOUT = "qualitygate.survey"
_NOT_SCORES = (names.STRENGTH, names.MOVED)
_FIXED = (names.ID, names.SEED, names.LABEL, names.VERDICT, names.STRENGTH, names.MOVED, names.BORDERLINE, names.REASONS)


def sample_rows(blocks: Sequence[GatedBlock], seed: int | None) -> dict[str, Any]:
    """The columns of ``samples.parquet``: one row for every sample of these blocks, in their order."""
    decisions = [block.decisions for block in blocks]
    labels = [block.latents.labels for block in blocks if block.latents.labels is not None]
    ids = np.concatenate([block.latents.ids for block in blocks])
    columns = sorted({name for block in blocks for name in block.columns} - {names.MOVED})
    return {
        names.ID: ids,
        names.SEED: [seed] * len(ids),
        names.LABEL: [label for part in labels for label in part.tolist()] or [None] * len(ids),
        names.VERDICT: [str(verdict) for part in decisions for verdict in part.verdict],
        names.STRENGTH: _null_for_nan(np.concatenate([part.strength for part in decisions])),
        names.MOVED: _null_for_nan(np.concatenate([block.columns[names.MOVED] for block in blocks])),
        names.BORDERLINE: np.concatenate([part.borderline for part in decisions]),
        names.REASONS: [list(reasons) for part in decisions for reasons in part.reasons],
        **{name: np.concatenate([block.columns.get(name, _not_needed(name, len(block.latents))) for block in blocks]) for name in columns},
    }


def recorded_block(latents: Latents, table: pa.Table) -> GatedBlock:
    """The block of these latents that whole rows of records came from, without its images: what `sample_rows` wrote, read again."""
    scores = [field.name for field in table.schema if pa.types.is_floating(field.type) and field.name != names.STRENGTH]
    columns = {name: _nan_for_null(table[name]) for name in dict.fromkeys((*scores, names.MOVED))}
    decisions = Decisions(
        verdict=np.array(table[names.VERDICT].to_pylist()),
        strength=_nan_for_null(table[names.STRENGTH]),
        reasons=[tuple(reasons) for reasons in table[names.REASONS].to_pylist()],
        borderline=_array(table[names.BORDERLINE]),
    )
    return GatedBlock(latents, columns, decisions, {})


def read_samples(path: str | Path) -> tuple[dict[str, np.ndarray], Provenance]:
    """Columns, each (N,), and provenance of a gated set's ``samples.parquet``. Raises `InputError` if it is another file."""
    columns, provenance = _read(path, PROVENANCE, "a table of gated samples", "samples.parquet as `qualitygate gate` writes it")
    return columns, Provenance.model_validate_json(provenance)


def _read(path: str | Path, key: str, what: str, needed: str) -> tuple[dict[str, np.ndarray], str]:
    table, metadata = storage.read_table(path)
    if key not in metadata:
        raise InputError(f"{path} is not {what}", f"a table of {', '.join(table.column_names[:5])} …", needed)
    return _arrays(table), metadata[key]


def _not_needed(name: str, count: int) -> np.ndarray:
    """The column of samples of which no one needed it: a strength was not tried on them, a score is not known."""
    return np.full(count, 0.0 if names.is_tried(name) else np.nan)


def _nan_for_null(column: pa.ChunkedArray) -> np.ndarray:
    return _array(column.cast(pa.float64()).fill_null(np.nan))


def _null_for_nan(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def _arrays(table: pa.Table) -> dict[str, np.ndarray]:
    return {name: _array(table[name]) for name in table.column_names}


def _array(column: pa.ChunkedArray) -> np.ndarray:
    return column.to_numpy(zero_copy_only=False)


# ---- of any size


@dataclass(frozen=True)
class Survey:
    """Rows drawn from the records of a set, and counts of all of them."""

    columns: Mapping[str, np.ndarray]
    """Id, verdict, borderline and scores of the rows that were drawn, in the order of their ids; NaN where a score is not known."""
    samples: int  # rows that they were drawn from
    over: Mapping[str, tuple[int, int]]
    """By rule, how many of all samples with a finite score are over its limit, and how many have one."""

    @property
    def is_part(self) -> bool:
        return len(self.columns[names.ID]) < self.samples

    def put(self, store: Store) -> None:
        about = json.dumps({"samples": self.samples, "over": self.over})
        store.put(SURVEY, storage.table_bytes(self.columns, {_ABOUT: about}))


def read_survey(path: Path) -> Survey:
    columns, found = _read(path, _ABOUT, "a survey of records", f"{SURVEY} as `qualitygate gate --shards` writes it")
    about = json.loads(found)
    return Survey(columns, about["samples"], {rule: (over, known) for rule, (over, known) in about["over"].items()})


class Records:
    """The records of a set of shards: ``stop``, ``samples`` and the name of the table of ``records`` of each, in the order of their ids."""

    def __init__(self, store: Store, shards: Mapping[str, Sequence[Any]]) -> None:
        self._store, self._shards = store, shards

    @classmethod
    def of_finished(cls, store: Store) -> Records:
        with store.local(TABLE) as path:
            return cls(store, pq.read_table(path, columns=["stop", "records", "samples"]).to_pydict())

    def survey(
        self, limits: Sequence[RuleLimit], drawn: int = DRAWN, ends: int = 0
    ) -> tuple[Survey, dict[ExhibitRole, np.ndarray], np.ndarray]:
        """A survey of ``drawn`` rows; the ids to show for each role, by the first rule's score; and those of the ``ends`` samples with the
        lowest, and with the highest, of that score, rising. One walk: held are the rows that the exhibit takes, and those at either end,
        while batches pass by, as what is taken of all rows is taken of what was held and the rest, too."""
        limits, samples = rules_on_samples(limits), sum(self._shards["samples"])
        random = np.random.Generator(np.random.Philox(0))
        wanted = np.sort(random.choice(samples, min(drawn, samples), replace=False, shuffle=False))
        deciding = [names.ID, limits[0].score, names.VERDICT, names.BORDERLINE]
        shown = {*deciding, *(limit.score for limit in limits)}
        rows, start, held, over = [], 0, None, dict.fromkeys((limit.rule for limit in limits), (0, 0))
        for batch in self._batches(lambda name: name in shown or shown_score(name)):
            low, high = np.searchsorted(wanted, (start, start + batch.num_rows))
            rows.append(batch.take(wanted[low:high] - start))
            over = _counted_over(batch, limits, over)
            held = batch.select(deciding) if held is None else pa.concat_tables([held, batch.select(deciding)])
            held = held.take(np.unique(np.concatenate([*_chosen(held).values(), _ends(held, ends)])))
            start += batch.num_rows
        assert held is not None, "a finished set has samples"
        ids, columns = _array(held[names.ID]), _arrays(pa.concat_tables(rows, promote_options="permissive"))
        return Survey(columns, samples, over), {role: ids[of] for role, of in _chosen(held).items()}, ids[_ends(held, ends)]

    def rows(self, ids: np.ndarray) -> pa.Table:
        """Whole records of the given ids, in the order of their ids."""
        tables = []
        for shard in np.unique(np.searchsorted(self._shards["stop"], ids, side="right")):
            with self._store.local(self._shards["records"][shard]) as path:
                table = pq.read_table(path)
            tables.append(table.filter(pa.array(np.isin(table[names.ID].to_numpy(), ids))))
        return pa.concat_tables(tables, promote_options="permissive")

    def tables(self, at_once: int) -> Iterator[tuple[int, pa.Table]]:
        """All of them, whole, in tables of the same columns and of about so many rows, each with the number of rows that it must have."""
        schemas = []
        for name in self._shards["records"]:
            with self._store.local(name) as path:
                schemas.append(pq.read_schema(path).remove_metadata())
        merged = pa.unify_schemas(schemas, promote_options="permissive")
        schema = pa.schema([merged.field(name) for name in (*_FIXED, *sorted(set(merged.names) - set(_FIXED)))])
        waiting: list[pa.Table] = []
        samples = 0
        for name, count in zip(self._shards["records"], self._shards["samples"], strict=True):
            if samples >= at_once:
                yield samples, pa.concat_tables(waiting)
                waiting, samples = [], 0
            with self._store.local(name) as path:
                table = pq.read_table(path)
            there = set(table.column_names)
            columns = [table[one] if one in there else pa.array(_not_needed(one, len(table))) for one in schema.names]
            waiting.append(pa.table(columns, schema.names).cast(schema))
            samples += count
        yield samples, pa.concat_tables(waiting)

    def _batches(self, wanted: Callable[[str], bool]) -> Iterator[pa.Table]:
        """All rows, with the columns that are wanted: of a shard in which a score was never needed, without that column."""
        for name in self._shards["records"]:
            with self._store.local(name) as path, pq.ParquetFile(path) as file:
                for batch in file.iter_batches(_BATCH, columns=list(filter(wanted, file.schema_arrow.names))):
                    yield pa.table(batch)


def _counted_over(batch: pa.Table, limits: Sequence[RuleLimit], so_far: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """How many samples are over each limit, of those whose score is finite; the others are rejected whatever the limit is."""
    counts = dict(so_far)
    for limit in (one for one in limits if one.score in batch.column_names):
        column = _array(batch[limit.score])
        finite = column[np.isfinite(column)]
        over, known = counts[limit.rule]
        counts[limit.rule] = over + int(over_limit(limit, finite).sum()), known + len(finite)
    return counts


def _chosen(held: pa.Table) -> dict[ExhibitRole, np.ndarray]:
    """Rows to show for each role, of a table of ids, deciding score, verdict and borderline."""
    score, verdict, borderline = map(_array, held.columns[1:])
    return choose(badness(held.column_names[1], score), verdict, borderline)


def _ends(held: pa.Table, count: int) -> np.ndarray:
    """The rows at either end of the deciding score, rising; what is not known counts as the highest."""
    score = _array(held.column(1))
    order = np.argsort(np.where(np.isfinite(score), score, np.inf), kind="stable")
    return np.unique(np.concatenate((order[:count], order[max(0, len(order) - count) :])))


# ---- decided again


@dataclass(frozen=True)
class Change:
    """What another policy makes of the same records."""

    rows: dict[str, Any]
    """Id, verdict, strength, reasons and borderline under the new policy."""
    before: np.ndarray
    """Verdicts under the old one (N,)."""
    limits: Limits

    def document(self) -> dict[str, Any]:
        after = np.asarray(self.rows[names.VERDICT])
        needs_image = (after != Verdict.REJECT) & (after != self.before)
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
    """Decide a gated set (its folder, or its ``samples.parquet``) again; by default with the copy of the profile in it. Raises
    `ProfileError` if it was gated with another one, and `PolicyError` if the policy needs scores that the records do not hold."""
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
    for name in [one for one in scores if "/" not in one]:
        found = parse(name)
        if found is not None and found.score.read_by is not None:
            del scores[name]  # a count over the layers that the set was gated with
    add_totals(scores, policy.detection.rates, detection_layers(policy, profile.info.chain))
    decisions = decide(limits, scores)
    rows = {
        names.ID: columns[names.ID],
        names.VERDICT: [str(verdict) for verdict in decisions.verdict],
        names.STRENGTH: _null_for_nan(decisions.strength),
        names.BORDERLINE: decisions.borderline,
        names.REASONS: [list(map(str, reasons)) for reasons in decisions.reasons],
    }
    return Change(rows, columns[names.VERDICT].astype(str), limits)


def _same_correction(gated_policy: Path, policy: Policy, chain: Chain) -> bool:
    """Whether what was tried is what this policy would try: records name method and strength alone. Without the policy that the set was
    gated with, they are taken at their word."""
    before = load_policy(gated_policy).correction if gated_policy.is_file() else None
    after = policy.correction
    if before is None or after is None:
        return True
    layers = [chain.checked(one.edited(chain.preset, chain.stop)) for one in (before, after)]
    return before.edit == after.edit and layers[0] == layers[1]
