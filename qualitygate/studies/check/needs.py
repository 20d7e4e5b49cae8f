"""What a check may use, and what a rule cannot do without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qualitygate import names
from qualitygate.features.extractor import Extractor, PerceptualDistance
from qualitygate.generators.execution import Reporter
from qualitygate.metrics.real_set import RealSet
from qualitygate.policy.check import AGAINST_REAL, TO_BASELINE, CheckRule, is_score, score_quantile
from qualitygate.records.check import RuleState
from qualitygate.studies.check.subject import Subject, same_latents


@dataclass(frozen=True)
class Tools:
    """What a check may use; rules that need what is missing are inconclusive, or left out where they are optional.

    Attributes:
        real: real images as features.
        extractor: makes features; it made those of the real images, if there are any.
        distance: for PPL.
        suite: hand-written expectations, as in a suite file.
        reporter: shows progress.
    """

    real: RealSet | None = None
    extractor: Extractor | None = None
    distance: PerceptualDistance | None = None
    suite: Mapping[str, Any] | None = None
    reporter: Reporter | None = None


def same_checkpoint(candidate: Subject, baseline: Subject | None) -> bool:
    """Whether both are one file, looked at on the same latents."""
    return baseline is not None and baseline.sha256 == candidate.sha256 and same_latents(candidate, baseline)


def images_decide(baseline: Subject | None, *, real: bool) -> bool:
    """Whether the default rules on real images can be evaluated, so that what is counted inside need only warn."""
    return real and baseline is not None and baseline.generator is not None


def settled(
    rule: CheckRule, rules: Sequence[CheckRule], candidate: Subject, baseline: Subject | None, tools: Tools
) -> tuple[RuleState, str] | None:
    """What becomes of a rule, one of several, whatever the sample, and why; None if the sample tells."""
    if _says_less(rule, rules, baseline, real=tools.real is not None):
        return RuleState.LEFT_OUT, "real images were given, and say more"
    if _trivial(rule, candidate, baseline):
        return RuleState.PASSED, "the same checkpoint: the same images"
    if (lacking := _lacking(rule, baseline, tools)) is None:
        return None
    return RuleState.LEFT_OUT if rule.optional else RuleState.INCONCLUSIVE, lacking


def needs_reference(rules: Sequence[CheckRule], candidate: Subject, baseline: Subject | None, *, real: bool) -> bool:
    """Whether images of the baseline will serve as a reference.

    Args:
        rules: of the check.
        candidate: what is checked.
        baseline: what it is held against.
        real: whether real images are given.
    """
    if baseline is None or baseline.generator is None:
        return False
    asked = [rule for rule in rules if rule.metric in TO_BASELINE and not _says_less(rule, rules, baseline, real=real)]
    return not all(_trivial(rule, candidate, baseline) for rule in asked)


def _says_less(rule: CheckRule, rules: Sequence[CheckRule], baseline: Subject | None, *, real: bool) -> bool:
    """Whether a rule on images of the baseline gives way to one on real images, which is there and can be evaluated."""
    seen = real and any(one.metric in AGAINST_REAL and (one.worse_by is None or images_decide(baseline, real=real)) for one in rules)
    return rule.metric in TO_BASELINE and rule.optional and seen


def _trivial(rule: CheckRule, candidate: Subject, baseline: Subject | None) -> bool:
    """Whether a rule on images of the baseline is kept without a look at any: they are the candidate's own."""
    return rule.metric in TO_BASELINE and rule.worse_by is not None and same_checkpoint(candidate, baseline)


def _lacking(rule: CheckRule, baseline: Subject | None, tools: Tools) -> str | None:
    """What a rule needs and was not given, or None."""
    if rule.metric in AGAINST_REAL and tools.real is None:
        return "no real images were given"
    if rule.metric == names.PPL and tools.distance is None:
        return "no perceptual distance was given"
    of_baseline = rule.metric in TO_BASELINE
    if rule.worse_by is None and not of_baseline:
        return None
    if baseline is None:
        return "no baseline was given"
    if baseline.generator is None and not _in_profile(rule.metric):
        return "a profile alone does not tell it: give the baseline's checkpoint"
    return "no extractor was given: the policy's needs its weights" if of_baseline and tools.extractor is None else None


def _in_profile(metric: str) -> bool:
    """Whether a profile alone tells it."""
    quantile = score_quantile(metric)
    return names.low_rate_share_at(metric) is not None or metric == names.DEAD_UNITS or (quantile is not None and is_score(quantile[0]))
