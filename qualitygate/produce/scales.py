"""Scores counted in the steps of a scale that the calibration set: of any number of samples, in memory that does not grow with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from qualitygate import names
from qualitygate.gating.profile import Profile
from qualitygate.policy.model import Policy

_STEPS = 512
"""Steps of a scale; scores that take fewer values in the calibration, as most counts do, keep each of them."""


@dataclass(frozen=True)
class Scales:
    """One scale for every score that is followed.

    Attributes:
        edges: upper, inclusive ends of the steps, rising, by score. What is beyond the last one, or not finite, is in one more step.
        calibration: counts of the calibration samples in those steps.
    """

    edges: Mapping[str, np.ndarray]
    calibration: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, profile: Profile, policy: Policy) -> Scales:
        """The scales of the scores that summaries tell of, and of those that rules are on, as far as they were calibrated."""
        columns = profile.columns(policy)
        followed = [*map(names.low_rate, policy.detection.rates), names.never_seen(), *(rule.score for rule in policy.rules)]
        known = {name: columns[name][np.isfinite(columns[name])] for name in dict.fromkeys(followed) if name in columns}
        edges = {name: _edges(values) for name, values in known.items() if len(values)}
        return cls(edges, {name: _counted(edges[name], known[name]) for name in edges})

    def histograms(self, rows: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """How many samples lie in each step of each scale."""
        return {name: tuple(_counted(edges, rows[name]).tolist()) for name, edges in self.edges.items() if name in rows}

    def quantile(self, name: str, counts: np.ndarray, q: float) -> float:
        """The upper end of the step in which the quantile lies: exact for counts, else to within a step; the calibration's
        largest score where it lies beyond that."""
        edges = self.edges[name]
        step = int(np.searchsorted(np.cumsum(counts), q * counts.sum(), side="left"))
        return float(edges[min(step, len(edges) - 1)])


def distance(counts: np.ndarray, others: np.ndarray) -> float:
    """Kolmogorov and Smirnov's distance between two samples counted on one scale: never more than between the samples themselves."""
    return float(np.abs(np.cumsum(counts) / counts.sum() - np.cumsum(others) / others.sum()).max())


def _edges(values: np.ndarray) -> np.ndarray:
    different = np.unique(values)
    if len(different) <= _STEPS:
        return different
    return np.unique(np.quantile(values, np.linspace(0.0, 1.0, _STEPS), method="higher"))


def _counted(edges: np.ndarray, values: Any) -> np.ndarray:
    column = np.asarray(values, dtype=np.float64)
    step = np.searchsorted(edges, np.where(np.isnan(column), np.inf, column), side="left")
    return np.bincount(step, minlength=len(edges) + 1)
