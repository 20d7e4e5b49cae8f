"""What is known of whether a checkpoint's scores mean anything: findings, each a score held against one kind of evidence."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict

from qualitygate.records.measurement import Interval

CLEAR = 0.65
"""AUC from which on a score is said to see: it puts a bad sample before a good one twice as often as the other way round."""
FEWEST = 10
"""Bad and good samples, of each, without which a half says nothing."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Kind(StrEnum):
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
        return self in (Kind.PLANTED, Kind.DISCRIMINATOR)


class Sight(StrEnum):
    """Whether a score sees what is bad, by the interval of its AUC on samples that had no part in choosing it."""

    SEES = "sees"
    HARDLY = "hardly sees"
    """Better than chance, but not `CLEAR`."""
    BLIND = "is blind to"
    """No better than chance, or worse."""


class Estimate(_Frozen):
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, interval: Interval) -> Self:
        return cls(value=interval.value, low=interval.low, high=interval.high)

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


class Setting(_Frozen):
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

    def same_score(self, other: Setting) -> bool:
        """Whether both are the same number for every sample."""
        ours, theirs = ((one.score, one.layers, one.weights, one.by_class) for one in (self, other))
        return ours == theirs


class Finding(_Frozen):
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

    setting: Setting
    kind: Kind
    samples: int
    bad: int
    chosen_by: Estimate | None
    auc: Estimate
    correlation: Estimate | None
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


class Source(_Frozen):
    """Where evidence comes from."""

    kind: Kind
    what: str
    """In words."""
    samples: int
    bad: int


class Evidence(_Frozen):
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
    sources: tuple[Source, ...]
    findings: tuple[Finding, ...]
    recommended: str | None

    def of(self, setting: Setting) -> Finding | None:
        """What the strongest evidence says of a score; None if nothing was found out about it."""
        found = [one for one in self.findings if one.setting.same_score(setting)]
        order = list(Kind)
        return min(found, key=lambda one: order.index(one.kind), default=None)


def named(score: str, layers: tuple[int, ...], weights: Mapping[str, float] | None = None) -> Setting:
    """The setting of a policy's score.

    Args:
        score: its name.
        layers: layers that it is summed over; of a single one it is the score of that layer.
        weights: of a risk.
    """
    if weights is not None:
        return Setting(score=score, weights=dict(weights))
    return Setting(score=f"{score}/layer_{layers[0]}") if len(layers) == 1 else Setting(score=score, layers=layers)
