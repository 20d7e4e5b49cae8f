"""Yield against quality: what is left when more and more of the highest scores are rejected, on the half that is reported on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from qualitygate.metrics.estimate import bootstrap_mean
from qualitygate.records.evidence import Estimate, Setting
from qualitygate.records.validation import ScoreYield, YieldPoint
from qualitygate.studies.metrics.groups import random_groups
from qualitygate.studies.validate.findings import SHARES, Judged, reporting
from qualitygate.studies.validate.look import Looked

_CHANCE = 5  # random sets that a point of the yield is compared with


@dataclass(frozen=True)
class Yields:
    """Yields by any setting.

    Attributes:
        looked: the samples, looked at.
        judged: the evidence of what is bad; of ``looked`` itself, or of samples of its own whose images nobody has looked at.
        seed: of random sets and intervals.
    """

    looked: Looked
    judged: Judged
    seed: int

    def by(self, setting: Setting) -> ScoreYield:
        """What is left, share by share."""
        rows, values = reporting(len(self.judged.bad)), self.judged.table.of(setting)
        rows = rows[~np.isnan(values[rows])]
        rows = rows[np.argsort(values[rows], kind="stable")]
        return ScoreYield(setting=setting, points=tuple(self._point(share, rows) for share in SHARES))

    def _point(self, share: float, rows: np.ndarray) -> YieldPoint:
        """What is left of rows (n,), the lowest score first."""
        accepted = rows[: len(rows) - round(share * len(rows))]
        seen, classes = self.judged.table is self.looked.table, self.looked.classes
        counts = np.bincount(classes[accepted]) if seen and classes is not None else np.empty(0)
        bad = Estimate.of(bootstrap_mean(self.judged.bad[accepted].astype(np.float64), seed=self.seed))
        return YieldPoint(
            rejected=share,
            accepted=len(accepted),
            bad=bad,
            measurements=self.looked.ruler.measure(self.looked.subject, accepted) if seen else {},
            chance=self._chance(rows, len(accepted)) if seen and share else {},
            classes={k: float(count / len(accepted)) for k, count in enumerate(counts) if count},
        )

    def _chance(self, rows: np.ndarray, size: int) -> dict[str, float]:
        """The same numbers of as many samples at random, their mean over a few draws."""
        bare = replace(self.looked.ruler, intervals=False)
        drawn = random_groups(len(rows), size, _CHANCE, seed=self.seed)
        found = [bare.measure(self.looked.subject, np.sort(rows[places])) for places in drawn]
        values = {name: [one[name].value for one in found] for name in found[0]}
        return {name: float(np.mean([v for v in of if v is not None])) for name, of in values.items() if None not in of}
