"""Least correction by every method: judged on what the edit did not set, whatever the batch, and never by an edit of nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from small import small_dcgan
from small_policy import small_policy

from qualitygate import names
from qualitygate.corrections.method import corrected_images
from qualitygate.errors import InputError, ProfileError
from qualitygate.gating.calibrate import calibrate
from qualitygate.gating.profile import Chain, Profile, load_profile
from qualitygate.gating.stage import GateStage, gate
from qualitygate.generators.base import Generator, sample_latents
from qualitygate.generators.families.dcgan import DCGAN
from qualitygate.policy.corrections import METHODS, SequentialCorrection, ZeroAblation
from qualitygate.policy.decide import decide
from qualitygate.policy.model import Calibration, Limit, Policy
from qualitygate.records.gate import SampleRecord, Verdict
from qualitygate.scores.local_activation import local_activation
from qualitygate.testing import random_toy

IDS = range(80)
EVERY: dict[str, Any] = {
    **{method: {"method": method} for method in METHODS},
    "units by number": {"method": "zero_ablation", "units": [1, 3]},
    "units by lambda": {"method": "sequential_correction", "lambdas": [0.9, 0.3]},
    "units of the profile": {"method": "sequential_correction", "ranking": "profile"},
    "units at random": {"method": "zero_ablation", "score": "random"},
    "units by own CLA": {"method": "sequential_correction", "score": "cla", "stop": 1},
    "region by own CLA": {"method": "local_region", "mask": "cla", "stop": 0},
}
every = pytest.mark.parametrize("settings", EVERY.values(), ids=EVERY)


def policy_with(**settings: Any) -> Policy:
    document = small_policy().model_dump()
    document["correction"] = {"judged_at": 0.1, "limit": {"quantile": 0.8}, **settings}
    return Policy.model_validate(document)


def gated(generator: Generator, profile: Profile, policy: Policy, ids: Any = IDS) -> list[tuple[SampleRecord, Any]]:
    return list(gate(generator, profile, ids, policy=policy))


@every
def test_least_correction_by_every_method(generator: DCGAN, profile: Profile, settings: dict[str, Any]) -> None:
    policy = policy_with(**settings)
    assert policy.correction is not None
    strengths, limits = policy.correction.strengths, profile.limits(policy)
    method = policy.correction.ready(generator, profile, policy.correction.edited((0, 1, 2), 2))
    tried = 0
    for record, image in gated(generator, profile, policy):
        passed = [trial.passed for trial in record.trials]
        assert tuple(trial.strength for trial in record.trials) == strengths[: len(passed)]
        tried += bool(passed)
        for trial in record.trials:
            assert trial.scores.keys() == limits.recheck_limits.keys()
            assert all(name.startswith("low_rate_0.1/") for name in trial.scores)  # never by CLA, nor by what was edited
            assert f"low_rate_0.1/layer_{min(policy.correction.edited((0, 1, 2), 2))}" not in trial.scores
        if record.verdict is Verdict.CORRECT:
            assert passed == [False] * (len(passed) - 1) + [True]
            assert record.strength is not None
            assert record.strength == record.trials[-1].strength
            latents = sample_latents(generator, [record.id], 1)
            alone = corrected_images(generator, latents, method, record.strength)[0]
            torch.testing.assert_close(image, alone, rtol=0.0, atol=2e-5)
            assert record.moved == pytest.approx(float((alone - generator(latents)[0]).abs().mean()) / 2.0, abs=1e-5)
        elif record.verdict is Verdict.REJECT:
            assert passed == [False] * len(strengths)
    assert tried > 10


@every
def test_verdicts_do_not_depend_on_the_batch(generator: DCGAN, profile: Profile, settings: dict[str, Any]) -> None:
    policy = policy_with(**settings)
    whole = gated(generator, profile, policy)
    ids = [71, 3, 3, *range(40, 60)]
    for (record, image), sample in zip(gated(generator, profile, policy, ids), ids, strict=True):
        expected, made = whole[sample]
        assert (record.verdict, record.strength, record.reasons) == (expected.verdict, expected.strength, expected.reasons)
        assert repr(record.trials) == repr(expected.trials)  # NaN where there is nothing to edit
        if made is not None:
            torch.testing.assert_close(image, made, rtol=0.0, atol=2e-5)


def test_judged_before_each_layers_own_edit(generator: DCGAN, profile: Profile) -> None:
    policy = policy_with(method="zero_ablation", ranking="profile", units=[2])
    scores = profile.unit_scores(names.UNIT_LOW_RATE, (0, 1, 2))
    seen = 0
    for record, _ in gated(generator, profile, policy):
        for trial in record.trials:
            state = generator.start(sample_latents(generator, [record.id], 1))
            for layer in range(4):
                state = generator.advance(state)
                count = float(((state.activation > 0) & profile.rates.low_rate(layer, 0.1)).sum())
                if layer:
                    assert trial.scores[f"low_rate_0.1/layer_{layer}"] == count
                if layer <= 2:
                    edited = state.activation.clone()
                    edited[:, scores[layer].argsort(descending=True, stable=True)[:2]] = 0.0
                    state = state.edited(edited)
            seen += 1
    assert seen > 10


def test_records_decide_the_same_and_hold_no_trial_among_the_scores(generator: DCGAN, profile: Profile) -> None:
    policy = policy_with(method="sequential_correction", units=[2, 4])
    stage = GateStage(generator, profile, policy, seed=1)
    block = next(iter(stage.blocks(IDS)))
    assert {"sequential_correction_2/tried", "sequential_correction_2/low_rate_0.1/layer_1"} <= block.columns.keys()
    again = decide(stage.limits, block.columns)
    assert again.verdict.tolist() == block.decisions.verdict.tolist()
    assert again.reasons == block.decisions.reasons
    assert not any(name.startswith("sequential") for record in stage.records(block) for name in record.scores)
    other = decide(profile.limits(profile.policy), block.columns)  # what another method would do is not known
    lost = [reasons for reasons in other.reasons if "correction_not_tried" in reasons]
    assert len(lost) == sum(bool(record.trials) for record in stage.records(block))


def test_a_sample_in_which_nothing_is_selected_does_not_pass() -> None:
    """Every judged limit is infinite in effect, and still an edit of nothing is no repair."""
    toy = random_toy(4, [(6, 2, 2), (5, 2, 2), (5, 2, 2), (4, 2, 2), (3, 4, 4)], shift=-0.6, seed=3)
    profile = calibrate(toy, small_policy())
    policy = policy_with(method="zero_ablation", layers=[0], rate=0.02, limit={"value": 1e6})
    records = [record for record, _ in gated(toy, profile, policy, range(150))]
    latents = sample_latents(toy, range(150), 1)
    active = toy.run(toy.start(latents), 0).activation > 0
    empty = ~(active & profile.rates.low_rate(0, 0.02)).any(dim=3).any(dim=2).any(dim=1)
    tried = [record for record in records if record.trials]
    assert {bool(empty[record.id]) for record in tried} == {True, False}
    for record in tried:
        if empty[record.id]:
            assert record.reasons[-1] == "not_repaired"
            assert all(np.isnan(value) for trial in record.trials for value in trial.scores.values())
        else:
            assert record.verdict is Verdict.CORRECT


@every
def test_the_generator_is_left_as_it_was(profile: Profile, settings: dict[str, Any]) -> None:
    generator = small_dcgan()
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    gated(generator, profile, policy_with(**settings), range(40))
    assert all(torch.equal(tensor, before[name]) for name, tensor in generator.state_dict().items())


# what the profile holds for corrections


def test_units_are_ranked_by_cla_where_the_correction_asks(tmp_path: Any) -> None:
    toy = random_toy(3, [(4, 2, 2)] * 4, shift=-0.5)
    policy = small_policy(
        calibration=Calibration(rate_samples=200, score_samples=100, curvature_samples=70),
        correction=SequentialCorrection(ranking="profile", score="cla", stop=1, limit=Limit(quantile=0.9)),
    )
    calibrate(toy, policy).save(tmp_path / "p")
    profile = load_profile(tmp_path / "p")
    exact = local_activation(toy, sample_latents(toy, range(200, 270), 0), [0, 1])
    scores = profile.unit_scores(names.UNIT_CLA, (0, 1))
    for layer in (0, 1):
        torch.testing.assert_close(scores[layer], exact.unit_score[layer].mean(dim=0), rtol=1e-5, atol=1e-9)
        np.testing.assert_allclose(profile.scores[names.cla(layer)][:70], exact.score[layer].numpy(), rtol=1e-5)
    assert {record.verdict for record, _ in gate(toy, profile, range(60))} & {Verdict.CORRECT, Verdict.REJECT}
    with pytest.raises(ProfileError, match=r"no cla at layers \[2\](.|\n)*set calibration.curvature_samples"):
        profile.unit_scores(names.UNIT_CLA, (1, 2))


def test_rankings_that_the_profile_does_not_hold(generator: DCGAN, profile: Profile) -> None:
    asked = Policy.model_validate(
        {
            **dict(profile.policy),
            "calibration": {"rate_samples": 600, "score_samples": 300, "curvature_samples": 10},
            "correction": {"method": "zero_ablation", "ranking": "profile", "score": "cla", "limit": {"value": 3}},
        }
    )
    with pytest.raises(ProfileError, match=r"scores activation_rate, dead_share, low_rate_activity(.|\n)*ranking: sample"):
        GateStage(generator, profile, asked, seed=1)
    with pytest.raises(ProfileError, match="needed: defective_score of the units of layers"):
        profile.unit_scores("defective_score", (0,))


def test_a_profile_from_before_knows_no_stopping_layer(generator: DCGAN) -> None:
    assert Chain.of(generator).stop == generator.presets.stop
    assert Chain.model_validate({"preset": [0], "last": 3}).stop is None


def test_a_ranking_without_a_suspect_is_an_error_before_anything_runs() -> None:
    toy = random_toy(3, [(4, 2, 2)] * 4, shift=2.0)  # no unit is ever dead
    profile = calibrate(toy, small_policy())
    with pytest.raises(InputError, match="would change nothing"):
        ZeroAblation(ranking="profile", score="dead_share").ready(toy, profile, (0,))
