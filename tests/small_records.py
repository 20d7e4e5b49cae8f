"""Records written by hand, for tests that care about few of their fields: those, they give."""

from __future__ import annotations

from typing import Any

from qualitygate.records import Interval, Provenance
from qualitygate.records.check import CheckedSide, CheckRecord, RuleOutcome, RuleState
from qualitygate.records.gate import SuiteResult
from qualitygate.records.metrics import GroupRow, MetricsReport

_SOFTWARE = {"package_version": "0", "torch_version": "0", "device": "cpu"}
PROVENANCE = Provenance(
    checkpoint="toy.pt", checkpoint_sha256="0" * 64, family="dcgan", profile_id="p", policy_hash="q", suite_hash="s", seed=1, **_SOFTWARE
)


def rule_outcome(name: str, **given: Any) -> RuleOutcome:
    """A critical rule that passed."""
    excess = Interval(value=-0.1, low=-0.2, high=-0.05)
    rest = {"metric": "yield", "severity": "critical", "rule": "at least 0.8", "state": RuleState.PASSED, "value": 0.9, "excess": excess}
    return RuleOutcome(**{"id": name, **rest, **given})


def check_record(checkpoint: str, *rules: RuleOutcome, sha256: str = "a" * 64, source: str | None = None, **given: Any) -> CheckRecord:
    """A check without a baseline that passed."""
    side = CheckedSide(source=source or checkpoint, checkpoint=checkpoint, checkpoint_sha256=sha256, family="dcgan", profile_id="p")
    rest: dict[str, Any] = {
        "verdict": RuleState.PASSED,
        "candidate": side,
        "baseline": None,
        "paired": False,
        "samples": 64,
        "looks": 1,
        "looks_planned": 1,
        "seed": 1,
        "error": 0.05,
        "tail": 0.001,
        "rules": rules,
        "suite": SuiteResult(passed=True, evaluated=1, results=()),
        "policy_hash": "h",
        "suite_hash": "s",
        "real": None,
        "extractor": None,
        "seconds": 1.0,
    }
    return CheckRecord(**{**rest, **_SOFTWARE, **given})


def metrics_report(*groups: GroupRow, **given: Any) -> MetricsReport:
    """These groups, of a checkpoint that was measured without a gate, a distance or real images."""
    rest: dict[str, Any] = {
        "checkpoint": "toy.pt",
        "checkpoint_sha256": "0" * 64,
        "family": "dcgan",
        "profile_id": None,
        "policy_hash": None,
        "seed": 1,
        "samples": 100,
        "sampling": {},
        "score": "low_rate_0.1",
        "group_share": 0.1,
        "extractor": "e",
        "distance": None,
        "real": None,
        "groups": groups,
        "order": (),
        "histogram": None,
        "left_out": (),
        "seconds": 1.0,
    }
    return MetricsReport(**{**rest, **_SOFTWARE, **given})
