"""What is checked, and what it is held against: a checkpoint with its profile, or the profile of one alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from qualitygate import names
from qualitygate.errors import ProfileError
from qualitygate.gating.calibrate import calibrate
from qualitygate.gating.profile import Chain, Profile, calibrated_layers, load_profile
from qualitygate.generators.base import Discriminator, Generator
from qualitygate.generators.execution import Reporter
from qualitygate.generators.module import is_somebody_elses
from qualitygate.latents import Sampling
from qualitygate.policy.model import Policy
from qualitygate.records.gate import Compared
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
    def compared(self) -> Compared:
        """As it stands in the record."""
        info = self.profile.info
        return Compared(
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
