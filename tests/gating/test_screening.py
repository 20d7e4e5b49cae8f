"""CLA in the gate: screened as far as verdicts need it, from a pilot that calibration makes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import small_dcgan
from small_policy import small_policy

from qualitygate import names, storage
from qualitygate.errors import PolicyError, ProfileError
from qualitygate.gating.calibrate import calibrate
from qualitygate.gating.curvature import SHIPPED, PilotTable
from qualitygate.gating.profile import Profile, load_profile
from qualitygate.gating.stage import GateStage
from qualitygate.generators.base import sample_latents
from qualitygate.generators.families.dcgan import DCGAN
from qualitygate.latents import Sampling
from qualitygate.policy.corrections import Limit
from qualitygate.policy.decide import decide
from qualitygate.policy.model import Calibration, Detection, JoinedRisk, Policy, Rule
from qualitygate.records.gate import Verdict

IDS = range(300)


def policy(**changes: Any) -> Policy:
    parts: dict[str, Any] = {
        "detection": Detection(rates=(0.1, 0.2, 0.3), curvature_error=0.02),
        "calibration": Calibration(rate_samples=600, score_samples=500, curvature_samples=500),
        "rules": (Rule(id="cla", score="cla/layer_1", limit=Limit(quantile=0.8), action=Verdict.REJECT),),
        "correction": None,
    }
    return small_policy(**{**parts, **changes})


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("QUALITYGATE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def generator() -> DCGAN:
    return small_dcgan(units=(24, 16, 4), latent_size=24)


@pytest.fixture(scope="module")
def profile(generator: DCGAN, cache: Path) -> Profile:
    return calibrate(generator, policy())


def gated(generator: DCGAN, profile: Profile, rules: Policy, ids: range = IDS) -> tuple[dict[str, np.ndarray], np.ndarray]:
    blocks = list(GateStage(generator, profile, rules, seed=1).blocks(ids))
    columns = {name: np.concatenate([block.columns[name] for block in blocks]) for name in blocks[0].columns}
    return columns, np.concatenate([block.decisions.verdict for block in blocks])


def test_verdicts_are_those_of_exact_cla_for_a_part_of_the_work(generator: DCGAN, profile: Profile) -> None:
    exact_policy = policy(detection=Detection(rates=(0.1, 0.2, 0.3), curvature="exact"))
    screened, verdicts = gated(generator, profile, policy())
    exact, truth = gated(generator, profile, exact_policy)
    assert np.mean(verdicts == truth) >= 0.97
    low, value, high = (screened[name(1)] for name in (names.cla_low, names.cla, names.cla_high))
    assert ((low <= value) & (value <= high)).all()
    whole = screened[names.CLA_PASSES] == 24 * 20 + 5 * 6  # the thin rung, then every axis
    np.testing.assert_allclose(value[whole], exact[names.cla(1)][whole], rtol=1e-5)
    assert screened[names.CLA_PASSES].mean() < 0.6 * 24 * 20
    assert names.cla_low(1) not in exact


def test_a_sample_is_the_same_whatever_it_is_gated_with(generator: DCGAN, profile: Profile) -> None:
    together, verdicts = gated(generator, profile, policy(), range(100))
    apart, again = gated(generator, profile, policy(), range(60, 61))
    assert again[0] == verdicts[60]
    for name, values in apart.items():
        np.testing.assert_allclose(values[0], together[name][60], rtol=1e-5, err_msg=name)


def test_a_sample_that_another_rule_settles_is_not_walked(generator: DCGAN, profile: Profile) -> None:
    sure = Rule(id="all", score="low_rate_0.3", limit=Limit(value=-1.0), action=Verdict.REJECT)
    columns, verdicts = gated(generator, profile, policy(rules=(*policy().rules, sure)))
    assert (verdicts == Verdict.REJECT).all()
    assert not columns[names.CLA_PASSES].any()


def test_a_sample_whose_activations_are_not_finite_is_rejected_unwalked(generator: DCGAN, profile: Profile) -> None:
    latents = sample_latents(generator, range(70), 1)
    latents.z[3, 0] = torch.nan
    block = next(iter(GateStage(generator, profile, policy(), seed=None).blocks(latents=latents)))
    assert block.decisions.verdict[3] == Verdict.REJECT
    assert block.columns[names.CLA_PASSES][3] == 0


def test_another_limit_inside_of_an_interval_is_borderline(generator: DCGAN, profile: Profile) -> None:
    columns, _ = gated(generator, profile, policy())
    row = int(np.argmax(columns[names.cla_high(1)] - columns[names.cla_low(1)]))
    inside = float(columns[names.cla_high(1)][row] - 1e-3 * (columns[names.cla_high(1)][row] - columns[names.cla_low(1)][row]))
    other = policy(rules=(Rule(id="cla", score="cla/layer_1", limit=Limit(value=inside), action=Verdict.REJECT),))
    assert decide(profile.limits(other), columns).borderline[row]


def test_the_risk_is_recorded_and_can_be_a_rule(generator: DCGAN, profile: Profile) -> None:
    rules = policy(
        rules=(Rule(id="risk", score="risk", limit=Limit(quantile=0.8), action=Verdict.REJECT),),
        detection=Detection(rates=(0.1, 0.2, 0.3), curvature_layers=(1,), curvature_error=0.02),
    )
    columns, verdicts = gated(generator, profile, rules)
    risk = profile.risk(rules)
    assert set(risk.weights) == {"low_rate_0.3/layer_0", "low_rate_0.3/layer_1", "low_rate_0.3/layer_2", "never_seen_active", "cla/layer_1"}
    np.testing.assert_allclose(columns[names.RISK], risk(columns))
    assert 0.1 < np.mean(verdicts == Verdict.REJECT) < 0.3
    assert names.RISK in gated(generator, profile, policy())[0]


def test_weights_of_a_policy(generator: DCGAN, profile: Profile) -> None:
    rules = policy(risk=JoinedRisk(weights={"low_rate_0.1/layer_0": 2.0, "low_rate_0.3": 0.0}))
    assert profile.risk(rules).weights == {"low_rate_0.1/layer_0": 2.0}
    with pytest.raises(PolicyError, match="not calibrated"):
        profile.risk(policy(risk=JoinedRisk(weights={"discriminator": 1.0})))


def test_the_profile_keeps_the_pilot(generator: DCGAN, profile: Profile, tmp_path: Path) -> None:
    profile.save(tmp_path / "profile")
    again = load_profile(tmp_path / "profile")
    first, second = (gated(generator, one, policy(), range(64))[0] for one in (profile, again))
    np.testing.assert_array_equal(first[names.cla(1)], second[names.cla(1)])


def test_a_profile_without_a_pilot_is_refused(generator: DCGAN) -> None:
    plain = calibrate(generator, small_policy())
    absolute = policy(rules=(Rule(id="cla", score="cla/layer_1", limit=Limit(value=1.0), action=Verdict.REJECT),))
    with pytest.raises(ProfileError, match="no pilot to screen CLA by"):
        GateStage(generator, plain, absolute, seed=1)


def test_a_profile_of_exact_cla_alone_is_no_pilot(generator: DCGAN) -> None:
    """It has the exact scores, but none of the estimates and moments that a screen is fitted on."""
    exact = calibrate(
        generator,
        policy(
            detection=Detection(rates=(0.1, 0.2, 0.3), curvature="exact"),
            calibration=Calibration(rate_samples=600, score_samples=400, curvature_samples=64),
        ),
    )
    with pytest.raises(ProfileError, match="no pilot to screen CLA by"):
        GateStage(generator, exact, policy(), seed=1)


def test_a_pilot_that_was_cut_off_goes_on(generator: DCGAN, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = PilotTable(generator, Sampling(), 5, (1,))
    made: list[int] = []

    def counted(ids: np.ndarray) -> dict[str, np.ndarray]:
        made.extend(ids.tolist())
        if len(made) > 32:
            raise KeyboardInterrupt
        return PilotTable.made(table, ids)

    monkeypatch.setattr(table, "made", counted)
    with pytest.raises(KeyboardInterrupt):
        table.columns(range(40), lambda _: None)
    monkeypatch.undo()
    monkeypatch.setenv("QUALITYGATE_CACHE", str(cache))
    reported: list[int] = []
    whole = table.columns(range(40), reported.append)
    assert reported == [32, 8], "what was done before is not done again"
    fresh = table.made(np.arange(40))
    for name, values in whole.items():
        np.testing.assert_allclose(values, fresh[name], rtol=1e-5)


def test_a_pilot_too_small_for_the_stated_error_is_refused_when_the_policy_is_read() -> None:
    with pytest.raises(ValueError, match="at least 198"):
        policy(detection=Detection(rates=(0.1, 0.2, 0.3)), calibration=Calibration(curvature_samples=100))


def test_the_shipped_pilot_is_whole() -> None:
    (path,) = SHIPPED.glob("*.parquet")
    table, _ = storage.read_table(path)
    assert table.num_rows == 1000
    assert table.column(names.ID).to_pylist() == list(range(30_000, 31_000))
    assert all(np.isfinite(table.column(name).to_numpy()).all() for name in table.column_names)
