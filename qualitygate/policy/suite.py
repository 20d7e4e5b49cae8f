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
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError, field_validator, model_validator

from qualitygate import names
from qualitygate.errors import PolicyError
from qualitygate.policy.model import BatchRule, CheckRule, Policy, problems
from qualitygate.records import canonical_hash
from qualitygate.records.gate import Verdict

FORMAT = 1
TABLES = ("samples", "summary")
POLICY_ID = "policy_id"
"""Key in ``meta`` that names a generated expectation."""

_LARGEST = sys.float_info.max
_SAMPLE_COLUMNS = (names.ID, names.SEED, names.LABEL, names.VERDICT, names.STRENGTH, names.MOVED, names.BORDERLINE, names.REASONS)
_NOT_ARGUMENTS = frozenset({"batch_id", "catch_exceptions", "condition_parser", "id", "meta", "result_format", "severity"})
"""What the run sets, and what stands beside ``kwargs``; Great Expectations would let ``kwargs`` override it."""


def make_suite(policy: Policy, score_columns: Sequence[str], samples: int) -> dict[str, Any]:
    """The generated suite of a policy.

    Ids (``meta.policy_id``) are ``samples/…`` and ``summary/…`` for what every gated set must be, and the id of the rule for a rule of
    ``policy.batch``, with ``<id>.known`` (not null) and ``<id>.finite`` beside it, which are critical whatever the rule is.

    Args:
        policy: the policy.
        score_columns: columns of the sample table that hold a finite score of every sample that is not rejected.
        samples: rows that the sample table must have, at least 1.

    Returns:
        ``{"format": 1, "samples": [expectation, …], "summary": [expectation, …]}``, an expectation being
        ``{"type": "expect_…", "kwargs": {…}, "severity": "critical" | "warning" | "info", "meta": {"policy_id": "…"}}``.

    Raises:
        PolicyError: no sample was asked for, or two expectations would have the same id.
    """
    if samples < 1:
        raise PolicyError("An empty set cannot be judged", f"{samples} samples", "at least one sample")
    metrics = sorted({rule.metric for rule in policy.batch})
    one_row = expect("summary/rows", "expect_table_row_count_to_equal", value=1)
    suite = {
        "format": FORMAT,
        "samples": [
            *_rows((*_SAMPLE_COLUMNS, *score_columns), samples),
            *_verdicts(),
            *_strength(policy),
            *(one for column in score_columns for one in expect_finite(f"samples/{column}", column, _is_not(Verdict.REJECT))),
        ],
        "summary": [
            one_row,
            *([expect_columns("summary/columns", metrics)] if metrics else ()),
            *(one for rule in policy.batch for one in _rule(rule)),
        ],
    }
    return check_suite(suite, "made from the policy")


def suite_hash(suite: Mapping[str, Any]) -> str:
    """SHA-256 of a suite; thresholds, the number of samples and hand-written expectations included."""
    return canonical_hash(dict(suite))


def check_suite(document: Any, where: str) -> dict[str, Any]:
    """A suite read from JSON, with defaults filled in (severity ``critical``, empty ``meta``).

    Args:
        document: what was read.
        where: names it in errors.

    Raises:
        PolicyError: unknown keys, impossible values, an id twice, or a row condition that is not data. All of them are listed.
    """
    try:
        return _Suite.model_validate(document).model_dump(mode="json")
    except ValidationError as error:
        raise PolicyError(
            f"The suite {where} cannot be used",
            problems(error, "suite"),
            "keys and values as in a suite that `qualitygate` wrote",
            "correct it, or delete the file to have it made from the policy",
        ) from error


