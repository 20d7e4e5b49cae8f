"""The metrics of sets of images that there are, one measured number with all that makes it comparable, and what `metrics` writes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.plugins import plugins
from qualitygate.records import CheckpointOrigin, Interval, Record, SoftwareOrigin

MOST_NAMED = 20
"""Images that a report names of those that are alike."""
Need = Literal["real", "discriminator", "paths", "classes"]
"""What a metric cannot do without: real images, the checkpoint's discriminator, path lengths, or class probabilities."""


@dataclass(frozen=True)
class Metric:
    """A number of a set of images."""

    name: str
    """As it stands in records: a promise."""
    title: str
    higher_is_better: bool | None
    """None where neither is: the metric describes, and no rule of a check names it."""
    needs: Need
    where: str = ""
    """Class that computes it: module below `qualitygate.metrics`, a colon, its name; empty in another package."""
    of_groups: bool = True
    """Measured of every group, and open to rules of a check; else only of a whole set, on demand."""
    share: bool = False
    """Of images, so in [0, 1], and so are the ends of its interval."""

    @property
    def heading(self) -> str:
        """Its title with its arrow, where it has one."""
        return f"{self.title} {self.arrow}".rstrip()

    @property
    def arrow(self) -> str:
        """Which way is better: up, down, or nothing."""
        return {True: "↑", False: "↓", None: ""}[self.higher_is_better]


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(names.FID, "FID", False, "real", "frechet:FrechetDistance"),
        Metric(names.FID_INFINITY, "FID∞", False, "real", "frechet:ExtrapolatedFrechetDistance", of_groups=False),
        Metric(names.KID, "KID", False, "real", "kernel:KernelDistance"),
        Metric(names.PRECISION, "precision", True, "real", "manifold:Precision", share=True),
        Metric(names.RECALL, "recall", True, "real", "manifold:Recall", share=True),
        Metric(names.DENSITY, "density", True, "real", "manifold:Density"),
        Metric(names.COVERAGE, "coverage", True, "real", "manifold:Coverage", share=True),
        Metric(names.REALISM, "realism", True, "real", "manifold:Realism"),
        Metric(names.RARITY, "rarity", None, "real", "manifold:Rarity"),
        Metric(names.RARE_SHARE, "rare share", None, "real", "manifold:RareShare", share=True),
        Metric(names.COPIES, "copies", False, "real", "manifold:Copies", share=True),
        Metric(names.INCEPTION_SCORE, "IS", True, "classes", "inception_score:InceptionScore", of_groups=False),
        Metric(names.PPL, "PPL", False, "paths", "path_length:PathLength"),
        Metric(names.PPL_Z_END, "PPL z, ends", False, "paths", "path_length:PathLength", of_groups=False),
        Metric(names.PPL_Z_FULL, "PPL z, full", False, "paths", "path_length:PathLength", of_groups=False),
        Metric(names.PPL_W_END, "PPL w, ends", False, "paths", "path_length:PathLength", of_groups=False),
        Metric(names.PPL_W_FULL, "PPL w, full", False, "paths", "path_length:PathLength", of_groups=False),
        Metric(names.DISCRIMINATOR, "D value", True, "discriminator", "discriminator:DiscriminatorValue"),
    )
}
"""Ours. Another package's come through the entry points `qualitygate.metrics`, each a `qualitygate.metrics.metric.SetMetric`."""


def all_metrics() -> Mapping[str, Metric]:
    """Ours, and those of other packages. Raises `PluginError` if one of them cannot be imported."""
    return {**METRICS} | {one.entry.name: one.load().info for one in plugins("metrics")}


def metric(name: str) -> Metric:
    """The metric of that name. Raises `InputError` if there is none."""
    if name in METRICS:
        return METRICS[name]
    if name not in (known := all_metrics()):
        raise InputError("There is no such metric", repr(name), f"one of {', '.join(known)}", "install the package that it comes from")
    return known[name]


class Measurement(Record):
    """A metric of a set of images. ``value`` is None where a number would mean nothing; then ``note`` says why."""

    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    samples: int
    """Samples that had a part in it."""
    real_samples: int | None = None
    real: str | None = None
    """Content hash of the real set."""
    extractor: str | None = None
    """Key of the extractor, or of the distance: network, weights, size and manner of resizing, precision."""
    settings: dict[str, float | str] = Field(default_factory=dict)
    """What else the number depends on: k, ε, the space of the paths."""
    note: str | None = None
    blocks: tuple[float, ...] | None = None
    """The value without each block of the samples: two records that keep them are compared by the interval of their difference."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        metric(self.metric)
        return self

    @property
    def interval(self) -> Interval | None:
        """Value and bounds; None where one is missing."""
        if self.value is None or self.low is None or self.high is None:
            return None
        return Interval(self.value, self.low, self.high)

    @property
    def higher_is_better(self) -> bool | None:
        return metric(self.metric).higher_is_better


def shown(measured: Iterable[Collection[str]]) -> list[Metric]:
    """Metrics that some of these have, in the order of the table of metrics."""
    known = set[str]().union(*measured)
    return [info for name, info in all_metrics().items() if name in known]


class GroupRow(Record):
    """One group of the table, named as in `qualitygate.names`, with its measurements by metric."""

    group: str
    samples: int
    what: str
    """Which samples they are, in words."""
    measurements: dict[str, Measurement]
    spread: dict[str, float] = Field(default_factory=dict)
    """Standard deviation over the random groups, by metric; empty for any other group."""


class GroupOrder(Record):
    """Whether the lowest group is better than chance, and the highest worse: the papers' order."""

    metric: str
    lowest: float
    random: float
    highest: float
    holds: bool
    clear: bool
    """It holds, and both ends lie outside of where 95 % of random groups fall."""

    @property
    def in_words(self) -> str:
        if self.clear:
            return "holds"
        return "holds, but within what random groups do" if self.holds else "does NOT hold"


