"""What is written down of a sample and of a gated set, and the samples that are chosen for people to look at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

from qualitygate.records import Provenance, Record
from qualitygate.records.images import ImageEncoding

if TYPE_CHECKING:
    import numpy as np


class Verdict(StrEnum):
    """What becomes of a sample."""

    ACCEPT = "accept"
    CORRECT = "correct"
    REJECT = "reject"


class Trial(Record):
    """One strength of a correction that was tried on a sample, and what it was judged on."""

    strength: float
    scores: dict[str, float]
    passed: bool


class SampleRecord(Record):
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


class RuleLimit(Record):
    """A rule as it was applied; ``source`` says where its number came from."""

    rule: str
    score: str
    limit: float
    source: str
    action: Verdict


class ExpectationResult(Record):
    """What became of one expectation of a suite."""

    id: str
    type: str
    severity: str
    success: bool
    observed: Any = None
    kwargs: dict[str, Any]
    note: str | None = None


class SuiteResult(Record):
    """Outcome of a suite. It passed where no critical expectation failed and all could be evaluated."""

    passed: bool
    evaluated: int
    results: tuple[ExpectationResult, ...]

    @classmethod
    def of(cls, results: Iterable[ExpectationResult]) -> Self:
        results = tuple(results)
        evaluated = sum(one.note is None for one in results)
        failed = any(one.severity == "critical" and not one.success for one in results)
        return cls(passed=not failed and evaluated == len(results), evaluated=evaluated, results=results)

    @property
    def failures(self) -> tuple[ExpectationResult, ...]:
        return tuple(result for result in self.results if not result.success)


class GateSummary(Record):
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
    image_encoding: ImageEncoding | None = None
    """None where no images were written, and in sets from before there was a choice."""

    @property
    def verdict(self) -> str:
        """``passed`` or ``failed`` by its suite, ``unjudged`` without one."""
        if self.suite is None:
            return "unjudged"
        return "passed" if self.suite.passed else "failed"


class ExhibitRole(StrEnum):
    """Why a sample was chosen for people to look at."""

    BEST = "best"
    WORST = "worst"
    CORRECTED = "corrected"
    REJECTED = "rejected"
    BORDERLINE = "borderline"


@dataclass(frozen=True)
class ExhibitItem:
    """One sample of an exhibit, made again by id."""

    role: ExhibitRole
    record: SampleRecord
    image: np.ndarray
    """uint8 (height, width, channels), as it came out of the untouched generator."""
    corrected: np.ndarray | None
    """The same after the correction that was kept or, for a rejected sample, the strongest one tried; None if none was tried."""
    heatmap: np.ndarray
    """float32 (height, width) in [0, 1]: where low-rate neurons fire in the untouched generator."""
