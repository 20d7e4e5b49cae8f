"""What is written down: of a sample, of a gated set, and of where both came from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import numpy as np


class Verdict(StrEnum):
    """What becomes of a sample."""

    ACCEPT = "accept"
    CORRECT = "correct"
    REJECT = "reject"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")  # NaN stays NaN through JSON


class Provenance(_Frozen):
    """Enough, with seed and id, to make the same image again and to know by which rules it was judged."""

    checkpoint: str
    checkpoint_sha256: str
    family: str
    profile_id: str
    policy_hash: str
    suite_hash: str
    package_version: str
    torch_version: str
    device: str
    precision: str = "float32"
    seed: int | None
    latents: str | None = None
    """SHA-256 of the latents file, where the latents were the user's own."""


class Trial(_Frozen):
    """One strength of a correction that was tried on a sample, and what it was judged on."""

    strength: float
    scores: dict[str, float]
    passed: bool


class SampleRecord(_Frozen):
    """What is written down of one sample. ``scores`` are raw: another policy can decide again without generating."""

    id: int
    label: int | None
    verdict: Verdict
    reasons: tuple[str, ...]
    borderline: bool
    scores: dict[str, float]
    trials: tuple[Trial, ...]
    strength: float | None
    """Strength of the correction that was kept."""
    moved: float | None
    """Mean absolute change of the corrected image, as a share of the range of its values."""
    provenance: Provenance


class RuleLimit(_Frozen):
    """A rule as it was applied: the score, the number it was held against and where that came from."""

    rule: str
    score: str
    limit: float
    source: str
    action: Verdict


class ExpectationResult(_Frozen):
    """Outcome of one expectation of the suite."""

    id: str
    type: str
    severity: str
    success: bool
    observed: Any = None
    kwargs: dict[str, Any]
    note: str | None = None


class SuiteResult(_Frozen):
    """Outcome of a suite. ``passed`` is false as soon as a critical expectation failed."""

    passed: bool
    evaluated: int
    results: tuple[ExpectationResult, ...]

    @property
    def failures(self) -> tuple[ExpectationResult, ...]:
        return tuple(result for result in self.results if not result.success)


class GateSummary(_Frozen):
    """One gated set."""

    samples: int
    accepted: int
    corrected: int
    rejected: int
    borderline: int
    metrics: dict[str, float]
    """Shares and score quantiles under the names of `qualitygate.names`: the one row that the suite sees."""
    reasons: dict[str, int]
    limits: tuple[RuleLimit, ...]
    seconds: dict[str, float]
    suite: SuiteResult | None
    provenance: Provenance

    @property
    def verdict(self) -> str:
        """``passed`` or ``failed`` by its suite, ``unjudged`` without one."""
        if self.suite is None:
            return "unjudged"
        return "passed" if self.suite.passed else "failed"


class SnapshotRecord(_Frozen):
    """One snapshot of a training run. ``error`` says why there are no metrics."""

    checkpoint: str
    checkpoint_sha256: str | None
    family: str | None
    model_id: str | None
    """MLflow's logged model that it came from."""
    at: float
    metrics: dict[str, float]
    error: str | None


class DynamicsRecord(_Frozen):
    """The snapshots of a training run, in order, scored on the same latents."""

    unit: str
    """What ``at`` counts: ``kimg`` or ``step``."""
    settings: dict[str, Any]
    snapshots: tuple[SnapshotRecord, ...]
    rising: dict[int, tuple[tuple[int, float], ...]]
    """By layer, the units whose CLA rose most, and by how much."""
    alarms: tuple[str, ...]


class RuleState(StrEnum):
    """What became of a rule of a check."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    """The sample is too small to say, or the rule could not be evaluated."""
    LEFT_OUT = "left_out"
    """Optional, and what it needs was not given."""


class Range(_Frozen):
    """A number and its interval."""

    value: float
    low: float
    high: float


class RuleOutcome(_Frozen):
    """A rule of a check, and what the candidate's numbers say of it."""

    id: str
    metric: str
    severity: str
    rule: str
    """The rule in words."""
    state: RuleState
    value: float | None = None
    baseline: float | None = None
    difference: Range | None = None
    """Candidate less baseline."""
    excess: Range | None = None
    """How far the candidate is beyond what the rule allows: above 0 it fails, at or below 0 it passes."""
    samples: int | None = None
    look: int | None = None
    """The look, from 1, at which it was decided, or the last one."""
    note: str | None = None
    advice: str | None = None
    """What to look at."""


class Compared(_Frozen):
    """One side of a check."""

    source: str
    checkpoint: str
    checkpoint_sha256: str
    family: str
    profile_id: str
    version: str | None = None
    """Of the registered model, where it came from there: ``faces/3``."""


class CheckRecord(_Frozen):
    """One check of a candidate: what CI keeps of it."""

    format: int = 1
    verdict: RuleState
    candidate: Compared
    baseline: Compared | None
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
    package_version: str
    torch_version: str
    device: str
    seconds: float

    @property
    def worst_first(self) -> tuple[RuleOutcome, ...]:
        """The rules in the order in which a person should read them."""
        states, severities = list(WORST_FIRST), ("critical", "warning", "info")
        return tuple(sorted(self.rules, key=lambda one: (states.index(one.state), severities.index(one.severity))))

    @property
    def warned(self) -> bool:
        """Whether a rule that is only a warning failed."""
        return any(one.state is RuleState.FAILED and one.severity == "warning" for one in self.rules) or any(
            not one.success and one.severity == "warning" for one in self.suite.results
        )


WORST_FIRST = (RuleState.FAILED, RuleState.INCONCLUSIVE, RuleState.PASSED, RuleState.LEFT_OUT)
"""The order in which a person should read rules."""


class ExhibitRole(StrEnum):
    """Why a sample was chosen for people to look at."""

    BEST = "best"
    WORST = "worst"
    CORRECTED = "corrected"
    REJECTED = "rejected"
    BORDERLINE = "borderline"


@dataclass(frozen=True)
class ExhibitItem:
    """One sample of an exhibit, made again by id.

    Attributes:
        role: why it was chosen.
        record: what the gate wrote down of it.
        image: uint8 (height, width, channels), as it came out of the untouched generator.
        corrected: uint8 (height, width, channels), after the correction that was kept or, for a rejected sample, the strongest one
            tried; None if none was tried.
        heatmap: float32 (height, width) in [0, 1], where low-rate neurons fire in the untouched generator.
    """

    role: ExhibitRole
    record: SampleRecord
    image: np.ndarray
    corrected: np.ndarray | None
    heatmap: np.ndarray


def canonical_hash(value: Any) -> str:
    """SHA-256 of a value's canonical JSON, in hexadecimal."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
