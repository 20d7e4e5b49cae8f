"""The suite of a check: the rules on the one-row summary, and what the table of samples must be.

A rule is decided by the interval of its excess: ``rule/<id>/low`` above 0 fails it. Hand-written expectations see the metrics under their
own names, the baseline's under ``baseline/…``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qualitygate import names
from qualitygate.policy.check import CheckRule
from qualitygate.policy.suite import FORMAT, check_suite, expect, expect_columns, expect_finite

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
    return [
        expect("samples/rows", "expect_table_row_count_to_equal", value=samples),
        expect_columns("samples/columns", [names.ID, *scores]),
        expect("samples/id.known", "expect_column_values_to_not_be_null", column=names.ID),
        expect("samples/id.unique", "expect_column_values_to_be_unique", column=names.ID),
        expect("samples/id.asked", "expect_column_values_to_be_between", column=names.ID, min_value=0, max_value=samples - 1),
        *(one for score in scores for one in expect_finite(f"samples/{score}", score)),
    ]
