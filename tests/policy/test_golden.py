"""Hashes of today's policies, suites and profiles: what was written yesterday stays valid."""

from __future__ import annotations

import hashlib

import pytest

from qualitygate.gating.calibrate import default_policy
from qualitygate.gating.profile import profile_id
from qualitygate.latents import Sampling
from qualitygate.policy.corrections import METHODS
from qualitygate.policy.model import Policy, default_rules, parse_policy, policy_yaml
from qualitygate.policy.suite import make_check_suite, make_suite, suite_hash

WHOLE = {
    "detection": {"curvature_layers": [1]},
    "calibration": {"curvature_samples": 1000},
    "risk": {"weights": {"low_rate_0.1": 1.0, "cla/layer_1": 0.5}},
    "rules": [
        {"id": "a", "score": "risk", "limit": {"quantile": 0.9}, "action": "reject"},
        {"id": "b", "score": "never_seen_active", "limit": {"value": 5}},
        {"id": "c", "score": "cla/layer_1", "limit": {"quantile": 0.95}},
    ],
    "correction": {"method": "sequential_correction", "score": "cla", "ranking": "profile", "lambdas": [0.9, 0.5]},
    "check": {"rules": [{"id": "x", "metric": "cla/layer_1/q0.9", "worse_by": {"relative": 0.1}}]},
}


@pytest.mark.parametrize(
    ("family", "by_samples", "check", "check_with_real_images"),
    [
        ("dcgan", "25881ff8bdd1c4fc", "437563f02612302d", "c538a23f2710af18"),
        ("pggan", "860da3b9bfe174d9", "a14dd750848208c7", "b38c9af5e714ae33"),
        ("stylegan2", "860da3b9bfe174d9", "a14dd750848208c7", "b38c9af5e714ae33"),
        ("module", "860da3b9bfe174d9", "a14dd750848208c7", "b38c9af5e714ae33"),
    ],
)
def test_default_policies(family: str, by_samples: str, check: str, check_with_real_images: str) -> None:
    policy = default_policy(family)
    hashes = (policy.hash, policy.check_hash(), policy.check_hash(real=True))
    assert tuple(one[:16] for one in hashes) == (by_samples, check, check_with_real_images)


@pytest.mark.parametrize(
    ("method", "digest"),
    [
        ("sequential_ablation", "25881ff8bdd1c4fc"),
        ("single_ablation", "bac9b12e70325589"),
        ("high_rate_ablation", "c181e9c5576409f9"),
        ("random_ablation", "7fa88d84dcf59722"),
        ("zero_ablation", "c2ed5c1d8318758d"),
        ("sequential_correction", "127a8bf48cdb56a1"),
        ("local_region", "f85d5a43fec559ef"),
    ],
)
def test_corrections(method: str, digest: str) -> None:
    assert Policy(correction=METHODS[method]()).hash[:16] == digest  # type: ignore[call-arg]


def test_a_policy_with_everything() -> None:
    policy = parse_policy(WHOLE, "whole")
    assert policy.hash == "bf75d80ccc6b370028308835995f72fb712e19b720a2aa5c5bd5425859ffee5c"
    assert policy.check_hash() == "84297a4af5701418010a936f03feb6a188cf5af1338518da229e3650e3f5c0ec"
    written = policy_yaml(policy)
    assert hashlib.sha256(written.encode()).hexdigest() == "6dbf3d1d2d513411e8a26971544818c53a368e7dc461812d401ed0f65160a1c1"


def test_profiles() -> None:
    plain, whole = Policy(), parse_policy(WHOLE, "whole")
    first = profile_id("ab" * 32, Sampling(), plain.calibration, (0, 1, 2, 3), plain.detection.rates)
    assert first == "c3c5b371d92889b961081e19b2202e7d33377addfde91c4c4e78048583b3df33"
    second = profile_id("ab" * 32, Sampling(psi=0.7), whole.calibration, (0, 1), whole.detection.rates)
    assert second == "4539063356303f0d4b2b9241705b230b5d751b0eb58274d15db66ce1785e4c35"


def test_suites() -> None:
    of_set, of_check = (
        make_suite(Policy(), ["low_rate_0.1"], 100),
        make_check_suite(default_rules(0.1), ["low_rate_0.1", "cla/layer_1"], 64),
    )
    assert suite_hash(of_set) == "342c7ef8aa4ca871f71a565633b1080486cfff4c3b3b6aa31e343414c59e83dc"
    assert suite_hash(of_check) == "28dad72001f651cea9c72b970db603fc48d710d0810c721bf3bed85a8b4d6449"
    assert suite_hash(make_check_suite(default_rules(0.3)[:2], [], 0)) == "c0e0119f3ea3deadf38aa0d7cc32fbb4984a5fad4c658052df8883f0b67bf123"
