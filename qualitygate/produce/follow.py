"""What a run knows while it goes on: the sums so far, what the live checks said, and which shards are still needed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from qualitygate.generators.passes import Progress
from qualitygate.produce.manifest import Plan, Shard, ShardRow
from qualitygate.produce.tally import Tally
from qualitygate.produce.watch import Watch
from qualitygate.records.gate import ExpectationResult, SuiteResult


@dataclass
class Follower:
    """Follows the rows of a plan, in the order of their ids.

    Attributes:
        shards: those that were followed.
        last: row of the last one.
        tally: sums over them.
        watched: what the live checks said of the last one.
        broken: expectations on single samples that some shard did not meet, by id.
    """

    watch: Watch
    plan: Plan
    shards: list[Shard] = field(default_factory=list)
    last: ShardRow | None = None
    tally: Tally = field(default_factory=Tally)
    watched: SuiteResult | None = None
    broken: dict[str, ExpectationResult] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether the run is to stop: a critical expectation was not met, or one could not be evaluated."""
        broken = any(one.severity == "critical" or one.note is not None for one in self.broken.values())
        return broken or (self.watched is not None and not self.watched.passed)

    @property
    def complete(self) -> bool:
        """Whether there are as many images as were asked for."""
        return self.plan.accepted is not None and self.tally.kept >= self.plan.accepted

    def wave(self) -> list[Shard]:
        """The next shards that are needed for certain, as far as can be known; none if nothing is missing.

        For a number of images: as many as would be enough if the share that is kept stayed what it is (at first: if all were kept).
        """
        followed, plan = len(self.shards), self.plan
        if plan.accepted is None:
            assert plan.stop is not None
            count = math.ceil((plan.stop - plan.start) / plan.shard_size)
        elif self.complete:
            count = followed
        else:
            share = self.tally.kept / self.tally.samples if followed else 1.0
            more = (plan.accepted - self.tally.kept) / (plan.shard_size * max(share, 1e-9))
            count = followed + math.ceil(min(more, 2 * followed + plan.accepted / plan.shard_size))
        return [plan.shard(index) for index in range(followed, count)]

    def take(self, rows: Iterable[ShardRow], progress: Progress) -> None:
        """Follow these rows, until there are enough images or a live check fails."""
        for row in rows:
            before = self.tally.copy()
            self.tally.add(row)
            self.watched = self.watch.look(row, before, self.tally)
            self.broken = {one.id: one for one in row.results} | self.broken
            self.shards.append(row.shard)
            self.last = row
            progress(row.samples if self.plan.accepted is None else row.kept)
            if self.failed or self.complete:
                return

    def wanted(self) -> int:
        """Images of the last shard that are wanted."""
        assert self.last is not None
        surplus = 0 if self.plan.accepted is None else max(0, self.tally.kept - self.plan.accepted)
        return self.last.kept - surplus
