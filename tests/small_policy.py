"""A policy for small generators, with calibrations of a second."""

from __future__ import annotations

from typing import Any

from qualitygate.policy.corrections import SequentialAblation
from qualitygate.policy.model import Calibration, Detection, Limit, Policy, Rule


def small_policy(**changes: Any) -> Policy:
    """Three samples in ten are corrected or rejected."""
    parts: dict[str, Any] = {
        "detection": Detection(rates=(0.1, 0.2, 0.3), curvature="exact"),
        "calibration": Calibration(rate_samples=600, score_samples=300),
        "rules": (Rule(id="low_rate", score="low_rate_0.2", limit=Limit(quantile=0.7)),),
        "correction": SequentialAblation(judged_at=0.1, rates=(0.1, 0.2, 0.3), limit=Limit(quantile=0.8)),
    }
    return Policy(**{**parts, **changes})
