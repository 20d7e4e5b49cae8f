"""The corrections that a policy can ask for: how they are written, checked, and told apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qualitygate import names
from qualitygate.errors import PolicyError
from qualitygate.gating.calibrate import default_policy
from qualitygate.policy.corrections import METHODS, SequentialAblation, SequentialCorrection, ZeroAblation
from qualitygate.policy.model import Policy, load_policy, parse_policy, policy_yaml


def policy_of(**correction: Any) -> Policy:
    return parse_policy({"correction": correction}, "p")


def correction_of(**settings: Any) -> Any:
    return policy_of(**settings).correction


def test_policies_from_before_there_were_methods_are_what_they_were() -> None:
    for document, digest in (
        ({}, "25881ff8bdd1c4fc1f12e2617c4e5e931282381748a732e99f7c8ed132b1f8db"),
        (
            {"correction": {"layers": [0, 1], "rates": [0.05, 0.3], "judged_at": 0.2}},
            "ed98ea086553c2d79921304f181241e87a5f05ba72634c82aff66c579384354f",
        ),
    ):
        policy = parse_policy(document, "old")
        assert isinstance(policy.correction, SequentialAblation)
        assert policy.hash == digest
    assert default_policy("pggan").hash == "860da3b9bfe174d9ec308af80106569ac3d50da81ef6c73f1603a77a3572e451"


@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_be_written_read_and_told_apart(method: str, tmp_path: Path) -> None:
    policy = policy_of(method=method)
    assert type(policy.correction) is METHODS[method]
    assert policy.correction is not None
    (tmp_path / "p.yaml").write_text(policy_yaml(policy))
    assert load_policy(tmp_path / "p.yaml") == policy
    assert (policy.hash == Policy().hash) == (method == "sequential_ablation")
    assert policy.correction.strengths
    columns = [names.trial(method, at, "low_rate_0.1/layer_1") for at in policy.correction.strengths]
    assert all(map(names.is_trial, columns))
    assert len(set(columns)) == len(columns)


def test_names_of_what_was_tried() -> None:
    assert names.trial("sequential_ablation", 0.2, "low_rate_0.1/layer_3") == "ablation_0.2/low_rate_0.1/layer_3"
    assert names.tried("sequential_correction", 0.4) == "sequential_correction_0.4/tried"
    assert names.tried("zero_ablation", 20.0) == "zero_ablation_20/tried"
    assert names.is_tried("ablation_0.2/tried")
    assert not names.is_tried("tried")
    for column in ("low_rate_0.1/layer_1", "cla/layer_0", "never_seen_active", "ablation_of/x", "moved"):
        assert not names.is_trial(column)


def test_strengths_go_from_the_least_to_the_most() -> None:
    assert correction_of(method="high_rate_ablation").strengths == (0.9, 0.8, 0.7)
    assert correction_of(method="random_ablation", shares=[0.1, 0.3]).strengths == (0.1, 0.3)
    assert correction_of(method="zero_ablation", units=[5, 20]).strengths == (5.0, 20.0)
    assert correction_of(method="local_region").strengths == (0.5, 1.0)
    by_size = correction_of(method="sequential_correction", units=[10, 100])
    assert by_size.strengths == (10.0, 100.0)
    assert (by_size.at(100.0), by_size.in_shares) == ((100.0, 0.9), False)
    by_lambda = correction_of(method="sequential_correction", shares=[0.3], lambdas=[0.9, 0.5, 0.0])
    assert by_lambda.strengths == (0.9, 0.5, 0.0)
    assert by_lambda.at(0.5) == (0.3, 0.5)
    assert correction_of(method="sequential_correction", lambdas=[0.9, 0.5]).at(0.5) == (0.2, 0.5)
    assert ZeroAblation().at(0.1) == (0.1, 0.0)


@pytest.mark.parametrize(
    ("settings", "edited"),
    [
        ({}, (1, 3, 5)),
        ({"layers": [0, 2]}, (0, 2)),
        ({"method": "single_ablation"}, (5,)),
        ({"method": "single_ablation", "layer": 2}, (2,)),
        ({"method": "random_ablation"}, (1, 3, 5)),
        ({"method": "zero_ablation"}, (0, 1, 2, 3, 4)),
        ({"method": "sequential_correction", "stop": 1}, (0, 1)),
        ({"method": "sequential_correction", "layers": [3]}, (3,)),
        ({"method": "local_region"}, (0, 1, 2, 3, 4)),
    ],
)
def test_layers_that_are_edited(settings: dict[str, Any], edited: tuple[int, ...]) -> None:
    assert correction_of(**settings).edited((1, 3, 5), 4) == edited


def test_a_profile_that_does_not_know_the_stopping_layer() -> None:
    with pytest.raises(PolicyError, match="no stopping layer"):
        SequentialCorrection().edited((0, 1), None)
    assert SequentialCorrection(stop=1).edited((0, 1), None) == (0, 1)


def test_what_it_costs_to_look() -> None:
    assert correction_of().look == "nothing"
    assert correction_of(method="sequential_correction").look == "pass"
    assert correction_of(method="sequential_correction", score="cla").look == "walk"
    assert correction_of(method="zero_ablation", ranking="profile").look == "nothing"
    assert correction_of(method="zero_ablation", score="random").look == "nothing"
    assert (correction_of(method="local_region").look, correction_of(method="local_region", mask="cla").look) == ("pass", "walk")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "magic"}, "correction: Input tag 'magic'"),
        ({"method": "single_ablation", "layers": [1]}, "layers: Extra inputs"),
        ({"method": "single_ablation", "rates": [0.3, 0.1]}, "rates must rise"),
        ({"method": "high_rate_ablation", "rates": [0.7, 0.8]}, "rates must fall"),
        ({"method": "random_ablation", "shares": [0.3, 0.1]}, "shares must rise"),
        ({"method": "random_ablation", "shares": [0.0]}, r"shares must lie in \(0, 1\]"),
        ({"method": "random_ablation", "seed": -1}, "seed"),
        ({"method": "zero_ablation", "units": [20, 10]}, "units must rise"),
        ({"method": "zero_ablation", "units": [0]}, "at least one of each layer"),
        ({"method": "zero_ablation", "units": [1], "shares": [0.1]}, "units or shares, not both"),
        ({"method": "zero_ablation", "layers": [1], "stop": 2}, "layers or stop, not both"),
        ({"method": "zero_ablation", "score": "defective_score"}, "a sample has no defective_score of its own"),
        ({"method": "sequential_correction", "lambdas": [0.5, 0.9]}, "lambdas must fall"),
        ({"method": "sequential_correction", "lambdas": [1.5]}, r"every λ must lie in \[0, 1\]"),
        ({"method": "sequential_correction", "lambdas": [0.9, 0.5], "units": [1, 2]}, "several lambdas or several sizes"),
        ({"method": "sequential_correction", "ranking": "profile", "score": "cla"}, "set calibration.curvature_samples"),
        ({"method": "sequential_correction", "judged_at": 0.15}, "not one of detection.rates"),
        ({"method": "local_region", "weights": [1.5]}, r"weights must lie in \(0, 1\]"),
        ({"method": "local_region", "mask": "grad_cam"}, "mask"),
        ({"method": "local_region", "rate": 0.0}, "rate"),
    ],
)
def test_what_cannot_be_used(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        policy_of(**settings)


def test_another_correction_is_checked_with_the_rest() -> None:
    changed = Policy().with_correction(ZeroAblation())
    assert changed.correction == ZeroAblation()
    assert changed.rules == Policy().rules
    with pytest.raises(PolicyError, match=r"with zero_ablation.*\n.*judged_at is 0.15"):
        Policy().with_correction(ZeroAblation(judged_at=0.15))


def test_the_schema_teaches_every_method() -> None:
    schema = Policy.model_json_schema()
    shown = json.dumps(schema["properties"]["correction"])
    assert '"propertyName": "method"' in shown
    for made in METHODS.values():
        described = schema["$defs"][made.__name__]
        assert described["description"]
        assert all(
            "description" in one or "const" in one or "$ref" in one or name == "seed" for name, one in described["properties"].items()
        )


def test_what_makes_two_edits_the_same() -> None:
    def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
        return bool(correction_of(**one).edit == correction_of(**other).edit)

    sequential = {"method": "sequential_correction"}
    assert same({}, {"rates": [0.05], "judged_at": 0.2, "limit": {"value": 3.0}})
    assert same(sequential, {**sequential, "shares": [0.5]})
    assert not same(sequential, {**sequential, "units": [3]})
    assert not same(sequential, {**sequential, "lambdas": [0.8]})
    assert not same(sequential, {**sequential, "score": "cla"})
    varied = {**sequential, "lambdas": [0.9, 0.5]}
    assert same(varied, {**sequential, "lambdas": [0.9, 0.1]})
    assert not same(varied, {**varied, "shares": [0.5]})
    assert not same(varied, sequential)
    assert not same({"method": "random_ablation"}, {"method": "random_ablation", "seed": 1})
    assert not same({"method": "local_region"}, {"method": "local_region", "rate": 0.2})
    assert not same({}, {"method": "single_ablation"})
