"""Suites run on tables: what must fail fails, and nothing that was not evaluated passes."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from qualitygate.errors import PolicyError, SuiteError
from qualitygate.expectations import run_suite
from qualitygate.policy.model import BatchRule, Policy
from qualitygate.policy.suite import make_suite, merge_suite

SCORE = "low_rate_0.1/layer_3"
POLICY = Policy(
    batch=(
        BatchRule(id="yield", metric="yield", min=0.8),
        BatchRule(id="accepted", metric="accepted_share", min=0.75, max=1.0, severity="warning"),
    )
)


def table(**columns):
    rows = {
        "id": np.arange(6),
        "seed": np.full(6, 1),
        "label": [None] * 6,
        "verdict": ["accept", "accept", "accept", "accept", "correct", "reject"],
        "strength": [np.nan, np.nan, np.nan, np.nan, 0.2, np.nan],
        "moved": [np.nan, np.nan, np.nan, np.nan, 0.01, np.nan],
        "borderline": [False] * 6,
        "reasons": [[], [], [], [], ["repaired:0.2"], ["score_not_finite:low_rate"]],
        SCORE: [3.0, 4.0, 5.0, 6.0, 40.0, np.nan],
    }
    return pd.DataFrame({**rows, **columns})


def row(**metrics):
    return pd.DataFrame([{"yield": 0.83, "accepted_share": 0.8, **metrics}])


def run(samples=None, summary=None, own=(), own_summary=()):
    written = {"format": 1, "samples": list(own), "summary": list(own_summary)}
    suite = merge_suite(make_suite(POLICY, [SCORE], 6), written)
    return run_suite(suite, table() if samples is None else samples, row() if summary is None else summary)


def failures(result):
    return {one.id for one in result.failures}


def by_id(result, name):
    return next(one for one in result.results if one.id == name)


def test_a_good_set_passes_and_every_expectation_has_its_result_in_order():
    result = run()
    suite = make_suite(POLICY, [SCORE], 6)
    asked = [one["meta"]["policy_id"] for one in (*suite["samples"], *suite["summary"])]
    assert result.passed, result.failures
    assert [one.id for one in result.results] == asked
    assert result.evaluated == len(asked)
    assert by_id(result, "yield").observed == 0.83


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({SCORE: np.nan}, {f"samples/{SCORE}.known"}),
        ({SCORE: None}, {f"samples/{SCORE}.known"}),
        ({SCORE: [np.inf, 4.0, 5.0, 6.0, 40.0, np.nan]}, {f"samples/{SCORE}.finite"}),
        ({SCORE: [-np.inf, 4.0, 5.0, 6.0, 40.0, np.nan]}, {f"samples/{SCORE}.finite"}),
        ({"id": 3}, {"samples/id.unique"}),
        ({"id": [0, 1, 2, 3, 4, None]}, {"samples/id.known"}),
        ({"verdict": ["accept"] * 4 + ["correct", None]}, {"samples/verdict.known", f"samples/{SCORE}.known"}),
        ({"verdict": ["accept"] * 4 + ["correct", "rejcet"]}, {"samples/verdict.allowed", f"samples/{SCORE}.known"}),
        ({"strength": np.nan}, {"samples/strength.known"}),
        ({"strength": [0.1, np.nan, np.nan, np.nan, 0.2, np.nan]}, {"samples/strength.none"}),
        ({"strength": [np.nan] * 4 + [0.0, np.nan]}, {"samples/strength.range"}),
    ],
)
def test_a_bad_column_fails(columns, expected):
    result = run(table(**columns))
    assert not result.passed
    assert failures(result) == expected
    assert result.evaluated == len(result.results)


@pytest.mark.parametrize("frame", [table().iloc[:0], table().iloc[:5], pd.concat([table(), table(id=np.arange(6, 12))])])
def test_another_number_of_rows_fails(frame):
    assert failures(run(frame)) == {"samples/rows"}


@pytest.mark.parametrize("name", ["id", "verdict", "strength", "reasons", SCORE])
def test_a_missing_column_fails(name):
    result = run(table().drop(columns=name))
    assert not result.passed
    assert "samples/columns" in failures(result)


def test_a_table_without_anything_fails():
    result = run(pd.DataFrame(), pd.DataFrame())
    assert not result.passed
    assert {"samples/rows", "samples/columns", "summary/rows", "summary/columns", "yield"} <= failures(result)


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"yield": 0.79}, {"yield"}),
        ({"yield": np.nan}, {"yield", "yield.known"}),
        ({"yield": np.inf}, {"yield.finite"}),
        ({"accepted_share": np.nan}, {"accepted", "accepted.known"}),
        ({"accepted_share": np.inf}, {"accepted", "accepted.finite"}),
    ],
)
def test_a_bad_metric_fails(metrics, expected):
    result = run(summary=row(**metrics))
    assert not result.passed
    assert failures(result) == expected


def test_a_summary_of_two_rows_fails():
    assert failures(run(summary=pd.concat([row(), row()]))) == {"summary/rows"}


def test_a_warning_is_listed_and_does_not_fail_the_set():
    result = run(summary=row(accepted_share=0.5))
    assert result.passed
    assert failures(result) == {"accepted"}
    assert by_id(result, "accepted").observed == 0.5


def test_a_rule_that_could_not_be_evaluated_fails_the_set_whatever_its_severity():
    result = run(own_summary=[{"type": "expect_column_mean_to_be_between", "kwargs": {"column": "absent"}, "severity": "info"}])
    assert not result.passed
    assert failures(result) == {"custom-1"}
    assert "absent" in (by_id(result, "custom-1").note or "")
    assert result.evaluated == len(result.results) - 1


@pytest.mark.parametrize(("most", "passed"), [(50, True), (30, False)])
def test_a_hand_written_expectation_counts(most, passed):
    result = run(own=[{"type": "expect_column_max_to_be_between", "kwargs": {"column": SCORE, "max_value": most}}])
    assert result.passed is passed
    assert by_id(result, "custom-1").observed == 40.0
    assert by_id(result, "custom-1").severity == "critical"


def test_a_row_condition_on_a_score_selects_rows():
    where = {"type": "comparison", "column": {"name": SCORE}, "operator": "<", "parameter": 10}
    own = {"type": "expect_column_max_to_be_between", "kwargs": {"column": SCORE, "max_value": 6, "row_condition": where}}
    assert by_id(run(own=[own]), "custom-1").success


@pytest.mark.parametrize("holder", [list, tuple, np.array])
def test_reasons_can_be_asked_for_as_text(holder):
    reasons = [holder(one) for one in table()["reasons"]]
    own = {"type": "expect_column_values_to_not_match_regex", "kwargs": {"column": "reasons", "regex": "^score_not"}}
    observed = by_id(run(table(reasons=reasons), own=[own]), "custom-1").observed
    assert observed["partial_unexpected_list"] == ["score_not_finite:low_rate"]


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"type": "expect_column_to_be_lovely", "kwargs": {"column": SCORE}}, "expect_column_to_be_lovely not found"),
        ({"type": "expect_column_values_to_be_null", "kwargs": {"column": SCORE, "colour": 1}}, "extra fields"),
        ({"type": "expect_column_values_to_be_between", "kwargs": {"column": "verdict", "min_value": 0}}, "of the same type"),
    ],
)
def test_an_expectation_that_cannot_be_evaluated_is_an_error_and_spoils_no_other(own, said):
    result = run(own=[{**own, "severity": "info"}])
    assert not result.passed
    assert failures(result) == {"custom-1"}
    assert said in (by_id(result, "custom-1").note or "")


def test_a_run_that_breaks_off_passes_nothing():
    own = {"type": "expect_column_max_to_be_between", "kwargs": {"column": SCORE, "max_value": {"$PARAMETER": "most"}}}
    result = run(own=[own])
    assert not result.passed
    assert result.evaluated == len(make_suite(POLICY, [SCORE], 6)["summary"])
    assert all("$PARAMETER most" in (one.note or "") for one in result.results[: -result.evaluated])


def test_an_answer_lost_or_given_twice_is_no_pass(monkeypatch):
    from great_expectations.datasource.fluent.interfaces import Batch

    validate = Batch.validate

    def careless(*given, **settings):
        answer = validate(*given, **settings)
        answer.results = [*answer.results[2:], answer.results[-1]]
        return answer

    monkeypatch.setattr(Batch, "validate", careless)
    result = run()
    assert not result.passed
    notes = [one.note for one in result.results]
    assert notes.count("0 results where one is needed") == 4
    assert notes.count("2 results where one is needed") == 2


def test_observations_are_fit_for_json():
    result = run(table(**{SCORE: np.inf}), row(**{"yield": np.inf}))
    json.dumps(result.model_dump(), allow_nan=False)
    assert by_id(result, "yield").observed == "inf"
    assert by_id(result, f"samples/{SCORE}.finite").observed["partial_unexpected_list"] == ["inf"] * 5


def test_the_tables_and_the_context_of_the_caller_are_left_alone(capfd):
    from great_expectations import get_context
    from great_expectations.data_context.data_context.context_factory import project_manager

    mine = get_context(mode="ephemeral")
    samples = table()
    run(samples)
    assert project_manager._project is mine
    project_manager.set_project(None)
    pd.testing.assert_frame_equal(samples, table())
    assert capfd.readouterr() == ("", "")


def test_a_suite_that_says_nothing_is_refused():
    with pytest.raises(PolicyError, match="says nothing"):
        run_suite({"format": 1, "samples": [], "summary": []}, table(), row())


def test_great_expectations_that_does_not_start_is_an_error(monkeypatch):
    import great_expectations

    monkeypatch.setattr(great_expectations, "get_context", lambda **_: 1 / 0)
    with pytest.raises(SuiteError, match="cannot be started"):
        run()
