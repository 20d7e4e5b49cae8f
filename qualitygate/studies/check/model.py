"""What is checked, what it is held against, and what a rule cannot do without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from qualitygate import names
from qualitygate.errors import ProfileError
from qualitygate.features.extractor import Extractor, PerceptualDistance
from qualitygate.gating.calibrate import calibrate
from qualitygate.gating.profile import Chain, Profile, calibrated_layers, load_profile
from qualitygate.generators.base import Discriminator, Generator
from qualitygate.generators.module import is_somebody_elses
from qualitygate.generators.passes import Reporter
from qualitygate.latents import Sampling
from qualitygate.metrics.measured_set import RealSet
from qualitygate.policy.model import AGAINST_REAL, TO_BASELINE, CheckRule, Policy, is_score, score_quantile
from qualitygate.records.check import CheckedSide, RuleState
from qualitygate.storage import ContentCache

_CACHE = ContentCache("profiles", load_profile, lambda place, profile: profile.save(place))
_VERSION = 1  # of what is kept: a change in how calibration computes makes another one


@dataclass(frozen=True)
class Subject:
    """One side of a check.

    Attributes:
        source: as it was given, without what may be secret: see `sources.shown`.
        profile: what calibration learned of it.
        generator: None where only the profile is at hand.
        discriminator: stored beside the generator.
        version: of the registered model, ``name/3``, where it came from there.
    """

    source: str
    profile: Profile
    generator: Generator | None = None
    discriminator: Discriminator | None = None
    version: str | None = None

    @property
    def sha256(self) -> str:
        return self.profile.info.checkpoint_sha256

    @property
    def compared(self) -> CheckedSide:
        """As it stands in the record."""
        info = self.profile.info
        return CheckedSide(
            source=self.source,
            checkpoint=info.checkpoint,
            checkpoint_sha256=info.checkpoint_sha256,
            family=info.family,
            profile_id=info.profile_id,
            version=self.version,
        )


def unlike(candidate: Profile, baseline: Profile) -> str | None:
    """Why scores of the two do not count the same things, in words: another family, other layers or sampling. None if they do."""
    ours, theirs = candidate.info, baseline.info
    if ours.family != theirs.family:
        return f"the candidate is a {ours.family}, the baseline a {theirs.family}"
    shapes = [{layer: counts.shape for layer, counts in one.rates.counts.items()} for one in (candidate, baseline)]
    if shapes[0] != shapes[1]:
        return "candidate and baseline have other layers"
    return None if ours.sampling == theirs.sampling else "candidate and baseline are sampled in another way"


def same_layers(first: Profile, second: Profile) -> bool:
    """Whether scores of the two count the same things: equal family, layers and sampling."""
    return unlike(first, second) is None


def same_latents(first: Subject, second: Subject) -> bool:
    """Whether equal ids are equal latents in both."""
    if first.generator is None or second.generator is None:
        return same_layers(first.profile, second.profile) and first.profile.info.calibration == second.profile.info.calibration
    ours, theirs = ((one.latent_size, one.label_size, one.truncates) for one in (first.generator, second.generator))
    return ours == theirs and first.profile.info.sampling == second.profile.info.sampling


def kept_profile(generator: Generator, policy: Policy, sampling: Sampling | None = None, reporter: Reporter | None = None) -> Profile:
    """The checkpoint's profile under this policy; calibrated only if that was not done before.

    Not kept where the network's code is somebody else's, which may have been edited since.
    """
    sampling = sampling or Sampling()
    if is_somebody_elses(generator):
        return calibrate(generator, policy, sampling=sampling, reporter=reporter)
    identity = _identity(generator, policy, sampling)
    if (found := _CACHE.find(identity)) is not None:
        return replace(found, policy=policy)
    profile = calibrate(generator, policy, sampling=sampling, reporter=reporter)
    _CACHE.keep(identity, profile)
    return profile


def _identity(generator: Generator, policy: Policy, sampling: Sampling) -> dict[str, Any]:
    """All that a calibration depends on. One file may be read as of several families."""
    return {
        "version": _VERSION,
        "checkpoint": generator.identity().sha256,
        "family": generator.family,
        "stored_as": generator.stored_as,
        "device": generator.device.type,
        "layers": calibrated_layers(policy, Chain.of(generator)),
        "sampling": sampling.model_dump(mode="json"),
        "policy": policy.model_dump(mode="json", exclude={"check", "batch"}),
    }


def check_covers(baseline: Profile, policy: Policy) -> None:
    """Raises `ProfileError` if a profile that was calibrated elsewhere lacks what the check needs."""
    lacking = [names.rate(at) for at in policy.detection.rates if at not in baseline.info.rates]
    if lacking:
        raise ProfileError(
            "The baseline's profile does not cover the policy",
            f"R {list(baseline.info.rates)}",
            f"R {', '.join(lacking)}",
            "calibrate the baseline again with this policy, or check without --policy",
        )


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
