"""Suites as plain dictionaries: made, checked, merged, hashed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from qualitygate.errors import PolicyError
from qualitygate.policy.corrections import SequentialAblation, SequentialCorrection, ZeroAblation
from qualitygate.policy.model import BatchRule, Policy
from qualitygate.policy.suite import check_suite, identified, make_suite, merge_suite, suite_hash

SCORES = ["low_rate_0.1", "cla/layer_1"]
OWN = {"type": "expect_column_max_to_be_between", "kwargs": {"column": "low_rate_0.1", "max_value": 50}}


def made(**rule):
    batch = (BatchRule(**{"id": "yield", "metric": "yield", "min": 0.8, **rule}),)
    return make_suite(Policy(batch=batch), SCORES, 10)


def empty(**changes):
    return {"format": 1, "samples": [], "summary": [], **changes}


def by_id(suite):
    return {name: expectation for _, name, expectation in identified(suite)}


def test_a_rule_becomes_an_expectation_with_critical_companions():
    suite = by_id(made(severity="warning", max=0.9))
    assert suite["yield"] == {
        "type": "expect_column_mean_to_be_between",
        "kwargs": {"column": "yield", "min_value": 0.8, "max_value": 0.9},
        "severity": "warning",
        "meta": {"policy_id": "yield"},
    }
    assert suite["yield.known"]["severity"] == suite["yield.finite"]["severity"] == "critical"
    assert suite["yield.known"]["kwargs"] == {"column": "yield"}


def test_every_score_is_asked_to_be_there_and_finite():
    suite = by_id(made())
    for column in SCORES:
        assert column in suite["samples/columns"]["kwargs"]["column_set"]
        for what in ("known", "finite"):
            kwargs = suite[f"samples/{column}.{what}"]["kwargs"]
            assert kwargs["column"] == column
            assert (kwargs["row_condition"]["operator"], kwargs["row_condition"]["parameter"]) == ("!=", "reject")


def test_a_policy_without_batch_rules_still_asks_for_one_row():
    suite = make_suite(Policy(batch=()), SCORES, 10)
    assert [one["meta"]["policy_id"] for one in suite["summary"]] == ["summary/rows"]


def test_round_trip_through_json():
    suite = made()
    assert check_suite(json.loads(json.dumps(suite)), "suite.json") == suite


@pytest.mark.parametrize("change", [{"min": 0.7}, {"severity": "warning"}, {"metric": "accepted_share"}, {"max": 0.9}])
def test_the_hash_follows_the_rules(change):
    assert suite_hash(made()) == suite_hash(made())
    assert suite_hash(made(**change)) != suite_hash(made())


def test_the_hash_follows_columns_samples_and_hand_written_expectations():
    others = (
        make_suite(Policy(), SCORES, 10),
        make_suite(Policy(), SCORES[:1], 10),
        make_suite(Policy(), SCORES, 11),
        merge_suite(make_suite(Policy(), SCORES, 10), empty(samples=[OWN])),
    )
    assert len({suite_hash(one) for one in others}) == 4


def test_a_severity_left_out_is_critical():
    suite = check_suite(empty(samples=[OWN]), "suite.json")
    assert suite["samples"] == [{**OWN, "severity": "critical", "meta": {}}]


def test_hand_written_expectations_are_numbered_across_both_tables():
    suite = check_suite(empty(samples=[OWN], summary=[{**OWN, "meta": {"why": "asked for"}}]), "suite.json")
    assert [(table, name) for table, name, _ in identified(suite)] == [("samples", "custom-1"), ("summary", "custom-2")]


def test_merging_keeps_what_was_written_and_makes_the_rest_again():
    stored = merge_suite(made(), empty(samples=[OWN]))
    stored["summary"][-1]["kwargs"]["min_value"] = 0.0  # a generated one, loosened by hand
    merged = merge_suite(made(min=0.9), stored)
    assert merged["samples"][-1] == {**OWN, "severity": "critical", "meta": {}}
    assert merged["summary"] == made(min=0.9)["summary"]
    assert merge_suite(made(min=0.9), merged) == merged


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (None, "suite: Input should be a valid dictionary"),
        ({}, "format: Field required"),
        (empty(format=2), "format: Input should be 1"),
        (empty(tables=[]), "tables: Extra inputs are not permitted"),
        (empty(samples=[{**OWN, "sevrity": "info"}]), "samples.0.sevrity: Extra inputs are not permitted"),
        (empty(samples=[{**OWN, "severity": "fatal"}]), "samples.0.severity: Input should be"),
        (empty(samples=[{**OWN, "type": "import os"}]), "samples.0.type: String should match"),
        (empty(samples=[{**OWN, "meta": {"policy_id": 3}}]), "policy_id must be text"),
        (empty(samples=[{**OWN, "kwargs": {"max_value": float("inf")}}]), "should be a finite number"),
        (empty(samples=[{**OWN, "kwargs": {"value_set": [{"a": float("nan")}]}}]), "should be a finite number"),
        (empty(samples=[{**OWN, "kwargs": {"result_format": "COMPLETE"}}]), "no arguments of an expectation: result_format"),
        (empty(samples=[{**OWN, "kwargs": {"meta": {"policy_id": "yield"}}}]), "no arguments of an expectation: meta"),
        (empty(samples=[{**OWN, "meta": {"policy_id": "a"}}] * 2), "these ids stand twice: a"),
        (empty(samples=[OWN], summary=[{**OWN, "meta": {"policy_id": "custom-1"}}]), "stand twice: custom-1"),
    ],
)
def test_a_document_that_is_no_suite_is_refused(document, said):
    with pytest.raises(PolicyError, match=r"The suite suite\.json cannot be used") as caught:
        check_suite(document, "suite.json")
    assert said in str(caught.value)


def column(name):
    return {"type": "comparison", "column": {"name": name}, "operator": "==", "parameter": 1}


@pytest.mark.parametrize(
    "condition",
    [
        "@pd.io.common.os.getcwd() == ''",
        {"type": "pass_through", "pass_through_filter": "@pd.io.common.os.getcwd() == ''"},
        {"type": "and", "conditions": [{"type": "pass_through", "pass_through_filter": "True"}]},
        {"type": "or", "conditions": [column("a` == @pd.io.common.os.getcwd() or `a")]},
        column("@pd.io.common.os.getcwd()"),
        {**column("a"), "operator": "== @pd.io.common.os.getcwd() or 1 =="},
    ],
)
def test_a_row_condition_that_would_run_as_code_is_refused(condition):
    with pytest.raises(PolicyError, match="row_condition is not a condition as data"):
        check_suite(empty(samples=[{**OWN, "kwargs": {"row_condition": condition}}]), "suite.json")


def test_a_row_condition_as_data_is_kept():
    moved = {"type": "nullity", "column": {"name": "moved"}, "is_null": True}
    condition = {"type": "and", "conditions": [column("cla/layer_1"), moved]}
    suite = check_suite(empty(samples=[{**OWN, "kwargs": {"row_condition": condition}}]), "suite.json")
    assert suite["samples"][0]["kwargs"]["row_condition"] == condition


def test_ids_that_would_meet_are_refused():
    rules = (BatchRule(id="yield", metric="yield", min=0.8), BatchRule(id="yield.known", metric="yield", min=0.7))
    with pytest.raises(PolicyError, match=r"stand twice: yield\.known"):
        make_suite(Policy(batch=rules), SCORES, 10)


def test_an_empty_set_cannot_be_judged():
    with pytest.raises(PolicyError, match="An empty set cannot be judged"):
        make_suite(Policy(), SCORES, 0)


def test_nothing_heavy_is_imported():
    code = (
        "import sys, qualitygate.policy.suite, qualitygate.expectations\n"
        "assert not {'torch', 'great_expectations', 'pandas', 'mlflow'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("correction", "strict", "most"),
    [(SequentialAblation(), True, 1.0), (ZeroAblation(units=(5, 40)), True, 40.0), (SequentialCorrection(lambdas=(0.9, 0.0)), False, 1.0)],
)
def test_strengths_are_those_that_the_method_can_have(correction, strict, most):
    asked = by_id(make_suite(Policy(correction=correction), SCORES, 10))["samples/strength.range"]["kwargs"]
    assert (asked["min_value"], asked["strict_min"], asked["max_value"]) == (0.0, strict, most)
