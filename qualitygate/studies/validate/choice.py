"""What to gate by: the best score on the strongest evidence, alone and joined with others, and the answer in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from qualitygate.gating.profile import Profile
from qualitygate.policy.model import Policy
from qualitygate.records.validation import Finding, Sight
from qualitygate.studies.validate.findings import Judged, best_of, finding, fitted_risk, fragment, rejected_share, strongest
from qualitygate.studies.validate.scores import Scored


@dataclass(frozen=True)
class Choice:
    """What came out of all findings.

    Attributes:
        main: the evidence that chose.
        findings: every setting on every kind of evidence, the joined risk last.
        best: the best setting that a policy can ask for; None where too few samples have a score.
        by_class: the best against rates by class.
        fitted: the joined risk with fitted weights; None where there is none.
        risk: its setting and its scores of the samples of ``main``.
    """

    main: Judged
    findings: tuple[Finding, ...]
    best: Finding | None
    by_class: Finding | None
    fitted: Finding | None
    risk: Scored | None

    @classmethod
    def of(cls, judged: Sequence[Judged], profile: Profile, seed: int) -> Self:
        """Choose by the strongest of the evidence."""
        main = strongest(judged)
        single = [one for each in judged for one in each.findings(seed)]
        risk = fitted_risk(profile, main)
        fitted = None if risk is None else finding(*risk, main, seed)
        joined = (*single, fitted) if fitted is not None else tuple(single)
        best, by_class = best_of(single, main.kind), best_of(single, main.kind, by_class=True)
        return cls(main, joined, best, by_class, fitted, risk)

    @property
    def usable(self) -> Finding | None:
        """The best that is better than chance; None where the scores are blind."""
        return next((one for one in (self.best, self.fitted) if one is not None and one.sight is not Sight.BLIND), None)

    def advice(self, policy: Policy) -> str | None:
        """A policy's part that gates by it, YAML; None where nothing can be gated by."""
        if self.usable is None:
            return None
        if self.usable.setting.fitted:
            assert self.risk is not None
            values = self.risk[1]
        else:
            values = self.main.table.of(self.usable.setting)
        return fragment(policy, self.usable, self.fitted, rejected_share(values, self.main))

    def in_words(self, remarks: Sequence[str]) -> list[str]:
        """The answer, around what was remarked on the way to it."""
        if self.best is None:
            return ["too few samples have a score and evidence: more --samples", *remarks]
        blind = f"THE SCORES ARE BLIND HERE: the best on one half is no better than chance on the other: {self.best}"
        answer = [blind if self.usable is None else str(self.usable)]
        if self.main.kind.weak:
            answer.append(
                f"the only evidence is weak ({self.main.what}): whether the scores see this checkpoint's own faults is "
                "not known; label some samples, or give real images"
            )
        if self.by_class is None:
            return [*answer, *remarks]
        return [*answer, *remarks, f"against rates by class: {self.by_class}; against rates over all: {self.best}"]
