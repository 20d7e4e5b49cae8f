"""Whether a checkpoint's scores mean anything: findings, the papers' table, and what gating by the best score would buy and cost."""

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
    """A score as a policy can ask for it."""

    score: str
    layers: tuple[int, ...] | None = None
    """Layers that it is summed over; None where the name says it all."""
    weights: dict[str, float] | None = None
    """Of the parts of a joined risk."""
    by_class: bool = False
    """Counted against the activation rates of the sample's own class: for insight, a policy cannot ask for it."""
    fitted: bool = False
    """To evidence, on the half that is not reported on."""

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
    """One score on one kind of evidence."""

    setting: ScoreSetting
    kind: EvidenceKind
    samples: int
    """On the half that is reported on, as are ``auc`` and the numbers of bad ones."""
    bad: int
    chosen_by: Interval | None
    """AUC on the other half, which choices are made by; None where the score was fitted on that half."""
    auc: Interval
    correlation: Interval | None
    """Spearman's, with how bad the evidence says each sample is; None where one of them is constant."""
    bad_lowest: float
    bad_highest: float
    """Share of bad samples in the tenth with the lowest and in that with the highest score."""

    @property
    def sight(self) -> Sight:
        if self.auc.low <= 0.5:
            return Sight.BLIND
        return Sight.SEES if self.auc.value >= CLEAR else Sight.HARDLY

    def __str__(self) -> str:
        note = ", weak evidence" if self.kind.weak else ""
        return f"{self.setting} {self.sight} what is bad by {self.kind}{note}: AUC {self.auc} on {self.samples:,} samples"


class RarityFinding(Record):
    """Whether one score goes with rarity, among the samples that lie in a real image's neighbourhood: there, a high score is no evidence of
    a fault."""

    setting: ScoreSetting
    samples: int
    """On the half that is reported on."""
    correlation: Interval | None
    """Spearman's, of the score and the rarity score; None where one of them is constant."""

    @property
    def rejects_rare(self) -> bool:
        return self.correlation is not None and self.correlation.low > 0.0

    def __str__(self) -> str:
        says = "rises with rarity: it rejects what is rare before what is common" if self.rejects_rare else "does not rise with rarity"
        return f"{self.setting} {says} (rank correlation {self.correlation or 'unknown'} on {self.samples:,} samples among the real images)"


class EvidenceSource(Record):
    kind: EvidenceKind
    what: str
    """In words."""
    samples: int
    bad: int


class Evidence(Record):
    """What ``evidence.json`` in a profile holds: every score on every source of evidence, the strongest first."""

    format: Literal[1] = 1
    profile_id: str
    package_version: str
    seed: int
    sources: tuple[EvidenceSource, ...]
    findings: tuple[Finding, ...]
    rarity: tuple[RarityFinding, ...] = ()
    """Empty without real images."""
    recommended: str | None
    """Fragment of a policy, YAML; None where no score sees anything."""

    def of(self, setting: ScoreSetting) -> Finding | None:
        """What the strongest evidence says of a score; None if nothing was found out about it."""
        found = [one for one in self.findings if one.setting.same_score(setting)]
        return min(found, key=lambda one: list(EvidenceKind).index(one.kind), default=None)

    def rarity_of(self, setting: ScoreSetting) -> RarityFinding | None:
        """Whether a score goes with rarity; None where it is not known."""
        return next((one for one in self.rarity if one.setting.same_score(setting)), None)


def named_setting(score: str, layers: tuple[int, ...], weights: Mapping[str, float] | None = None) -> ScoreSetting:
    """The setting of a policy's score over these layers, of a single one the score of that layer; or of a risk of these weights."""
    if weights is not None:
        return ScoreSetting(score=score, weights=dict(weights))
    return ScoreSetting(score=f"{score}/layer_{layers[0]}") if len(layers) == 1 else ScoreSetting(score=score, layers=layers)


class ScoreGroups(Record):
    """The papers' table for one score: all, random, lowest and highest; on samples that had no part in choosing it."""

    setting: ScoreSetting
    rows: tuple[GroupRow, ...]
    order: tuple[GroupOrder, ...]


class YieldPoint(Record):
    """What is left when the share ``rejected`` of the samples is, those with the highest score."""

    rejected: float
    accepted: int
    bad: Interval
    """Share of the accepted that the evidence calls bad."""
    measurements: dict[str, Measurement]
    chance: dict[str, float]
    """Mean of the same metrics where as many are rejected at random: what a smaller set alone does to them."""
    classes: dict[int, float]
    """Share of each class among the accepted."""


class ScoreYield(Record):
    setting: ScoreSetting
    points: tuple[YieldPoint, ...]


class ValidationReport(Record):
    """What ``validation.json`` holds."""

    format: Literal[1] = 1
    checkpoint: str
    checkpoint_sha256: str
    samples: int
    extractor: str | None
    real: RealInfo | None
    evidence: Evidence
    """What is written into the profile."""
    best: Finding | None
    """The score that was chosen on one half, as it did on the other; None where there were too few samples."""
    fitted: Finding | None
    """A joined risk whose weights were fitted on that half."""
    by_class: Finding | None
    """The best score against activation rates by class; None without classes."""
    policy: Finding | None
    """The score of the policy's first rule."""
    groups: tuple[ScoreGroups, ...]
    yields: tuple[ScoreYield, ...]
    remarks: tuple[str, ...]
    """What to know before using any of it."""
    seconds: float
