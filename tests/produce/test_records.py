"""Another policy over records alone: the same verdicts as gating with it, or an error, never a guess."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_policy import small_policy

from qualitygate import storage
from qualitygate.errors import PolicyError, ProfileError
from qualitygate.gating.calibrate import calibrate
from qualitygate.gating.profile import Profile
from qualitygate.gating.stage import GateStage, gate
from qualitygate.generators.base import Generator
from qualitygate.policy.corrections import LocalRegion, SequentialAblation
from qualitygate.policy.model import Calibration, Detection, Limit, Policy, Rule, policy_yaml
from qualitygate.produce.records import POLICY, PROFILE, PROVENANCE, SAMPLES, Change, redecide, sample_rows
from qualitygate.testing import random_toy

IDS = range(150)
Again = Callable[..., Change]


@pytest.fixture(scope="module")
def generator() -> Generator:
    return random_toy(4, [(6, 2, 2), (5, 2, 2), (5, 2, 2), (4, 2, 2), (3, 2, 2)], shift=-0.6, seed=3)


@pytest.fixture(scope="module")
def profile(generator: Generator) -> Profile:
    return calibrate(generator, small_policy())


@pytest.fixture
def again(generator: Generator, profile: Profile, tmp_path: Path) -> Again:
    """Gates a set with the profile's policy and decides it again with another one."""
    stage = GateStage(generator, profile, profile.policy, seed=1)
    storage.write_table(tmp_path / SAMPLES, sample_rows(list(stage.blocks(IDS)), 1), {PROVENANCE: stage.provenance.model_dump_json()})
    (tmp_path / POLICY).write_text(policy_yaml(profile.policy))
    profile.save(tmp_path / PROFILE)

    def decided(policy: Policy, **settings: Any) -> Change:
        (tmp_path / "new.yaml").write_text(policy_yaml(policy))
        return redecide(tmp_path, tmp_path / "new.yaml", **settings)

    return decided


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rules": (Rule(id="stricter", score="low_rate_0.2", limit=Limit(quantile=0.8)),)},
        {"rules": (Rule(id="layer", score="low_rate_0.1/layer_1", limit=Limit(quantile=0.9), action="reject"),)},
        {"rules": (Rule(id="other", score="low_rate_0.3", limit=Limit(quantile=0.7), action="reject"),), "correction": None},
        {
            "detection": Detection(layers=(0, 1), rates=(0.1, 0.2)),
            "rules": (Rule(id="fewer", score="low_rate_0.2", limit=Limit(quantile=0.8), action="reject"),),
        },
    ],
)
def test_it_is_gating_with_that_policy(again: Again, generator: Generator, profile: Profile, changes: dict[str, Any]) -> None:
    policy = small_policy(**changes)
    change = again(policy)
    gated = [record for record, _ in gate(generator, profile, IDS, policy=policy)]
    decided = zip(*(change.rows[name] for name in ("id", "verdict", "strength", "reasons", "borderline")), strict=True)
    untried = 0
    for record, (sample, verdict, strength, reasons, borderline) in zip(gated, decided, strict=True):
        assert sample == record.id
        if "correction_not_tried" in reasons:  # nobody knows without generating: rejected
            untried += 1
            assert verdict == "reject"
            continue
        assert (verdict, strength, tuple(reasons)) == (record.verdict, record.strength, record.reasons)
        assert borderline == record.borderline
    assert change.document()["to_gate_again"] >= untried
    assert change.document()["samples"] == len(IDS)


def test_scores_that_the_records_do_not_hold(again: Again) -> None:
    """Layer 3 was calibrated, but not counted when gating: the sum over the old layers is no substitute."""
    deeper = small_policy(detection=Detection(layers=(0, 1, 2, 3), rates=(0.1, 0.2)))
    with pytest.raises(PolicyError, match=r"Rule low_rate cannot be applied\n  found: no score low_rate_0\.2 "):
        again(deeper)


def test_another_profile_is_refused(again: Again, generator: Generator, tmp_path: Path) -> None:
    other = calibrate(generator, small_policy(calibration=Calibration(rate_samples=100, score_samples=100)))
    other.save(tmp_path / "other")
    with pytest.raises(ProfileError, match="made with another profile"):
        again(small_policy(), profile_folder=tmp_path / "other")


def test_an_untried_correction_is_a_reject_that_says_so(again: Again) -> None:
    other_strengths = small_policy(correction=SequentialAblation(rates=(0.05, 0.3), limit=Limit(value=1e6)))
    change = again(other_strengths)
    assert "correct" not in change.rows["verdict"]
    assert any("correction_not_tried" in reasons for reasons in change.rows["reasons"])


def test_outcomes_of_another_edit_are_not_taken_for_this_one(again: Again) -> None:
    """Columns name method and strength; the same strength at other layers is another edit."""
    written_out = small_policy(correction=SequentialAblation(layers=(0, 1, 2), rates=(0.1, 0.2, 0.3), limit=Limit(quantile=0.8)))
    assert again(written_out).document()["changed"] == 0
    elsewhere = small_policy(correction=SequentialAblation(layers=(0, 1), rates=(0.1, 0.2, 0.3), limit=Limit(value=1e6)))
    reasons = [one for of_sample in again(elsewhere).rows["reasons"] for one in of_sample]
    assert "correction_not_tried" in reasons
    assert not any(one.startswith("repaired") for one in reasons)
    other_method = small_policy(correction=LocalRegion(stop=1, limit=Limit(value=1e6)))
    assert "correction_not_tried" in [one for of_sample in again(other_method).rows["reasons"] for one in of_sample]
