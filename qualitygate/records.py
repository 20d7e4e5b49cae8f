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
