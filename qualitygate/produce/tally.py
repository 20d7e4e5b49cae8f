"""What the rows of a manifest add up to: counts, scores and costs of a set of any size, in memory that does not grow with it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from qualitygate import names, timing
from qualitygate.produce.encoding import ENCODE, WRITE
from qualitygate.produce.manifest import ShardRow
from qualitygate.produce.scales import Scales
from qualitygate.produce.worker import GATE

_QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)
_SHARES = (timing.EARLY, timing.LATE, ENCODE, WRITE)


@dataclass
class Tally:
    """Sums over shards. ``probes`` are seconds of an image without the gate, one for each worker that measured them."""

    samples: int = 0
    accepted: int = 0
    corrected: int = 0
    rejected: int = 0
    borderline: int = 0
    shards: int = 0
    bytes: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    histograms: dict[str, np.ndarray] = field(default_factory=dict)
    probes: list[float] = field(default_factory=list)

    @property
    def kept(self) -> int:
        return self.accepted + self.corrected

    def add(self, row: ShardRow) -> None:
        self.samples += row.samples
        self.accepted += row.accepted
        self.corrected += row.corrected
        self.rejected += row.rejected
        self.borderline += row.borderline
        self.shards += 1
        self.bytes += row.bytes
        self.reasons.update(row.reasons)
        self.seconds.update(row.seconds)
        for name, counts in row.histograms.items():
            self.histograms[name] = self.histograms.get(name, 0) + np.array(counts, dtype=np.int64)
        if row.probe is not None:
            self.probes.append(row.probe)

    def copy(self) -> Tally:
        """The sums so far, which stay as they are when more is added."""
        return replace(
            self, reasons=self.reasons.copy(), seconds=self.seconds.copy(), histograms=dict(self.histograms), probes=list(self.probes)
        )

    def shares(self) -> dict[str, float]:
        """Shares of the verdicts, under their promised names."""
        total = max(self.samples, 1)
        return {
            names.ASKED: float(self.samples),
            names.ACCEPTED_SHARE: self.accepted / total,
            names.CORRECTED_SHARE: self.corrected / total,
            names.REJECTED_SHARE: self.rejected / total,
            names.YIELD: self.kept / total,
            names.BORDERLINE_SHARE: self.borderline / total,
        }

    def metrics(self, scales: Scales) -> dict[str, float]:
        """Everything that a summary tells of the set, as one row."""
        metrics = self.shares()
        for name, counts in self.histograms.items():
            metrics.update({names.quantile(name, q): scales.quantile(name, counts, q) for q in _QUANTILES})
        return metrics | self.costs()

    def costs(self) -> dict[str, float]:
        """Where the workers' time went, and what a kept image cost.

        Generate-then-filter makes every image whole and throws some away: with a judge that costs nothing and accepts what the gate accepts
        (it cannot correct), its cost of an accepted image is that of an image without the gate over the accepted share. Encoding and
        writing are the same on all sides and run beside generation; they are in none of the three.
        """
        spent = self.seconds[GATE]
        if not spent or not self.samples:
            return {}
        costs = {names.time_share(part): self.seconds[part] / spent for part in _SHARES}
        if self.kept:
            costs[names.COST_ACCEPTED] = spent / self.kept
        if self.probes:
            costs[names.COST_UNGATED] = float(np.median(self.probes))
            if self.accepted:
                costs[names.COST_FILTERED] = costs[names.COST_UNGATED] * self.samples / self.accepted
        return costs