def merge_suite(made: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """The generated part of ``made`` with the hand-written part of ``stored``.

    What was changed in a generated expectation of ``stored`` is lost: thresholds are changed in the policy.

    Raises:
        PolicyError: one of the suites cannot be used, or an id would stand twice.
    """
    kept = check_suite(stored, "that is stored")
    merged = {table: [*made[table], *(one for one in kept[table] if POLICY_ID not in one["meta"])] for table in TABLES}
    return check_suite({"format": FORMAT, **merged}, "with its hand-written part")


def identified(suite: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every expectation of a suite as (table, id, expectation). The n-th hand-written one is ``custom-<n>``, from 1."""
    written = 0
    for table in TABLES:
        for expectation in suite[table]:
            if POLICY_ID in expectation["meta"]:
                yield table, expectation["meta"][POLICY_ID], expectation
            else:
                written += 1
                yield table, f"custom-{written}", expectation


# ---- what is generated


def _rows(columns: Sequence[str], samples: int) -> list[dict[str, Any]]:
    """So many rows with these columns, each of an id of its own."""
    return [
        expect("samples/rows", "expect_table_row_count_to_equal", value=samples),
        expect_columns("samples/columns", columns),
        expect("samples/id.known", "expect_column_values_to_not_be_null", column=names.ID),
        expect("samples/id.unique", "expect_column_values_to_be_unique", column=names.ID),
    ]


def _verdicts() -> list[dict[str, Any]]:
    return [
        expect("samples/verdict.known", "expect_column_values_to_not_be_null", column=names.VERDICT),
        expect("samples/verdict.allowed", "expect_column_values_to_be_in_set", column=names.VERDICT, value_set=[*map(str, Verdict)]),
    ]


def _strength(policy: Policy) -> list[dict[str, Any]]:
    """A correction has a strength, one that its method can have: above 0, or 0 where that is one, to 1 or the largest. Nothing else has
    one."""
    strengths = () if policy.correction is None else policy.correction.strengths
    corrected = {**_is_not(Verdict.CORRECT), "operator": "=="}
    return [
        expect("samples/strength.none", "expect_column_values_to_be_null", column=names.STRENGTH, row_condition=_is_not(Verdict.CORRECT)),
        expect("samples/strength.known", "expect_column_values_to_not_be_null", column=names.STRENGTH, row_condition=corrected),
        expect(
            "samples/strength.range",
            "expect_column_values_to_be_between",
            column=names.STRENGTH,
            min_value=0.0,
            strict_min=0.0 not in strengths,
            max_value=max((1.0, *strengths)),
            row_condition=corrected,
        ),
    ]


def _rule(rule: BatchRule) -> list[dict[str, Any]]:
    """A rule on a metric. The mean of one row is its value, and is reported, which a range of values would not do."""
    limits = {key: limit for key, limit in (("min_value", rule.min), ("max_value", rule.max)) if limit is not None}
    return [
        *expect_finite(rule.id, rule.metric),
        expect(rule.id, "expect_column_mean_to_be_between", rule.severity, column=rule.metric, **limits),
    ]


def expect_finite(name: str, column: str, where: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Neither NaN nor infinite."""
    condition: dict[str, Any] = {} if where is None else {"row_condition": where}
    return [
        expect(f"{name}.known", "expect_column_values_to_not_be_null", column=column, **condition),
        expect(f"{name}.finite", "expect_column_values_to_be_between", column=column, min_value=-_LARGEST, max_value=_LARGEST, **condition),
    ]


def expect_columns(name: str, columns: Sequence[str]) -> dict[str, Any]:
    """These columns are there, whatever else is."""
    return expect(name, "expect_table_columns_to_match_set", column_set=list(columns), exact_match=False)


def _is_not(verdict: Verdict) -> dict[str, Any]:
    return {"type": "comparison", "column": {"name": names.VERDICT}, "operator": "!=", "parameter": verdict.value}


def expect(name: str, type_: str, severity: str = "critical", **kwargs: Any) -> dict[str, Any]:
    """A generated expectation under its id."""
    return {"type": type_, "kwargs": kwargs, "severity": severity, "meta": {POLICY_ID: name}}


# ---- what a suite may hold


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _Column(_Part):
    name: str = Field(pattern=r"^[A-Za-z0-9_./-]+$")


class _Comparison(_Part):
    type: Literal["comparison"]
    column: _Column
    operator: Literal["==", "!=", "<", "<=", ">", ">=", "IN", "NOT_IN"]
    parameter: bool | int | float | str | list[bool | int | float | str]


class _Nullity(_Part):
    type: Literal["nullity"]
    column: _Column
    is_null: bool


class _Group(_Part):
    type: Literal["and", "or"]
    conditions: list[_Condition] = Field(min_length=1)


_Condition = Annotated[_Comparison | _Nullity | _Group, Field(discriminator="type")]
"""A row condition as data. A condition written as text, or a column's name that is an expression, would be evaluated as code by pandas."""


class _Expectation(_Part):
    type: str = Field(pattern=r"^expect_[a-z0-9_]+$")
    kwargs: dict[str, JsonValue]
    severity: Literal["critical", "warning", "info"] = "critical"
    meta: dict[str, JsonValue] = {}

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


class _Suite(_Part):
    format: Literal[1]
    samples: tuple[_Expectation, ...]
    summary: tuple[_Expectation, ...]

    @model_validator(mode="after")
    def _ids_differ(self) -> Self:
        ids = [name for _, name, _ in identified(self.model_dump(mode="json"))]
        if twice := sorted({name for name in ids if ids.count(name) > 1}):
            raise ValueError(f"these ids stand twice: {', '.join(twice)}")
        return self


LOW, HIGH = "low", "high"


def column(rule: str, end: str) -> str:
    """Column of the summary with an end of the interval of a rule's excess."""
    return f"rule/{rule}/{end}"


def make_check_suite(rules: Sequence[CheckRule], scores: Sequence[str], samples: int) -> dict[str, Any]:
    """The generated suite of a check.

    Args:
        rules: the rules that have an interval; any other makes the check inconclusive.
        scores: columns of the table of samples that must be known.
        samples: how many were asked for: ids 0 … samples − 1, each once. 0 where there is no table of samples.
    """
    ends = [column(rule.id, end) for rule in rules for end in (LOW, HIGH)]
    summary = [expect("summary/rows", "expect_table_row_count_to_equal", value=1), expect_columns("summary/columns", ends)]
    for rule in rules:
        summary += expect_finite(f"{rule.id}.{LOW}", column(rule.id, LOW))
        summary.append(expect(rule.id, "expect_column_max_to_be_between", rule.severity, column=column(rule.id, LOW), max_value=0.0))
    return check_suite({"format": FORMAT, "samples": _samples(scores, samples), "summary": summary}, "of the check")


def _samples(scores: Sequence[str], samples: int) -> list[dict[str, Any]]:
    """The ids evaluated are the ids asked for: as many as these, none twice, none outside."""
    if not samples:
        return []
    asked = expect("samples/id.asked", "expect_column_values_to_be_between", column=names.ID, min_value=0, max_value=samples - 1)
    finite = (one for score in scores for one in expect_finite(f"samples/{score}", score))
    return [*_rows((names.ID, *scores), samples), asked, *finite]
