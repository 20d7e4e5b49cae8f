"""A policy as a suite of expectations: plain dictionaries that Great Expectations can run on the tables of a gated set.

An expectation on values says nothing of values that are not there: one on a range holds for a column of NaN and for a table without
rows. So nothing is asked alone here: the tables have their number of rows and their columns, and a range comes with "not null" and
"finite".

A suite may hold hand-written expectations beside the generated ones; they are those without a ``meta.policy_id``.

The suite of a check (`make_check_suite`) has the rules on its one-row summary. A rule is decided by the interval of its excess:
``rule/<id>/low`` above 0 fails it. Hand-written expectations see the metrics under their own names, the baseline's under ``baseline/…``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, JsonValue, TypeAdapter, ValidationError, field_validator, model_validator

from qualitygate import names
from qualitygate.errors import PolicyError
from qualitygate.policy.corrections import Part
from qualitygate.policy.model import CheckRule, Policy, problems
from qualitygate.records import canonical_hash
from qualitygate.records.gate import Verdict

FORMAT = 1
TABLES = ("samples", "summary")
LOW, HIGH = "low", "high"
POLICY_ID = "policy_id"
"""Key in ``meta`` that names a generated expectation."""

_LARGEST = sys.float_info.max
_SAMPLE_COLUMNS = (names.ID, names.SEED, names.LABEL, names.VERDICT, names.STRENGTH, names.MOVED, names.BORDERLINE, names.REASONS)
_NOT_ARGUMENTS = frozenset({"batch_id", "catch_exceptions", "condition_parser", "id", "meta", "result_format", "severity"})
"""What the run sets, and what stands beside ``kwargs``; Great Expectations would let ``kwargs`` override it."""


def make_suite(policy: Policy, score_columns: Sequence[str], samples: int) -> dict[str, Any]:
    """The generated suite of a policy: ``{"format": 1, "samples": [expectation, …], "summary": [expectation, …]}``, an expectation being
    ``{"type": "expect_…", "kwargs": {…}, "severity": "critical" | "warning" | "info", "meta": {"policy_id": "…"}}``.

    Ids (``meta.policy_id``) are ``samples/…`` and ``summary/…`` for what every gated set must be, and the id of the rule for a rule of
    ``policy.batch``, with ``<id>.known`` (not null) and ``<id>.finite`` beside it, which are critical whatever the rule is. The table has
    as many rows as ``samples``, at least 1; its ``score_columns`` hold a finite score of every sample that is not rejected.

    Raises:
        PolicyError: no sample was asked for, or two expectations would have the same id.
    """
    if samples < 1:
        raise PolicyError("An empty set cannot be judged", f"{samples} samples", "at least one sample")
    per_sample = [*_rows((*_SAMPLE_COLUMNS, *score_columns), samples), *_verdicts(policy)]
    for column in score_columns:
        per_sample += _finite(f"samples/{column}", column, row_condition=_verdict("!=", Verdict.REJECT))
    summary = [_expect("summary/rows", "expect_table_row_count_to_equal", value=1)]
    if policy.batch:
        summary.append(_columns("summary/columns", sorted({rule.metric for rule in policy.batch})))
    for rule in policy.batch:
        # the mean of one row is its value, and is reported, which a range of values would not do
        limits = {key: limit for key, limit in (("min_value", rule.min), ("max_value", rule.max)) if limit is not None}
        summary += _finite(rule.id, rule.metric)
        summary.append(_expect(rule.id, "expect_column_mean_to_be_between", rule.severity, column=rule.metric, **limits))
    return check_suite({"format": FORMAT, "samples": per_sample, "summary": summary}, "made from the policy")


def make_check_suite(rules: Sequence[CheckRule], scores: Sequence[str], samples: int) -> dict[str, Any]:
    """The generated suite of a check.

    Args:
        rules: the rules that have an interval; any other makes the check inconclusive.
        scores: columns of the table of samples that must be known.
        samples: how many were asked for: ids 0 … samples − 1, each once. 0 where there is no table of samples.
    """
    per_sample = []
    if samples:
        asked = _expect("samples/id.asked", "expect_column_values_to_be_between", column=names.ID, min_value=0, max_value=samples - 1)
        per_sample = [*_rows((names.ID, *scores), samples), asked]
        for score in scores:
            per_sample += _finite(f"samples/{score}", score)
    ends = [column(rule.id, end) for rule in rules for end in (LOW, HIGH)]
    summary = [_expect("summary/rows", "expect_table_row_count_to_equal", value=1), _columns("summary/columns", ends)]
    for rule in rules:
        low = column(rule.id, LOW)
        summary += _finite(f"{rule.id}.{LOW}", low)
        summary.append(_expect(rule.id, "expect_column_max_to_be_between", rule.severity, column=low, max_value=0.0))
    return check_suite({"format": FORMAT, "samples": per_sample, "summary": summary}, "of the check")


def suite_hash(suite: Mapping[str, Any]) -> str:
    """SHA-256 of a suite; thresholds, the number of samples and hand-written expectations included."""
    return canonical_hash(dict(suite))


def check_suite(document: Any, where: str) -> dict[str, Any]:
    """A suite read from JSON, with defaults filled in (severity ``critical``, empty ``meta``); ``where`` names it in errors.

    Raises:
        PolicyError: unknown keys, impossible values, an id twice, or a row condition that is not data. All of them are listed.
    """
    try:
        return _Suite.model_validate(document).model_dump(mode="json")
    except ValidationError as error:
        remedy = "correct it, or delete the file to have it made from the policy"
        needed = "keys and values as in a suite that `qualitygate` wrote"
        raise PolicyError(f"The suite {where} cannot be used", problems(error, "suite"), needed, remedy) from error


def merge_suite(made: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """The generated part of ``made`` with the hand-written part of ``stored``; a `PolicyError` where an id would stand twice.

    What was changed in a generated expectation of ``stored`` is lost: thresholds are changed in the policy.
    """
    kept = check_suite(stored, "that is stored")
    merged = {table: [*made[table], *(one for one in kept[table] if POLICY_ID not in one["meta"])] for table in TABLES}
    return check_suite({"format": FORMAT, **merged}, "with its hand-written part")


def identified(suite: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every expectation of a suite as (table, id, expectation). The n-th hand-written one is ``custom-<n>``, from 1."""
    numbers = count(1)
    for table in TABLES:
        for expectation in suite[table]:
            yield table, expectation["meta"].get(POLICY_ID) or f"custom-{next(numbers)}", expectation