class RealInfo(Record):
    """The real set that was compared with."""

    name: str
    digest: str
    samples: int
    preparation: str
    duplicates: int = 0
    """Images that equal an earlier one under the extractor."""
    repeated: tuple[int, ...] = ()
    """The first of them, by their place in the set, from 0."""


class Histogram(Record):
    """How the discriminator's values are distributed, by group, on common bins."""

    edges: tuple[float, ...]
    counts: dict[str, tuple[int, ...]]


def _beyond(ours: Interval, theirs: Interval) -> bool:
    """Whether one share is larger than another, whatever either is within its interval."""
    return ours.low > theirs.high


def _first(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers)) + (" …" if len(numbers) == MOST_NAMED else "")


class MetricsReport(SoftwareOrigin, CheckpointOrigin):
    """What ``metrics.json`` holds."""

    format: Literal[1] = 1
    profile_id: str | None
    policy_hash: str | None
    seed: int
    samples: int
    sampling: dict[str, Any]
    score: str | None
    group_share: float
    extractor: str | None
    distance: str | None
    real: RealInfo | None
    groups: tuple[GroupRow, ...]
    order: tuple[GroupOrder, ...]
    histogram: Histogram | None
    copies: tuple[int, ...] = ()
    """Ids of the first samples that are copies of a real image, or nearly; all of them stand in the table of samples."""
    left_out: tuple[str, ...]
    """What was not measured, and why."""
    remarks: tuple[str, ...] = ()
    """In what the real images differ from the generated ones before anyone looks at them."""
    seconds: float

    @property
    def shown(self) -> list[Metric]:
        return shown(row.measurements for row in self.groups)

    def row(self, group: str) -> GroupRow | None:
        return next((row for row in self.groups if row.group == group), None)

    @property
    def rare_or_wrong(self) -> tuple[str, ...]:
        """What the gate does not accept, in words: how much of it lies outside of every real image's ball, and how much is inside, but
        rare, beside what it accepts. Empty where a share or its interval is missing."""
        accepted, found = self._outside_and_rare(names.ACCEPTED), []
        for group, words in ((names.REJECTED, "Rejected"), (names.TO_CORRECT, "To be corrected")):
            if accepted is None or (shares := self._outside_and_rare(group)) is None:
                continue
            wrong, rare = (_beyond(ours, theirs) for ours, theirs in zip(shares, accepted, strict=True))
            answer = {
                (True, False): "More are wrong than of the accepted",
                (False, True): "MORE ARE RARE than of the accepted, and no more are wrong",
                (True, True): "More are wrong than of the accepted, and more are rare",
                (False, False): "No more are wrong or rare than of the accepted, within the intervals",
            }[wrong, rare]
            outside, inside = (f"{one} against {other}" for one, other in zip(shares, accepted, strict=True))
            found.append(
                f"{words}: rare or wrong? {answer}: in no real image's neighbourhood {outside}, "
                f"in those of the sparsest real images alone {inside}"
            )
        return tuple(found)

    def _outside_and_rare(self, group: str) -> tuple[Interval, Interval] | None:
        """Share of a group in no real ball, and in the balls of rare real images alone."""
        row = self.row(group)
        inside, rare = ((None if row is None else row.measurements.get(name)) for name in (names.PRECISION, names.RARE_SHARE))
        of_inside, of_rare = (None if one is None else one.interval for one in (inside, rare))
        if of_inside is None or of_rare is None:
            return None
        return Interval(1.0 - of_inside.value, 1.0 - of_inside.high, 1.0 - of_inside.low), of_rare

    @property
    def alike(self) -> tuple[str, ...]:
        """What is there more than once, in words: samples that are copies of real images, and real images that equal others."""
        found, whole = [], self.row(names.ALL)
        if self.copies and whole is not None and (share := whole.measurements[names.COPIES].value) is not None:
            found.append(f"{round(share * self.samples):,} samples are copies of a real image, or nearly: ids {_first(self.copies)}")
        if (real := self.real) is not None and real.duplicates:
            places = _first(real.repeated)
            found.append(
                f"{real.duplicates:,} of {real.samples:,} real images equal an earlier one: those at {places}, from 0; leave them out"
            )
        return tuple(found)

    def values(self) -> dict[str, float]:
        """Every value under the name it is logged by; bounds of the whole set and spreads of chance beside them."""
        found: dict[str, float] = {}
        for row in self.groups:
            for name, one in row.measurements.items():
                if one.value is None:
                    continue
                found[names.of_group(name, row.group)] = one.value
                if row.group == names.ALL and one.low is not None and one.high is not None:
                    found |= dict(zip(names.interval(name), (one.low, one.high), strict=True))
            found |= {names.spread(name): value for name, value in row.spread.items()}
        return found
