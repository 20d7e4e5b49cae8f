"""What a profile's evidence means for a policy: a warning where a score is known to be blind, a refusal where that is asked for."""

from __future__ import annotations

import warnings
from pathlib import Path

from qualitygate import names, storage
from qualitygate.errors import PolicyError, ProfileError
from qualitygate.gating.profile import EVIDENCE, INFO, Profile, detection_layers, load_profile
from qualitygate.policy.model import Policy
from qualitygate.records.validation import Evidence, ScoreSetting, Sight, named_setting
from qualitygate.storage import file_sha256


class BlindScoreWarning(UserWarning):
    """A policy decides by a score that was found to be no better than chance on this checkpoint."""


def check_validated(profile: Profile, policy: Policy) -> None:
    """Hold the scores that decide against what is known of them: a `BlindScoreWarning` for a rule by a score that the evidence calls blind,
    a `PolicyError` where the policy requires validated scores and a rule goes by another."""
    evidence = profile.evidence
    known = {rule.score: None if evidence is None else evidence.of(setting_of(profile, policy, rule.score)) for rule in policy.rules}
    if policy.require_validated:
        unseen = [
            f"{score}: nothing is known of it" if found is None else str(found)
            for score, found in known.items()
            if found is None or found.sight is not Sight.SEES or found.kind.weak
        ]
        if unseen:
            raise PolicyError(
                "The policy requires validated scores",
                "; ".join(unseen),
                "scores that see what is bad by labels or real images",
                "run `qualitygate validate` with either, and gate by what it recommends; or leave out require_validated",
            )
    for found in known.values():
        if found is not None and found.sight is Sight.BLIND:
            warnings.warn(f"{found}; its verdicts are no better than chance", BlindScoreWarning, stacklevel=3)


def setting_of(profile: Profile, policy: Policy, score: str) -> ScoreSetting:
    """What a score of a policy is: over which layers, with which weights."""
    if score == names.RISK:
        return named_setting(score, (), profile.risk(policy).weights)
    summed = names.split_layer(score)[1] is None
    return named_setting(score, detection_layers(policy, profile.info.chain)) if summed else ScoreSetting(score=score)


def write_evidence(folder: str | Path, evidence: Evidence) -> None:
    """Put evidence into a profile's folder, in place of what there was. Whenever this is cut off, the profile can be read. Raises
    `ProfileError` where there is no profile, or the evidence is of another one."""
    folder = Path(folder)
    info = load_profile(folder).info
    if info.profile_id != evidence.profile_id:
        raise ProfileError(
            "The evidence is of another profile",
            f"profile {evidence.profile_id[:12]}",
            f"profile {info.profile_id[:12]}",
            "validate with this profile",
        )
    files = {name: digest for name, digest in info.files.items() if name != EVIDENCE}

    def write_info() -> None:
        storage.write_bytes(folder / INFO, info.model_copy(update={"files": files}).model_dump_json(indent=2).encode())

    write_info()
    storage.write_bytes(folder / EVIDENCE, evidence.model_dump_json(indent=2).encode())
    files[EVIDENCE] = file_sha256(folder / EVIDENCE)
    write_info()