# ---- what is generated


def _rows(columns: Sequence[str], samples: int) -> list[dict[str, Any]]:
    """So many rows with these columns, each of an id of its own."""
    return [
        _expect("samples/rows", "expect_table_row_count_to_equal", value=samples),
        _columns("samples/columns", columns),
        _expect("samples/id.known", "expect_column_values_to_not_be_null", column=names.ID),
        _expect("samples/id.unique", "expect_column_values_to_be_unique", column=names.ID),
    ]


def _verdicts(policy: Policy) -> list[dict[str, Any]]:
    """Every sample has a verdict. A correction has a strength, one that its method can have: above 0, or 0 where that is one, to 1 or the
    largest. Nothing else has one."""
    strengths = () if policy.correction is None else policy.correction.strengths
    verdict, strength = {"column": names.VERDICT}, {"column": names.STRENGTH}
    corrected, uncorrected = (_verdict(operator, Verdict.CORRECT) for operator in ("==", "!="))
    limits: dict[str, Any] = {"min_value": 0.0, "strict_min": 0.0 not in strengths, "max_value": max((1.0, *strengths))}
    return [
        _expect("samples/verdict.known", "expect_column_values_to_not_be_null", **verdict),
        _expect("samples/verdict.allowed", "expect_column_values_to_be_in_set", **verdict, value_set=[*map(str, Verdict)]),
        _expect("samples/strength.none", "expect_column_values_to_be_null", **strength, row_condition=uncorrected),
        _expect("samples/strength.known", "expect_column_values_to_not_be_null", **strength, row_condition=corrected),
        _expect("samples/strength.range", "expect_column_values_to_be_between", **strength, **limits, row_condition=corrected),
    ]


