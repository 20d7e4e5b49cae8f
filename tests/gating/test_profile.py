"""Calibration and the profile: what is learned, kept, and refused."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from small import small_dcgan
from small_policy import small_policy

from qualitygate import names
from qualitygate.errors import InputError, LayerError, OutputError, PolicyError, ProfileError, QualityGateError
from qualitygate.gating.calibrate import calibrate
from qualitygate.gating.profile import Chain, Profile, calibrated_layers, correction_layers, detection_layers, load_profile
from qualitygate.generators.base import Generator, sample_latents
from qualitygate.generators.passes import Progress, Reporter
from qualitygate.latents import Sampling
from qualitygate.policy.corrections import SequentialAblation
from qualitygate.policy.model import Calibration, Detection, Limit, Policy, Rule
from qualitygate.scores.local_activation import local_activation
from qualitygate.scores.low_rate import activation_rates, low_rate_counts
from qualitygate.testing import random_toy


def test_what_calibration_learns(generator: Generator, profile: Profile) -> None:
    rates = activation_rates(generator, [0, 1, 2, 3], 600, seed=0)
    assert profile.info.layers == (0, 1, 2, 3)
    assert all(torch.equal(profile.rates.counts[layer], rates.counts[layer]) for layer in range(4))
    latents = sample_latents(generator, range(600, 900), 0)  # other samples than those of the rates
    for at in (0.1, 0.2, 0.3):
        counts = low_rate_counts(generator, latents, rates, at).numpy()
        for layer in range(4):
            np.testing.assert_array_equal(profile.scores[names.low_rate(at, layer)], counts[:, layer])
        np.testing.assert_array_equal(profile.scores[names.low_rate(at)], counts[:, :3].sum(axis=1))  # the detection layers
        quantile = profile.info.scores[names.low_rate(at)]["q0.9"]
        assert quantile == pytest.approx(np.quantile(counts[:, :3].sum(axis=1), 0.9))
        assert profile.info.low_rate_shares["layer_1"][names.rate(at)] == rates.low_rate_share(1, at)
    seen = [(state.activation > 0) & rates.never_seen(state.layer) for state in generator.states(generator.start(latents), 2)]
    np.testing.assert_array_equal(profile.scores[names.NEVER_SEEN], sum(one.sum(dim=(1, 2, 3)) for one in seen).numpy())


def test_limits_are_quantiles_that_samples_reached(profile: Profile) -> None:
    limits = profile.limits(profile.policy)
    assert limits.rules[0].limit == np.quantile(profile.scores["low_rate_0.2"], 0.7, method="higher")
    assert set(limits.recheck_limits) == {f"low_rate_0.1/layer_{layer}" for layer in (1, 2, 3)}
    for name, rule in limits.recheck_limits.items():
        assert rule.limit == np.quantile(profile.scores[name], 0.8, method="higher")
    assert limits.strengths == (0.1, 0.2, 0.3)


def test_totals_are_of_the_policy_that_asks(profile: Profile) -> None:
    other = small_policy(detection=Detection(layers=(0, 3), rates=(0.1, 0.2)))
    expected = profile.scores["low_rate_0.2/layer_0"] + profile.scores["low_rate_0.2/layer_3"]
    assert profile.limits(other).rules[0].limit == np.quantile(expected, 0.7, method="higher")
    assert profile.limits(profile.policy).rules[0].limit != profile.limits(other).rules[0].limit


def test_the_table_of_units(generator: Generator, profile: Profile) -> None:
    units = profile.units
    assert units[names.UNIT_KEY][:2] == ["layer0/unit0", "layer0/unit1"]
    assert len(units[names.UNIT]) == sum(layer.units for layer in generator.layers)
    row = units[names.UNIT_KEY].index("layer2/unit3")
    share = profile.rates.rates[2][3]
    assert units[names.UNIT_RATE][row] == pytest.approx(float(share.mean()))
    assert units[names.UNIT_DEAD][row] == pytest.approx(float((share == 0).double().mean()))
    # over the very samples of the rates, the share of positions that are low-rate and active, on average
    latents = sample_latents(generator, range(600), 0)
    state = generator.run(generator.start(latents), 2)
    active = (state.activation > 0) & profile.rates.low_rate(2, 0.2)
    assert units[names.UNIT_LOW_RATE][row] == pytest.approx(float(active[:, 3].double().mean()))


def test_progress_adds_up() -> None:
    class Kept(Reporter):
        def __init__(self) -> None:
            self.phases: list[tuple[str, int, list[int]]] = []

        @contextlib.contextmanager
        def phase(self, name: str, total: int) -> Iterator[Progress]:
            self.phases.append((name, total, []))
            yield self.phases[-1][2].append

    kept = Kept()
    policy = small_policy(
        calibration=Calibration(rate_samples=130, score_samples=100, curvature_samples=7),
        rules=(Rule(id="cla", score="cla/layer_0", limit=Limit(quantile=0.5)),),
    )
    calibrate(random_toy(2, [(3, 1, 1)] * 4, shift=-0.5), policy, reporter=kept)
    assert [(name, total, sum(done)) for name, total, done in kept.phases] == [
        ("activation rates", 130, 130),
        ("scores", 100, 100),
        ("exact CLA", 7, 7),
    ]


def test_exact_curvature_of_a_part_of_the_samples() -> None:
    toy = random_toy(3, [(4, 2, 2)] * 4, shift=-0.5)
    policy = small_policy(
        calibration=Calibration(rate_samples=200, score_samples=100, curvature_samples=20),
        rules=(Rule(id="cla", score="cla/layer_1", limit=Limit(quantile=0.75)),),
    )
    profile = calibrate(toy, policy)
    column = profile.scores["cla/layer_1"]
    exact = local_activation(toy, sample_latents(toy, range(200, 220), 0), [1]).score[1].numpy()
    np.testing.assert_allclose(column[:20], exact, rtol=1e-5)
    assert np.isnan(column[20:]).all()
    assert profile.limits(policy).rules[0].limit == np.quantile(column[:20], 0.75, method="higher")


def test_activations_that_are_not_finite_are_not_calibrated() -> None:
    toy = random_toy(3, [(4, 2, 2)] * 4)
    toy.bias[1][0] = torch.nan
    with pytest.raises(InputError, match="not finite"):
        calibrate(toy, small_policy())


# identity


def test_the_id_is_of_what_calibration_depends_on() -> None:
    toy = random_toy(2, [(3, 2, 2)] * 4, shift=-0.5)

    def profile_id(generator: Generator = toy, sampling: Sampling | None = None, **changes: object) -> str:
        settings = {"calibration": Calibration(rate_samples=100, score_samples=100), **changes}
        return calibrate(generator, small_policy(**settings), sampling=sampling).info.profile_id

    base = profile_id()
    assert profile_id() == base
    assert profile_id(rules=(Rule(id="x", score="low_rate_0.1", limit=Limit(value=3.0)),)) == base  # a threshold
    others = [
        profile_id(random_toy(2, [(3, 2, 2)] * 4, shift=-0.5, seed=1)),
        profile_id(sampling=Sampling(psi=0.7)),
        profile_id(calibration=Calibration(rate_samples=101, score_samples=100)),
        profile_id(calibration=Calibration(rate_samples=100, score_samples=100, seed=5)),
        profile_id(detection=Detection(rates=(0.1, 0.2))),
        profile_id(correction=SequentialAblation(judged_at=0.1, layers=(0, 1))),
    ]
    assert len({base, *others}) == 7


# the folder


@pytest.fixture
def folder(profile: Profile, tmp_path: Path) -> Path:
    profile.save(tmp_path / "profile")
    return tmp_path / "profile"


def test_round_trip(profile: Profile, folder: Path) -> None:
    loaded = load_profile(folder)
    assert loaded.info.model_copy(update={"files": {}}) == profile.info
    assert loaded.policy == profile.policy
    assert loaded.suite == profile.suite
    assert (loaded.rates.samples, loaded.rates.seed, loaded.rates.sampling) == (600, 0, Sampling())
    assert loaded.rates.layers == profile.rates.layers
    for layer in profile.rates.layers:
        assert torch.equal(loaded.rates.counts[layer], profile.rates.counts[layer])
    assert loaded.scores.keys() == profile.scores.keys()
    for name, values in profile.scores.items():
        np.testing.assert_array_equal(loaded.scores[name], values)
    assert dict(loaded.units) == dict(profile.units)
    assert loaded.limits(loaded.policy) == profile.limits(profile.policy)
    with pytest.raises(OutputError, match="exists already"):
        profile.save(folder)


def replaced(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))  # type: ignore[return-value]


def edited_info(**changes: object) -> Callable[[Path], None]:
    return replaced("profile.json", lambda data: json.dumps({**json.loads(data), **changes}).encode())


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "no such folder"),
    "no information": (lambda folder: (folder / "profile.json").unlink(), "no profile.json in it"),
    "a flipped bit": (
        replaced("activation_counts.safetensors", lambda data: data[:-1] + bytes([data[-1] ^ 1])),
        "activation_counts.safetensors",
    ),
    "cut-off scores": (replaced("calibration.parquet", lambda data: data[:-9]), "changed after it was written\n  found: calibration"),
    "no scores": (lambda folder: (folder / "calibration.parquet").unlink(), "calibration.parquet"),
    "no units": (lambda folder: (folder / "units.parquet").unlink(), "units.parquet"),
    "no policy": (lambda folder: (folder / "policy.yaml").unlink(), "policy.yaml"),
    "another key in the policy": (replaced("policy.yaml", lambda data: data + b"more: 1\n"), "found: policy.yaml"),
    "no suite": (lambda folder: (folder / "suite.json").unlink(), "suite.json"),
    "a suite that is no JSON": (replaced("suite.json", lambda data: data[:-5]), "Cannot read the profile"),
    "another format": (edited_info(format=2), "Cannot read the profile"),
    "an unknown key": (edited_info(more=1), "Cannot read the profile"),
    "another checkpoint": (edited_info(checkpoint_sha256="0" * 64), "changed after it was written\n  found: profile.json"),
    "other samples": (edited_info(calibration={"rate_samples": 700, "score_samples": 300, "seed": 0}), "profile.json"),
    "unguarded files": (edited_info(files={}), "changed after it was written"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_noticed(folder: Path, damage: str) -> None:
    change, message = DAMAGE[damage]
    change(folder)
    with pytest.raises(QualityGateError, match=message) as raised:
        load_profile(folder)
    assert isinstance(raised.value, ProfileError | PolicyError)


def test_the_suite_is_open_to_expectations_written_by_hand(folder: Path) -> None:
    own = {"type": "expect_column_max_to_be_between", "kwargs": {"column": "low_rate_0.1", "max_value": 50}}
    suite = json.loads((folder / "suite.json").read_bytes())
    suite["samples"].append(own)
    (folder / "suite.json").write_text(json.dumps(suite))
    assert load_profile(folder).suite["samples"][-1]["kwargs"] == own["kwargs"]


# what does not fit


def test_another_checkpoint_is_refused(profile: Profile) -> None:
    with pytest.raises(ProfileError, match="belongs to another checkpoint"):
        profile.check_generator(small_dcgan(seed=1))
    profile.check_generator(small_dcgan())


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"detection": Detection(rates=(0.1, 0.15, 0.2))}, "needed: R = 0.15"),
        (
            {
                "rules": (Rule(id="cla", score="cla/layer_1", limit=Limit(quantile=0.9)),),
                "detection": Detection(rates=(0.1, 0.2, 0.3), curvature="exact"),
                "calibration": Calibration(curvature_samples=10),
            },
            "no score cla/layer_1",
        ),
        ({"rules": (Rule(id="deep", score="low_rate_0.1/layer_9", limit=Limit(quantile=0.9)),)}, "generator does not have"),
    ],
)
def test_a_policy_that_the_profile_does_not_cover(profile: Profile, changes: dict, missing: str) -> None:
    with pytest.raises((ProfileError, LayerError), match=missing):
        profile.limits(small_policy(**changes))


def test_a_layer_that_was_not_calibrated() -> None:
    toy = random_toy(2, [(3, 1, 1)] * 6, shift=-0.5)
    profile = calibrate(toy, small_policy(calibration=Calibration(rate_samples=100, score_samples=100)))
    assert profile.info.layers == (0, 1, 2, 3)
    with pytest.raises(ProfileError, match="needed: layer 5"):
        profile.limits(small_policy(detection=Detection(layers=(0, 5), rates=(0.1, 0.2))))
    with pytest.raises(ProfileError, match="needed: layer 4"):
        profile.limits(small_policy(correction=SequentialAblation(layers=(0, 3))))


def test_layers_of_a_policy() -> None:
    chain = Chain(preset=(0, 1, 3), last=6)
    policy = small_policy()
    assert detection_layers(policy, chain) == (0, 1, 3)
    assert correction_layers(policy, chain) == ((0, 1, 3), (1, 2, 3, 4))
    assert calibrated_layers(policy, chain) == (0, 1, 2, 3, 4)
    chosen = small_policy(detection=Detection(layers=(5, 2, 2), rates=(0.1, 0.2)), correction=SequentialAblation(layers=(3, 1)))
    assert detection_layers(chosen, chain) == (2, 5)
    assert correction_layers(chosen, chain) == ((1, 3), (2, 3, 4))
    assert calibrated_layers(chosen, chain) == (0, 1, 2, 3, 4, 5)
    reject = Policy(rules=(Rule(id="a", score="low_rate_0.1", limit=Limit(value=1.0), action="reject"),), correction=None)
    assert correction_layers(reject, chain) == ((), ())
    assert calibrated_layers(reject, chain) == (0, 1, 2, 3)
    for layers in ((7,), (-1,), ()):
        with pytest.raises(LayerError, match="layers 0 … 6"):
            detection_layers(small_policy(detection=Detection(layers=layers, rates=(0.1, 0.2))), chain)
