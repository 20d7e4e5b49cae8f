"""What `qualitygate validate` found out: the evidence, the papers' table, and what gating by the best score would buy and cost."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from qualitygate.records.evidence import Estimate, Evidence, Finding, Setting
from qualitygate.records.measurement import Measurement
from qualitygate.records.metrics_report import GroupRow, Order, RealInfo


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class ScoreGroups(_Frozen):
    """The papers' table for one score: all, random, lowest and highest; on samples that had no part in choosing it."""

    setting: Setting
    rows: tuple[GroupRow, ...]
    order: tuple[Order, ...]


class YieldPoint(_Frozen):
    """What is left when a share of the samples is rejected.

    Attributes:
        rejected: that share, those with the highest score.
        accepted: samples that are left.
        bad: share of them that the evidence calls bad.
        measurements: metrics of the accepted set.
        chance: mean of the same metrics where as many are rejected at random: what a smaller set alone does to them.
        classes: share of each class among the accepted.
    """

    rejected: float
    accepted: int
    bad: Estimate
    measurements: dict[str, Measurement]
    chance: dict[str, float]
    classes: dict[int, float]


class ScoreYield(_Frozen):
    """Yield against quality of one score, as more is rejected."""

    setting: Setting
    points: tuple[YieldPoint, ...]


class ValidationReport(_Frozen):
    """What ``validation.json`` holds.

    Attributes:
        evidence: what is written into the profile.
        best: the score that was chosen on one half, as it did on the other; None where there were too few samples.
        fitted: a joined risk whose weights were fitted on that half.
        by_class: the best score against activation rates by class; None without classes.
        policy: the score of the policy's first rule.
        remarks: what to know before using any of it.
    """

    format: Literal[1] = 1
    checkpoint: str
    checkpoint_sha256: str
    samples: int
    extractor: str | None
    real: RealInfo | None
    evidence: Evidence
    best: Finding | None
    fitted: Finding | None
    by_class: Finding | None
    policy: Finding | None
    groups: tuple[ScoreGroups, ...]
    yields: tuple[ScoreYield, ...]
    remarks: tuple[str, ...]
    seconds: float
