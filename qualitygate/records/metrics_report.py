"""What `qualitygate metrics` writes down: every metric of every group, chance beside it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from qualitygate import names
from qualitygate.records.measurement import Measurement


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class GroupRow(_Frozen):
    """One group of the table.

    Attributes:
        group: as in `qualitygate.names`.
        samples: how many it has.
        what: which samples they are, in words.
        measurements: by metric.
        spread: standard deviation over the random groups, by metric; empty for any other group.
    """

    group: str
    samples: int
    what: str
    measurements: dict[str, Measurement]
    spread: dict[str, float] = {}


class Order(_Frozen):
    """Whether the lowest group is better than chance, and the highest worse: the papers' order.

    Attributes:
        holds: the values are in this order.
        clear: and both lie outside of where 95 % of random groups fall.
    """

    metric: str
    lowest: float
    random: float
    highest: float
    holds: bool
    clear: bool

    @property
    def in_words(self) -> str:
        """What became of it, as the end of a sentence."""
        if self.clear:
            return "holds"
        return "holds, but within what random groups do" if self.holds else "does NOT hold"


class RealInfo(_Frozen):
    """The real set that was compared with."""

    name: str
    digest: str
    samples: int
    preparation: str


class Histogram(_Frozen):
    """How the discriminator's values are distributed, by group, on common bins."""

    edges: tuple[float, ...]
    counts: dict[str, tuple[int, ...]]


class MetricsReport(_Frozen):
    """What ``metrics.json`` holds."""

    format: Literal[1] = 1
    checkpoint: str
    checkpoint_sha256: str
    family: str
    profile_id: str | None
    policy_hash: str | None
    package_version: str
    torch_version: str
    device: str
    precision: str = "float32"
    seed: int
    samples: int
    sampling: dict[str, Any]
    score: str | None
    group_share: float
    extractor: str | None
    distance: str | None
    real: RealInfo | None
    groups: tuple[GroupRow, ...]
    order: tuple[Order, ...]
    histogram: Histogram | None
    left_out: tuple[str, ...]
    """What was not measured, and why."""
    seconds: float

    def row(self, group: str) -> GroupRow | None:
        """The group of that name, if there is one."""
        return next((row for row in self.groups if row.group == group), None)

    def values(self) -> dict[str, float]:
        """Every value under the name it is logged by; bounds of the whole set and spreads of chance beside them."""
        found: dict[str, float] = {}
        for row in self.groups:
            for name, one in row.measurements.items():
                if one.value is None:
                    continue
                found[names.of_group(name, row.group)] = one.value
                if row.group == names.ALL and one.low is not None and one.high is not None:
                    found |= {names.low_bound(name): one.low, names.high_bound(name): one.high}
            found |= {names.spread(name): value for name, value in row.spread.items()}
        return found
