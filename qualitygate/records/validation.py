"""Whether a checkpoint's scores mean anything: findings (each a score held against one kind of evidence), the papers' table, and what
gating by the best score would buy and cost."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

from qualitygate.records import Interval, Record
from qualitygate.records.metrics import GroupOrder, GroupRow, Measurement, RealInfo

CLEAR = 0.65
"""AUC from which on a score is said to see: it puts a bad sample before a good one twice as often as the other way round."""
FEWEST = 10
"""Bad and good samples, of each, without which a half says nothing."""


class EvidenceKind(StrEnum):
    """Kinds of evidence, the strongest first."""

    LABELS = "labels"
    """People said which samples are artifacts."""
    REALISM = "realism"
    """Bad is the quarter of the samples that is least like the real images."""
    PRECISION = "precision"
    """Bad is what lies outside of the real images' neighbourhoods."""
    PLANTED = "planted"
    """Bad are the samples with a defect that was put in for the purpose: it says what a score can find, not what is wrong here."""
    DISCRIMINATOR = "discriminator"
    """Bad is the quarter that the discriminator likes least. It does not tell artifacts from normal images in the papers."""

    @property
    def weak(self) -> bool:
        """Whether it says little of this checkpoint's own faults."""
        return self in (EvidenceKind.PLANTED, EvidenceKind.DISCRIMINATOR)


class Sight(StrEnum):
    """Whether a score sees what is bad, by the interval of its AUC on samples that had no part in choosing it."""

    SEES = "sees"
    HARDLY = "hardly sees"
    """Better than chance, but not `CLEAR`."""
    BLIND = "is blind to"
    """No better than chance, or worse."""


class ScoreSetting(Record):
    """A score as a policy can ask for it.

    Attributes:
        score: its name.
        layers: layers that it is summed over; None where the name says it all.
        weights: of the parts of a joined risk; None for other scores.
        by_class: counted against the activation rates of the sample's own class: for insight, a policy cannot ask for it.
        fitted: whether it was fitted to evidence, on the half that is not reported on.
    """

    score: str
    layers: tuple[int, ...] | None = None
    weights: dict[str, float] | None = None
    by_class: bool = False
    fitted: bool = False

    def __str__(self) -> str:
        parts = [self.score]
        if self.layers is not None:
            parts.append(f"layers {', '.join(map(str, self.layers))}")
        return ", ".join(parts + ["by class"] * self.by_class + ["fitted"] * self.fitted)

    def same_score(self, other: ScoreSetting) -> bool:
        """Whether both are the same number for every sample."""
        ours, theirs = ((one.score, one.layers, one.weights, one.by_class) for one in (self, other))
        return ours == theirs


class Finding(Record):
    """One score on one kind of evidence.

    Attributes:
        setting: the score.
        kind: the evidence.
        samples: samples that are reported on.
        bad: of which bad.
        chosen_by: AUC on the other half, which choices are made by; None where the score was fitted on that half.
        auc: on the half that is reported on.
        correlation: Spearman's, with how bad the evidence says each sample is; None where one of them is constant.
        bad_lowest, bad_highest: share of bad samples in the tenth with the lowest and in that with the highest score.
    """

    setting: ScoreSetting
    kind: EvidenceKind
    samples: int
    bad: int
    chosen_by: Interval | None
    auc: Interval
    correlation: Interval | None
    bad_lowest: float
    bad_highest: float

    @property
    def sight(self) -> Sight:
        if self.auc.low <= 0.5:
            return Sight.BLIND
        return Sight.SEES if self.auc.value >= CLEAR else Sight.HARDLY

    def __str__(self) -> str:
        note = ", weak evidence" if self.kind.weak else ""
        return f"{self.setting} {self.sight} what is bad by {self.kind}{note}: AUC {self.auc} on {self.samples:,} samples"


class EvidenceSource(Record):
    """Where evidence comes from."""

    kind: EvidenceKind
    what: str
    """In words."""
    samples: int
    bad: int


class Evidence(Record):
    """What ``evidence.json`` in a profile holds.

    Attributes:
        profile_id: of the profile that the scores were computed with.
        seed: of the samples.
        sources: the evidence there was, the strongest first.
        findings: every score on every source.
        recommended: fragment of a policy, YAML; None where no score sees anything.
    """

    format: Literal[1] = 1
    profile_id: str
    package_version: str
    seed: int
    sources: tuple[EvidenceSource, ...]
    findings: tuple[Finding, ...]
    recommended: str | None

    def of(self, setting: ScoreSetting) -> Finding | None:
        """What the strongest evidence says of a score; None if nothing was found out about it."""
        found = [one for one in self.findings if one.setting.same_score(setting)]
        order = list(EvidenceKind)
        return min(found, key=lambda one: order.index(one.kind), default=None)


def named_setting(score: str, layers: tuple[int, ...], weights: Mapping[str, float] | None = None) -> ScoreSetting:
    """The setting of a policy's score.

    Args:
        score: its name.
        layers: layers that it is summed over; of a single one it is the score of that layer.
        weights: of a risk.
    """
    if weights is not None:
        return ScoreSetting(score=score, weights=dict(weights))
    return ScoreSetting(score=f"{score}/layer_{layers[0]}") if len(layers) == 1 else ScoreSetting(score=score, layers=layers)


class ScoreGroups(Record):
    """The papers' table for one score: all, random, lowest and highest; on samples that had no part in choosing it."""

    setting: ScoreSetting
    rows: tuple[GroupRow, ...]
    order: tuple[GroupOrder, ...]


class YieldPoint(Record):
    """What is left when a share of the samples is rejected.

    Attributes:
        rejected: that share, those with the highest score.
        accepted: samples that are left.
        bad: share of them that the evidence calls bad.
        measurements: metrics of the accepted set.
        chance: mean of the same metrics where as many are rejected at random: what a smaller set alone does to them.
        classes: share of each class among the accepted.
    """

    rejected: float
    accepted: int
    bad: Interval
    measurements: dict[str, Measurement]
    chance: dict[str, float]
    classes: dict[int, float]


class ScoreYield(Record):
    """Yield against quality of one score, as more is rejected."""

    setting: ScoreSetting
    points: tuple[YieldPoint, ...]


class ValidationReport(Record):
    """What ``validation.json`` holds.

    Attributes:
        evidence: what is written into the profile.
        best: the score that was chosen on one half, as it did on the other; None where there were too few samples.
        fitted: a joined risk whose weights were fitted on that half.
        by_class: the best score against activation rates by class; None without classes.
        policy: the score of the policy's first rule.
        remarks: what to know before using any of it.
    """

    format: Literal[1] = 1
    checkpoint: str
    checkpoint_sha256: str
    samples: int
    extractor: str | None
    real: RealInfo | None
    evidence: Evidence
    best: Finding | None
    fitted: Finding | None
    by_class: Finding | None
    policy: Finding | None
    groups: tuple[ScoreGroups, ...]
    yields: tuple[ScoreYield, ...]
    remarks: tuple[str, ...]
    seconds: float
