"""What is checked, what it is held against, and what a rule cannot do without."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qualitygate import names
from qualitygate.checkpoints.sources import shown
from qualitygate.errors import InputError, PolicyError, ProfileError
from qualitygate.features import registry
from qualitygate.features.extractor import Extractor, PerceptualDistance
from qualitygate.gating.calibrate import calibrate, checkpoint_policy
from qualitygate.gating.profile import Chain, Profile, calibrated_layers, load_profile
from qualitygate.generators.base import Discriminator, Generator
from qualitygate.generators.module import is_somebody_elses
from qualitygate.generators.passes import Reporter
from qualitygate.latents import Sampling
from qualitygate.metrics.measured_set import RealSet
from qualitygate.policy.model import TO_BASELINE, CheckRule, Policy, needs_of, of_images, score_quantile
from qualitygate.policy.suite import check_suite
from qualitygate.records.check import CheckedSide, RuleState
from qualitygate.requests import DISCRIMINATOR, is_module
from qualitygate.storage import ContentCache
from qualitygate.studies.check import CheckRequest

if TYPE_CHECKING:
    from qualitygate.tracking.promotion import Version

_CACHE = ContentCache("profiles", load_profile, lambda place, profile: profile.save(place))
NOT_IN_PROFILE = "a profile alone does not tell it: give the baseline's checkpoint"
_VERSION = 1  # of what is kept: a change in how calibration computes makes another one


@dataclass(frozen=True)
class CheckedModel:
    """One side of a check: without a generator where only the profile is at hand. Its source is shown without what may be secret; its
    version is that of the registered model, ``name/3``, where it came from there."""

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
        origin = self.profile.info.model_dump(include={"checkpoint", "checkpoint_sha256", "family", "precision", "profile_id"})
        return CheckedSide(source=self.source, version=self.version, **origin)

    def incompatibility(self, baseline: CheckedModel | None) -> str | None:
        """Why scores of the two do not count the same things, in words: another family, other layers or sampling. None if they do."""
        if baseline is None:
            return None
        ours, theirs = self.profile.info, baseline.profile.info
        if ours.family != theirs.family:
            return f"the candidate is a {ours.family}, the baseline a {theirs.family}"
        shapes = [{layer: counts.shape for layer, counts in one.profile.rates.counts.items()} for one in (self, baseline)]
        if shapes[0] != shapes[1]:
            return "candidate and baseline have other layers"
        if ours.precision != theirs.precision:
            return f"the candidate is made in {ours.precision}, the baseline in {theirs.precision}"
        return None if ours.sampling == theirs.sampling else "candidate and baseline are sampled in another way"

    def same_latents(self, other: CheckedModel | None) -> bool:
        """Whether equal ids are equal latents in both."""
        if other is None:
            return False
        if self.generator is None or other.generator is None:
            return self.incompatibility(other) is None and self.profile.info.calibration == other.profile.info.calibration
        ours, theirs = ((one.latent_size, one.label_size, one.truncates) for one in (self.generator, other.generator))
        return ours == theirs and self.profile.info.sampling == other.profile.info.sampling

    def same_checkpoint(self, other: CheckedModel | None) -> bool:
        """Whether both are one file, looked at on the same latents."""
        return other is not None and other.sha256 == self.sha256 and self.same_latents(other)


def cached_profile(generator: Generator, policy: Policy, sampling: Sampling | None = None, reporter: Reporter | None = None) -> Profile:
    """The checkpoint's profile under this policy; calibrated only if that was not done before. One file may be read as of several families.
    Not kept where the network's code is somebody else's, which may have been edited since."""
    sampling = sampling or Sampling()
    if is_somebody_elses(generator):
        return calibrate(generator, policy, sampling=sampling, reporter=reporter)
    identity = {
        "version": _VERSION,
        **generator.key,
        "family": generator.family,
        "stored_as": generator.stored_as,
        "device": generator.device.type,
        "layers": calibrated_layers(policy, Chain.of(generator)),
        "sampling": sampling.model_dump(mode="json"),
        "policy": policy.model_dump(mode="json", exclude={"check", "batch"}),
    }
    if (found := _CACHE.find(identity)) is not None:
        return replace(found, policy=policy)
    profile = calibrate(generator, policy, sampling=sampling, reporter=reporter)
    _CACHE.keep(identity, profile)
    return profile


@dataclass(frozen=True)
class CheckInputs:
    """What a check may use; rules that need what is missing are inconclusive, or left out where they are optional. The extractor made the
    features of the real images, if there are any; the suite holds hand-written expectations."""

    real: RealSet | None = None
    extractor: Extractor | None = None
    distance: PerceptualDistance | None = None
    suite: Mapping[str, Any] | None = None
    reporter: Reporter | None = None


def images_decide(baseline: CheckedModel | None, *, real: bool) -> bool:
    """Whether the default rules on real images can be evaluated, so that what is counted inside need only warn."""
    return real and baseline is not None and baseline.generator is not None


def early_outcome(
    rule: CheckRule, rules: Sequence[CheckRule], candidate: CheckedModel, baseline: CheckedModel | None, inputs: CheckInputs
) -> tuple[RuleState, str] | None:
    """What becomes of a rule, one of several, whatever the sample, and why; None if the sample tells."""
    if _gives_way(rule, rules, baseline, real=inputs.real is not None):
        return RuleState.LEFT_OUT, "real images were given, and say more"
    if _trivial(rule, candidate, baseline):
        return RuleState.PASSED, "the same checkpoint: the same images"
    needs, lacking = needs_of(rule.metric), None
    counted = score_quantile(rule.metric) is not None or names.low_rate_share_at(rule.metric) is not None or rule.metric == names.DEAD_UNITS
    if needs == "real" and inputs.real is None:
        lacking = "no real images were given"
    elif needs == "paths" and inputs.distance is None:
        lacking = "no perceptual distance was given"
    elif rule.worse_by is not None or needs == "baseline":
        if baseline is None:
            lacking = "no baseline was given"
        elif baseline.generator is None and not counted:
            lacking = NOT_IN_PROFILE
        elif needs == "baseline" and inputs.extractor is None:
            lacking = "no extractor was given: the policy's needs its weights"
    if lacking is None:
        return None
    return RuleState.LEFT_OUT if rule.optional else RuleState.INCONCLUSIVE, lacking


def needs_reference(rules: Sequence[CheckRule], candidate: CheckedModel, baseline: CheckedModel | None, *, real: bool) -> bool:
    """Whether images of the baseline will serve as a reference; ``real``: whether real images are given."""
    asked = (rule for rule in rules if rule.metric in TO_BASELINE and not _gives_way(rule, rules, baseline, real=real))
    makes_images = baseline is not None and baseline.generator is not None
    return makes_images and not all(_trivial(rule, candidate, baseline) for rule in asked)


def _gives_way(rule: CheckRule, rules: Sequence[CheckRule], baseline: CheckedModel | None, *, real: bool) -> bool:
    """Whether a rule on images of the baseline gives way to one on real images, which is there, can be evaluated, and says how good the
    candidate's are: that they are no copies does not."""
    telling = (one for one in rules if needs_of(one.metric) == "real" and one.metric != names.COPIES)
    seen = real and any(one.worse_by is None or images_decide(baseline, real=real) for one in telling)
    return rule.metric in TO_BASELINE and rule.optional and seen


