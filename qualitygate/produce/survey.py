"""What a page needs to know of the records of a set of any size, in memory that does not grow with it.

One pass over the records keeps a random sample of rows, which figures are drawn from; exact counts of what is over the limits; and the
exact samples that the exhibit shows, the same as `gating.exhibit.choose` takes from a table of all of them.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qualitygate import names, storage
from qualitygate.errors import InputError
from qualitygate.gating.exhibit import choose
from qualitygate.produce.manifest import TABLE
from qualitygate.produce.store import Store
from qualitygate.records.gate import ExhibitRole, RuleLimit
from qualitygate.reports.material import rules_on_samples, shown_score

SURVEY = "survey.parquet"
DRAWN = 20_000
"""Rows of the sample; of a smaller set, all."""
_SEED = 0
_BATCH = 65_536  # rows in memory at once
_ABOUT = "qualitygate.survey"


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

    def write(self, path: Path) -> None:
        """Write it as a table."""
        about = json.dumps({"samples": self.samples, "over": self.over})
        storage.write_table(path, self.columns, {_ABOUT: about})


def read_survey(path: Path) -> Survey:
    """What `Survey.write` wrote.

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


class Surveyor:
    """Walks once through the records of a finished set.

    Args:
        store: where the set is kept.
        limits: as they were applied; the first rule's score chooses the exhibit.
        drawn: rows of the sample.
    """

    def __init__(self, store: Store, limits: Sequence[RuleLimit], drawn: int = DRAWN) -> None:
        self._store, self._limits, self._drawn = store, rules_on_samples(limits), drawn

    @cached_property
    def _shards(self) -> dict[str, list[Any]]:
        """End, records and samples of each shard, in the order of their ids."""
        with tempfile.TemporaryDirectory(prefix="qualitygate-") as place:
            table = pq.read_table(self._store.fetch(TABLE, Path(place)), columns=["stop", "records", "samples"])
        return table.to_pydict()

    def walk(self) -> tuple[Survey, dict[ExhibitRole, np.ndarray]]:
        """The survey, and the ids to show for each role."""
        samples = sum(self._shards["samples"])
        random = np.random.Generator(np.random.Philox(_SEED))
        wanted = np.sort(random.choice(samples, min(self._drawn, samples), replace=False, shuffle=False))
        drawn, counts, extremes = [], _Counts(self._limits), _Extremes(self._limits[0].score)
        start = 0
        for batch in self._batches():
            stop = start + batch.num_rows
            low, high = np.searchsorted(wanted, (start, stop))
            drawn.append(batch.take(wanted[low:high] - start))
            counts.add(batch)
            extremes.add(batch)
            start = stop
        return Survey(_arrays(pa.concat_tables(drawn, promote_options="permissive")), samples, counts.over), extremes.chosen()

    def rows(self, ids: np.ndarray) -> pa.Table:
        """Whole records of the given ids, in the order of their ids."""
        tables = []
        for shard in np.unique(np.searchsorted(self._shards["stop"], ids, side="right")):
            with tempfile.TemporaryDirectory(prefix="qualitygate-") as place:
                table = pq.read_table(self._store.fetch(self._shards["records"][shard], Path(place)))
            tables.append(table.filter(pa.array(np.isin(table[names.ID].to_numpy(), ids))))
        return pa.concat_tables(tables, promote_options="permissive")

    def _batches(self) -> Iterator[pa.Table]:
        """All rows, with the columns that pages show: of a shard in which a score was never needed, without that column."""
        for name in self._shards["records"]:
            with tempfile.TemporaryDirectory(prefix="qualitygate-") as place:
                with pq.ParquetFile(self._store.fetch(name, Path(place))) as file:
                    columns = [one for one in file.schema_arrow.names if self._is_shown(one)]
                    for batch in file.iter_batches(_BATCH, columns=columns):
                        yield pa.table(batch)

    def _is_shown(self, column: str) -> bool:
        known = (names.ID, names.VERDICT, names.BORDERLINE, *(limit.score for limit in self._limits))
        return column in known or shown_score(column)


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
    """The rows that `choose` takes, held while batches pass by: what it takes of all rows it takes of what was held and the rest, too."""

    def __init__(self, score: str) -> None:
        self._columns = [names.ID, score, names.VERDICT, names.BORDERLINE]
        self._held: pa.Table | None = None

    def add(self, batch: pa.Table) -> None:
        batch = batch.select(self._columns)
        self._held = batch if self._held is None else pa.concat_tables([self._held, batch])
        rows = np.unique(np.concatenate(list(self._choose().values())))
        self._held = self._held.take(rows)

    def chosen(self) -> dict[ExhibitRole, np.ndarray]:
        """Ids by role."""
        assert self._held is not None, "a finished set has samples"
        ids = self._held[names.ID].to_numpy()
        return {role: ids[rows] for role, rows in self._choose().items()}

    def _choose(self) -> dict[ExhibitRole, np.ndarray]:
        assert self._held is not None
        score, verdict, borderline = (_array(self._held[name]) for name in self._columns[1:])
        return choose(score, verdict, borderline)


def _arrays(table: pa.Table) -> dict[str, np.ndarray]:
    return {name: _array(table[name]) for name in table.column_names}


def _array(column: pa.ChunkedArray) -> np.ndarray:
    return column.to_numpy(zero_copy_only=False)
