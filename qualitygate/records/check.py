"""What is written down of a check of a checkpoint."""

from __future__ import annotations

from enum import StrEnum

from qualitygate.records import CheckpointOrigin, Interval, Record, SoftwareOrigin
from qualitygate.records.gate import SuiteResult


class RuleState(StrEnum):
    """What became of a rule of a check."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    """The sample is too small to say, or the rule could not be evaluated."""
    LEFT_OUT = "left_out"
    """Optional, and what it needs was not given."""


class RuleOutcome(Record):
    """A rule of a check, and what the candidate's numbers say of it."""

    id: str
    metric: str
    severity: str
    rule: str
    """The rule in words."""
    state: RuleState
    value: float | None = None
    baseline: float | None = None
    difference: Interval | None = None
    """Candidate less baseline."""
    excess: Interval | None = None
    """How far the candidate is beyond what the rule allows: above 0 it fails, at or below 0 it passes."""
    samples: int | None = None
    look: int | None = None
    """The look, from 1, at which it was decided, or the last one."""
    note: str | None = None
    advice: str | None = None
    """What to look at."""


class CheckedSide(CheckpointOrigin):
    """One side of a check: the candidate or the baseline."""

    source: str
    profile_id: str
    version: str | None = None
    """Of the registered model, where it came from there: ``faces/3``."""


class CheckRecord(SoftwareOrigin):
    """One check of a candidate: what CI keeps of it."""

    format: int = 1
    verdict: RuleState
    candidate: CheckedSide
    baseline: CheckedSide | None
    paired: bool
    """Whether both were looked at on the same latents."""
    samples: int
    looks: int
    looks_planned: int
    seed: int
    error: float
    """Chance that any rule was decided wrongly, over all rules and looks."""
    tail: float
    """Chance that each end of each interval was left with."""
    rules: tuple[RuleOutcome, ...]
    suite: SuiteResult
    policy_hash: str
    suite_hash: str
    real: str | None
    """Content hash of the real images."""
    extractor: str | None
    seconds: float

    @property
    def worst_first(self) -> tuple[RuleOutcome, ...]:
        severities = ("critical", "warning", "info")
        return tuple(sorted(self.rules, key=lambda one: (WORST_FIRST.index(one.state), severities.index(one.severity))))

    @property
    def warned(self) -> bool:
        """Whether a rule that is only a warning failed."""
        severities = {one.severity for one in self.rules if one.state is RuleState.FAILED}
        return "warning" in severities | {one.severity for one in self.suite.failures}


WORST_FIRST = (RuleState.FAILED, RuleState.INCONCLUSIVE, RuleState.PASSED, RuleState.LEFT_OUT)
"""The order in which a person should read rules."""
