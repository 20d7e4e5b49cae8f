"""Scores held against evidence: findings on one half of the samples, choices on the other, and a policy made of both.

Even rows choose and fit, odd rows are reported on; ids are drawn at random anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.gating.profile import Profile, detection_layers
from qualitygate.metrics.estimate import auc, rank_correlation
from qualitygate.policy.decide import Risk, fit_weights
from qualitygate.policy.model import Policy
from qualitygate.records.evidence import FEWEST, Estimate, Finding, Kind, Setting, Sight, Source
from qualitygate.records.gate import Verdict
from qualitygate.studies.metrics.groups import SHARE
from qualitygate.studies.validate.scores import Scored, ScoreTable

SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Shares that are rejected, one after the other."""
_WORST_QUARTER = 0.25


@dataclass(frozen=True)
class Judged:
    """Samples of which one kind of evidence says how bad they are.

    Attributes:
        kind: of evidence.
        what: in words.
        badness: float64 (N,), higher = worse; NaN where nothing is known.
        bad: bool (N,).
        table: their scores.
        more: further settings, that no policy can ask for.
        caveat: what its numbers must not be taken for.
    """

    kind: Kind
    what: str
    badness: np.ndarray
    bad: np.ndarray
    table: ScoreTable
    more: tuple[Scored, ...] = ()
    caveat: str | None = None

    @classmethod
    def by_quality(cls, kind: Kind, what: str, quality: np.ndarray, table: ScoreTable, more: tuple[Scored, ...]) -> Judged:
        """The quarter with the lowest quality is bad."""
        return cls(kind, what, -quality, quality <= np.nanquantile(quality, _WORST_QUARTER), table, more)

    @property
    def source(self) -> Source:
        return Source(kind=self.kind, what=self.what, samples=int((~np.isnan(self.badness)).sum()), bad=int(self.bad.sum()))

    @property
    def enough(self) -> bool:
        """Whether both halves have bad and good samples."""
        halves = (choosing(len(self.bad)), reporting(len(self.bad)))
        return all(_enough(self.bad[half], ~np.isnan(self.badness[half])) for half in halves)

    def findings(self, seed: int) -> list[Finding]:
        """Every setting on this evidence."""
        found = (finding(setting, values, self, seed) for setting, values in (*self.table.settings, *self.more))
        return [one for one in found if one is not None]


def choosing(samples: int) -> np.ndarray:
    """Rows that choices are made by."""
    return np.arange(0, samples, 2)


def reporting(samples: int) -> np.ndarray:
    """Rows that are reported on."""
    return np.arange(1, samples, 2)


def finding(setting: Setting, values: np.ndarray, judged: Judged, seed: int) -> Finding | None:
    """One score on the evidence; None where too few samples have both."""
    known = ~np.isnan(values) & ~np.isnan(judged.badness)
    choose, report = (rows[known[rows]] for rows in (choosing(len(known)), reporting(len(known))))
    if not all(_enough(judged.bad[rows], np.ones(len(rows), dtype=bool)) for rows in (choose, report)):
        return None
    bad, score = judged.bad[report], values[report]
    correlation = rank_correlation(score, judged.badness[report], seed=seed)
    chosen_by = None if setting.fitted else Estimate.of(auc(values[choose], judged.bad[choose], seed=seed))
    order, tenth = np.argsort(score, kind="stable"), max(1, round(SHARE * len(score)))
    return Finding(
        setting=setting,
        kind=judged.kind,
        samples=len(report),
        bad=int(bad.sum()),
        chosen_by=chosen_by,
        auc=Estimate.of(auc(score, bad, seed=seed)),
        correlation=None if correlation is None else Estimate.of(correlation),
        bad_lowest=float(bad[order[:tenth]].mean()),
        bad_highest=float(bad[order[-tenth:]].mean()),
    )


def best_of(findings: Iterable[Finding], kind: Kind, *, by_class: bool = False) -> Finding | None:
    """The score to choose, by the lower end of its AUC on the choosing half: a score that few samples have is not chosen for its luck."""
    candidates = [
        (one.chosen_by.low, one) for one in findings if one.kind is kind and one.chosen_by is not None and one.setting.by_class == by_class
    ]
    return max(candidates, key=lambda pair: pair[0], default=(0.0, None))[1]


def fitted_risk(profile: Profile, judged: Judged) -> Scored | None:
    """The joined risk with weights fitted on the choosing half, over counts at every R and detection layer and never-seen neurons; None
    where no part tells bad samples from good ones."""
    layers = detection_layers(profile.policy, profile.info.chain)
    parts = [names.low_rate(r, layer) for r in profile.info.rates for layer in layers]
    parts += [names.never_seen(layer) for layer in layers]
    rows = choosing(len(judged.bad))
    rows = rows[~np.isnan(judged.badness[rows] + np.sum([judged.table.columns[part][rows] for part in parts], axis=0))]
    risk = Risk(profile.scores, dict.fromkeys(parts, 1.0))
    try:
        weights = fit_weights(risk, {part: judged.table.columns[part][rows] for part in parts}, judged.bad[rows])
    except InputError:
        return None
    rounded = {part: round(weight, 3) for part, weight in weights.items() if weight >= 5e-4}
    setting = Setting(score=names.RISK, weights=rounded, fitted=True)
    return setting, Risk(profile.scores, rounded)(judged.table.columns)


def rejected_share(values: np.ndarray, judged: Judged) -> float:
    """The share to reject: where the bad samples that go and the good ones that stay are most (Youden's index), on the choosing half."""
    rows = choosing(len(judged.bad))
    rows = rows[~np.isnan(values[rows])]
    score, bad = values[rows], judged.bad[rows]

    def gain(share: float) -> float:
        over = score > np.quantile(score, 1.0 - share, method="higher")
        return float(over[bad].mean() - over[~bad].mean())

    return max(SHARES[1:], key=gain)


def fragment(policy: Policy, chosen: Finding, fitted: Finding | None, share: float) -> str:
    """A policy's part, YAML: gate by the chosen score. What it rests on stands in comments."""
    setting, lines = chosen.setting, [f"# {chosen}"]
    parts: dict[str, Any] = {}
    if setting.layers is not None:
        parts["detection"] = {"layers": list(setting.layers)}
    if names.cla_layer(setting.score) is not None:
        parts["calibration"] = {"curvature_samples": 1000}
    weights = setting.weights
    if fitted is not None and fitted.sight is not Sight.BLIND:
        lines.append(f"# {fitted}" if setting.fitted else f"# beside it: {fitted}")
        weights = fitted.setting.weights
    if weights is not None:
        parts["risk"] = {"weights": weights}
    action = Verdict.REJECT if policy.correction is None else Verdict.CORRECT
    rule = {"id": "validated", "score": setting.score, "limit": {"quantile": round(1.0 - share, 4)}, "action": str(action)}
    parts["rules"] = [rule]
    if chosen.sight is Sight.SEES and not chosen.kind.weak:
        parts["require_validated"] = True
    return "\n".join((*lines, yaml.safe_dump(parts, sort_keys=False, allow_unicode=True)))


def _enough(bad: np.ndarray, known: np.ndarray) -> bool:
    return min(int((bad & known).sum()), int((~bad & known).sum())) >= FEWEST


def strongest(judged: Sequence[Judged]) -> Judged:
    """The evidence that choices are made by."""
    order = list(Kind)
    return min(judged, key=lambda one: order.index(one.kind))
