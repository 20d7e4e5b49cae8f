"""The check section of a policy: what it says by default, what it refuses, and that reading it is light."""

from __future__ import annotations

import subprocess
import sys

import pytest

from qualitygate.errors import PolicyError
from qualitygate.policy.model import TO_BASELINE, Check, Policy, default_rules, higher_is_better, needs_of, of_images, parse_policy
from qualitygate.records.metrics import METRICS


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"id": "a", "metric": "yield"}, "exactly one of"),
        ({"id": "a", "metric": "yield", "min": 0.1, "max": 0.2}, "exactly one of"),
        ({"id": "a", "metric": "yeild", "min": 0.1}, "there is no metric 'yeild'"),
        ({"id": "a", "metric": "low_rate_0.1/q9", "max": 1}, "there is no metric"),
        ({"id": "a", "metric": "low_rate_0.77/q0.9", "max": 1}, "R = 0.77"),
        ({"id": "a", "metric": "cla/layer_1/q0.9", "max": 1}, "curvature_layers"),
        ({"id": "a", "metric": "yield", "worse_by": {}}, "give relative"),
        ({"id": "a", "metric": "yield", "worse_by": {"percent": 5}}, "percent"),
        ({"id": "a", "metric": "yield", "worse_by": {"relative": -1}}, "greater than or equal"),
        ({"id": "a", "metric": "yield", "min": 0.1, "severity": "fatal"}, "severity"),
    ],
)
def test_rules_that_make_no_sense_are_refused(rule: dict, said: str) -> None:
    with pytest.raises(PolicyError, match=said):
        parse_policy({"check": {"rules": [rule]}}, "p.yaml")


@pytest.mark.parametrize(
    "check", [{"rules": []}, {"sample": 3}, {"samples": 9000}, {"seed": 0}, {"rules": [{"id": "a", "metric": "yield", "min": 0.5}] * 2}]
)
def test_sections_that_make_no_sense_are_refused(check: dict) -> None:
    with pytest.raises(PolicyError):
        parse_policy({"check": check}, "p.yaml")


@pytest.mark.parametrize("field", ["extractor", "distance"])
def test_a_policy_names_no_code(field: str) -> None:
    with pytest.raises(PolicyError, match="a policy names no code; give module:os:getcwd as an option"):
        parse_policy({"check": {field: "module:os:getcwd"}}, "p.yaml")


def test_looks_are_doublings_within_the_budget() -> None:
    assert Check(samples=1000, budget={"samples": 1999}).looks == 1
    assert Check(samples=1000, budget={"samples": 8000}).looks == 4


def test_the_default_rules_follow_the_policy() -> None:
    rules = {rule.id: rule for rule in Policy().check_rules()}
    assert rules["low_rate_tail"].metric == "low_rate_0.1/q0.9"
    assert {rule.id: rule for rule in default_rules(0.3)}["low_rate_neurons"].metric == "low_rate_share_0.3"
    assert not rules["yield"].optional  # what needs nothing but the candidate is always asked


def test_with_real_images_they_decide_and_counts_warn() -> None:
    critical = {real: {rule.id for rule in Policy().check_rules(real=real) if rule.severity == "critical"} for real in (False, True)}
    assert critical == {False: {"yield", "low_rate_tail", "rejected", "dead_units", "precision", "recall"}, True: {"precision", "recall"}}
    assert Policy().check_hash(real=True) != Policy().check_hash()


def test_the_check_changes_no_verdict_of_a_sample() -> None:
    other = Policy(check=Check(samples=2048))
    assert other.hash == Policy().hash
    assert other.check_hash() != Policy().check_hash()


def test_directions_are_those_of_the_metrics() -> None:
    for name in (*of_images(), *TO_BASELINE):
        assert higher_is_better(name) == METRICS[TO_BASELINE.get(name, name)].higher_is_better
    shares = ("accepted_share", "corrected_share", "rejected_share", "yield", "borderline_share", "dead_units", "low_rate_0.1/q0.9")
    assert [name for name in shares if higher_is_better(name)] == ["accepted_share", "yield"]
    assert {needs_of(name) for name in TO_BASELINE} == {"baseline"}
    assert [needs_of(name) for name in ("fid", "ppl", "discriminator", "yield")] == ["real", "paths", "discriminator", None]


def test_a_policy_is_validated_without_torch() -> None:
    program = (
        "import sys; from qualitygate.policy.model import Policy; Policy()\n"
        "assert not {'torch', 'mlflow', 'great_expectations', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