def _trivial(rule: CheckRule, candidate: CheckedModel, baseline: CheckedModel | None) -> bool:
    """Whether a rule on images of the baseline is kept without a look at any: they are the candidate's own."""
    return rule.metric in TO_BASELINE and rule.worse_by is not None and candidate.same_checkpoint(baseline)


class CheckLoader:
    """Loads what was asked for; profiles come from the cache where they are known. Where candidate and baseline come from the registry, the
    files of these versions are loaded, whatever an alias does meanwhile. The policy is the one that was given, the baseline profile's, or
    the default, looked at with what was given in place of its own."""

    def __init__(self, request: CheckRequest, reporter: Reporter, versions: Sequence[Version | None]) -> None:
        self.request, self.reporter, self.versions = request, reporter, versions
        is_profile = request.baseline is not None and (Path(request.baseline) / "profile.json").is_file()
        self.learned = load_profile(request.baseline) if request.baseline is not None and is_profile else None
        self.images_decide = request.real is not None and request.baseline is not None and not is_profile
        address = versions[0].pinned(request.checkpoint) if versions[0] else request.checkpoint
        asked = request.model_copy(update={"checkpoint": address})
        if not is_module(request.checkpoint) and self._baseline_is_module:  # these options are the baseline's
            asked = asked.model_copy(update={"layers": None, "latent_size": None})
        self.generator, self.discriminator = asked.load_both(reporter)
        policy = request.load_policy() or (self.learned.policy if self.learned else checkpoint_policy(self.generator))
        if self.learned is not None:  # the same latents as in the profile
            policy = policy.model_copy(update={"calibration": self.learned.info.calibration})
            if lacking := [names.rate(at) for at in policy.detection.rates if at not in self.learned.info.rates]:
                raise ProfileError(
                    "The baseline's profile does not cover the policy",
                    f"R {list(self.learned.info.rates)}",
                    f"R {', '.join(lacking)}",
                    "calibrate the baseline again with this policy, or check without --policy",
                )
        given = {name: value for name in ("extractor", "distance") if (value := getattr(request, name)) is not None}
        # not validated again, as code may be named here and not in a policy's file
        self.policy, self._calibrated = policy.model_copy(update={"check": policy.check.model_copy(update=given)}), policy

    @property
    def _baseline_is_module(self) -> bool:
        return is_module(self.request.baseline)

    def sides(self) -> tuple[CheckedModel, CheckedModel | None]:
        """Candidate and baseline, calibrated under the policy."""
        request, learned, baseline = self.request, self.learned, None
        ours, theirs = (None if one is None else str(one) for one in self.versions)
        if learned is not None:
            baseline = CheckedModel(str(request.baseline), learned)
        elif request.baseline is not None:
            address = self.versions[1].pinned(request.baseline) if self.versions[1] else request.baseline
            shared = {"device", "precision", "tracking_uri"}
            if self._baseline_is_module:
                shared |= {"layers", "latent_size"} | ({"settings"} if is_module(request.checkpoint) else set())
            asked = CheckRequest(checkpoint=address, **request.model_dump(include=shared))
            generator, discriminator = asked.load_both(self.reporter)
            profile = cached_profile(generator, self._calibrated, reporter=self.reporter)
            baseline = CheckedModel(shown(request.baseline), profile, generator, discriminator, theirs)
        profile = cached_profile(self.generator, self._calibrated, learned.info.sampling if learned else None, self.reporter)
        return CheckedModel(shown(request.checkpoint), profile, self.generator, self.discriminator, ours), baseline

    def inputs(self, candidate: CheckedModel, baseline: CheckedModel | None) -> CheckInputs:
        """What the check of these may use. Real images are brought to the size of the candidate's, as `qualitygate metrics` does."""
        request, settings, given = self.request, self.policy.check, self.request.real is not None
        rules = self.policy.check_rules(real=self.images_decide)
        against = [name for name, one in of_images().items() if one.needs == "real"]
        if given and not any(rule.metric in against for rule in rules):  # whoever gives them thinks that they count
            raise InputError(
                "No rule of the policy looks at real images",
                f"--real {request.real}",
                f"a rule on one of {', '.join(against)}",
                "add one to check.rules, leave check.rules out for the default rules, or leave --real out",
            )
        device, extractor, real, distance, suite = request.chosen_device, None, None, None, None
        # images of the baseline that stand in for real ones are no reason to ask for what is missing
        there = request.weights is not None or not registry.reads_weights(settings.extractor)
        there = there and (settings.extractor != DISCRIMINATOR or self.discriminator is not None)
        if given or (there and needs_reference(rules, candidate, baseline, real=given)):
            extractor = registry.make_extractor(
                settings.extractor, weights=request.weights, device=device, discriminator=self.discriminator
            )
        if (images := request.load_real(self.generator.image_shape[1])) is not None:
            real = RealSet.of(images, extractor, device, self.reporter)
        if any(needs_of(rule.metric) == "paths" for rule in self.policy.check_rules()):
            distance = registry.make_distance(settings.distance, weights=request.distance_weights, device=device)
        if (path := request.suite) is not None:
            try:
                document = json.loads(path.read_text(encoding="utf8"))
            except (OSError, ValueError) as error:
                raise PolicyError(f"Cannot read the suite {path}", str(error), "a JSON file as `suite.json` of a check") from error
            suite = check_suite(document, str(path))
        return CheckInputs(real, extractor, distance, suite, self.reporter)