def _verdict(operator: str, verdict: Verdict) -> dict[str, Any]:
    """Rows with this verdict, or with any other."""
    return {"type": "comparison", "column": {"name": names.VERDICT}, "operator": operator, "parameter": verdict.value}


def _finite(name: str, column: str, **condition: Any) -> list[dict[str, Any]]:
    """Neither NaN nor infinite."""
    return [
        _expect(f"{name}.known", "expect_column_values_to_not_be_null", column=column, **condition),
        _expect(
            f"{name}.finite", "expect_column_values_to_be_between", column=column, min_value=-_LARGEST, max_value=_LARGEST, **condition
        ),
    ]


def _columns(name: str, columns: Sequence[str]) -> dict[str, Any]:
    """These columns are there, whatever else is."""
    return _expect(name, "expect_table_columns_to_match_set", column_set=list(columns), exact_match=False)


def _expect(name: str, what: str, severity: str = "critical", **kwargs: Any) -> dict[str, Any]:
    """A generated expectation under its id."""
    return {"type": what, "kwargs": kwargs, "severity": severity, "meta": {POLICY_ID: name}}


def column(rule: str, end: str) -> str:
    """Column of the summary with an end of the interval of a rule's excess."""
    return f"rule/{rule}/{end}"


# ---- what a suite may hold


class _Data(Part):
    model_config = ConfigDict(allow_inf_nan=False)


class _Column(_Data):
    name: str = Field(pattern=r"^[A-Za-z0-9_./-]+$")


class _Comparison(_Data):
    type: Literal["comparison"]
    column: _Column
    operator: Literal["==", "!=", "<", "<=", ">", ">=", "IN", "NOT_IN"]
    parameter: bool | int | float | str | list[bool | int | float | str]


class _Nullity(_Data):
    type: Literal["nullity"]
    column: _Column
    is_null: bool


class _Group(_Data):
    type: Literal["and", "or"]
    conditions: list[_Condition] = Field(min_length=1)


_Condition = Annotated[_Comparison | _Nullity | _Group, Field(discriminator="type")]
"""A row condition as data. A condition written as text, or a column's name that is an expression, would be evaluated as code by pandas."""


class _Expectation(_Data):
    type: str = Field(pattern=r"^expect_[a-z0-9_]+$")
    kwargs: dict[str, JsonValue]
    severity: Literal["critical", "warning", "info"] = "critical"
    meta: dict[str, JsonValue] = Field({})

    @field_validator("kwargs")
    @classmethod
    def _only_data(cls, kwargs: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if others := sorted(_NOT_ARGUMENTS & kwargs.keys()):
            raise ValueError(f"no arguments of an expectation: {', '.join(others)}")
        if "row_condition" in kwargs:
            try:
                TypeAdapter(_Condition).validate_python(kwargs["row_condition"])
            except ValidationError as error:
                raise ValueError(f"row_condition is not a condition as data: {problems(error, 'it')}") from None
        return kwargs

    @field_validator("meta")
    @classmethod
    def _named(cls, meta: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if POLICY_ID in meta and not (isinstance(meta[POLICY_ID], str) and meta[POLICY_ID]):
            raise ValueError(f"{POLICY_ID} must be text; leave it out of a hand-written expectation")
        return meta


class _Suite(_Data):
    format: Literal[1]
    samples: tuple[_Expectation, ...]
    summary: tuple[_Expectation, ...]

    @model_validator(mode="after")
    def _ids_differ(self) -> Self:
        ids = [name for _, name, _ in identified(self.model_dump(mode="json"))]
        if twice := sorted({name for name in ids if ids.count(name) > 1}):
            raise ValueError(f"these ids stand twice: {', '.join(twice)}")
        return self
