"""Reports of a check within the limits of those who read them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from reports.page_material import HOSTILE
from small_records import check_record, rule_outcome

from qualitygate.errors import InputError
from qualitygate.records import Interval
from qualitygate.records.check import CheckRecord, RuleOutcome, RuleState
from qualitygate.records.gate import ExpectationResult, SuiteResult
from qualitygate.reports.check_page import baseline_excess, check_page, interval_figure
from qualitygate.reports.check_text import ANNOTATIONS, SUMMARY_BYTES, footing, headline, junit_xml, reason, step_summary, workflow_commands


def outcome(name: str, state: RuleState = RuleState.FAILED, severity: str = "critical", note: str | None = None) -> RuleOutcome:
    excess = Interval(value=0.3, low=0.2, high=0.4)
    return rule_outcome(name, severity=severity, state=state, value=0.5, note=note, excess=excess)


def record(*rules: RuleOutcome, checkpoint: str = "model.pt") -> CheckRecord:
    suite = SuiteResult(passed=False, evaluated=1, results=())
    one = check_record(checkpoint, *rules, verdict=RuleState.FAILED, paired=True, looks_planned=3, suite=suite)
    return one.model_copy(update={"baseline": one.candidate})


def test_worst_first() -> None:
    rules = [outcome("a", RuleState.PASSED), outcome("b", severity="warning"), outcome("c", RuleState.INCONCLUSIVE), outcome("d")]
    assert [one.id for one in record(*rules).worst_first] == ["d", "b", "c", "a"]


def test_the_limits_are_those_of_github() -> None:
    assert (SUMMARY_BYTES, ANNOTATIONS) == (1024 * 1024, 10)
    text = step_summary(record(*(outcome(f"r{index}", note="ü" * 2000) for index in range(400))))
    assert SUMMARY_BYTES - 5000 < len(text.encode()) <= SUMMARY_BYTES
    assert "r0" in text
    assert text.endswith("`check.json`.\n")


def test_every_kind_of_annotation_has_its_limit() -> None:
    many = [outcome(f"{severity}{index}", severity=severity) for severity in ("critical", "warning", "info") for index in range(13)]
    lines = workflow_commands(record(*many))
    kinds = [line.split(" ", 1)[0] for line in lines]
    assert {kind: kinds.count(kind) for kind in kinds} == {"::error": 10, "::warning": 10, "::notice": 10}


def test_annotations_are_few_and_escaped() -> None:
    many = [outcome(f"r{index}") for index in range(30)] + [outcome("w", severity="warning", note="100 %\r\nof, it: all")]
    lines = workflow_commands(record(*many))
    assert sum(line.startswith("::error ") for line in lines) == ANNOTATIONS
    (warning,) = (line for line in lines if line.startswith("::warning "))
    assert "100 %25%0D%0Aof, it: all" in warning
    assert not any("\n" in line or "\r" in line for line in lines)


def test_the_summary_never_outgrows_its_room() -> None:
    long = record(*(outcome(f"r{index}", note="ü" * 500) for index in range(200)))
    text = step_summary(long, 5000)
    assert len(text.encode()) <= 5000
    assert "cut off here" in text
    assert step_summary(long, 3) == ""


def test_the_summary_keeps_its_cells() -> None:
    text = step_summary(record(outcome("a", note="one | two\n<b>")))
    assert "one \\| two &lt;b>" in text


def test_junit_counts_and_is_xml() -> None:
    rules = [
        outcome("a", note="\x00\x1b[31m"),
        outcome("b", RuleState.INCONCLUSIVE),
        outcome("c", RuleState.LEFT_OUT),
        outcome("d", severity="warning"),
    ]
    suite = ET.fromstring(junit_xml(record(*rules, checkpoint="m\x0b.pt")))[0]
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "5",
        "failures": "1",
        "errors": "1",
        "skipped": "1",
    }


@pytest.mark.parametrize("severity", ["critical", "warning"])
def test_only_a_critical_expectation_is_a_failure_in_junit(severity: str) -> None:
    wish = ExpectationResult(
        id="custom-1", type="expect_column_max_to_be_between", severity=severity, success=False, observed=3.5, kwargs={}
    )
    suite = SuiteResult(passed=False, evaluated=2, results=(wish,))  # it failed because of the rule
    written = ET.fromstring(junit_xml(record(outcome("a")).model_copy(update={"suite": suite})))
    case = written.find(".//testcase[@name='expectations']")
    assert case is not None
    assert (case.find("failure") is not None) == (severity == "critical")
    assert (case.findtext("system-out") or "").startswith(f"{severity}: custom-1")


def page_of(*rules: RuleOutcome, policy: str = "batch: []", checkpoint: str = "model.pt") -> str:
    return check_page(record(*rules, checkpoint=checkpoint), policy)


def test_the_page_escapes_and_needs_nothing_else() -> None:
    text = page_of(outcome("a", note="<script>x</script>"), outcome("b", RuleState.PASSED), policy="# </pre><script>", checkpoint=HOSTILE)
    assert "<script" not in text
    assert "<img" not in text
    assert not re.search(r"""(?:src|href)=["'](?!#|data:)""", text), "loads nothing, leads nowhere"
    assert text.count("<svg") == 1


def test_the_page_says_first_why_and_what_to_look_at() -> None:
    rules = [
        outcome("fine", RuleState.PASSED),
        outcome("open", RuleState.INCONCLUSIVE, note="too few"),
        outcome("broken", note="see `units`"),
    ]
    text = page_of(*rules)
    words = re.sub(r"<style>.*?</style>|<svg.*?</svg>|<[^>]+>", " ", text, flags=re.DOTALL)
    at = [
        words.index(word)
        for word in (
            "failed",
            "Critical: broken beyond the limit.",
            "What to look at",
            "see  units",
            "too few",
            "Rules, worst first",
            "Candidate and baseline",
            "batch: []",
            "Made again",
        )
    ]
    assert at == sorted(at)
    assert "<code>units</code>" in text


def test_the_page_stands_without_numbers_and_without_a_baseline() -> None:
    bare = RuleOutcome(
        id="p", metric="precision", severity="critical", rule="at least 0.1", state=RuleState.LEFT_OUT, note="no real images"
    )
    text = check_page(record(bare).model_copy(update={"baseline": None, "verdict": RuleState.INCONCLUSIVE}), "")
    assert "<svg" not in text
    assert "Left out: p (no real images)." in text
    assert "No baseline was given" in text


def of_images(metric: str, value: float | None) -> RuleOutcome:
    return outcome(metric, RuleState.PASSED).model_copy(update={"metric": metric, "value": value})


def test_every_report_says_what_was_not_looked_at() -> None:
    blind = record(outcome("a"), of_images("precision", None))
    for report in (step_summary(blind), check_page(blind, ""), junit_xml(blind).decode()):
        assert "No rule looked at an image" in report
    alike = step_summary(record(of_images("recall_to_baseline", 0.7)))
    assert "No rule looked at a real image" in alike
    assert "No rule looked at" not in step_summary(record(of_images("precision", 0.7), of_images("recall_to_baseline", 0.7)))
    assert len(footing(record(of_images("precision", 0.7)))) == 1


def test_a_pass_with_warnings_says_so_first() -> None:
    warned = record(outcome("a", severity="warning")).model_copy(update={"verdict": RuleState.PASSED})
    assert headline(warned).startswith("PASSED WITH WARNINGS: ")
    assert headline(record(outcome("a", severity="warning"))).startswith("FAILED: ")


def test_expectations_that_are_no_rule_are_shown() -> None:
    wish = ExpectationResult(
        id="custom-1",
        type="expect_column_max_to_be_between",
        severity="critical",
        success=False,
        observed=3.5,
        kwargs={"column": "yield", "max_value": 1},
    )
    failed = record(outcome("a", RuleState.PASSED)).model_copy(update={"suite": SuiteResult(passed=False, evaluated=2, results=(wish,))})
    text = check_page(failed, "")
    assert "custom-1" in text
    assert "max_value 1" in text
    assert reason(failed) == "Critical: custom-1 expected and not met."


@pytest.mark.parametrize(
    ("states", "verdict", "words"),
    [
        ([RuleState.PASSED, RuleState.PASSED], RuleState.PASSED, "All 2 critical rules that could be evaluated hold."),
        (
            [RuleState.PASSED, RuleState.INCONCLUSIVE],
            RuleState.INCONCLUSIVE,
            "No critical rule failed, but these could not be decided: r1.",
        ),
        ([RuleState.LEFT_OUT], RuleState.INCONCLUSIVE, "No rule could be evaluated."),
        ([RuleState.FAILED, RuleState.FAILED], RuleState.FAILED, "Critical: r0, r1 beyond the limit."),
    ],
)
def test_the_reason(states: list[RuleState], verdict: RuleState, words: str) -> None:
    rules = [outcome(f"r{index}", state) for index, state in enumerate(states)]
    passed = SuiteResult(passed=True, evaluated=1, results=())
    assert reason(record(*rules).model_copy(update={"verdict": verdict, "suite": passed})) == words


# the figure


def against(metric: str, difference: float, excess: float) -> RuleOutcome:
    return RuleOutcome(
        id="a",
        metric=metric,
        severity="critical",
        rule="worse by at most 0.05",
        state=RuleState.PASSED,
        value=0.0,
        difference=Interval(value=difference, low=difference, high=difference),
        excess=Interval(value=excess, low=excess, high=excess),
    )


def test_the_baseline_stands_one_margin_before_the_limit() -> None:
    assert baseline_excess(against("rejected_share", 0.01, -0.04)) == pytest.approx(-0.05)
    assert baseline_excess(against("precision", -0.02, -0.03)) == pytest.approx(-0.05), "less of it is worse"
    assert baseline_excess(outcome("absolute")) is None


def test_the_figure_has_a_row_for_every_rule_that_was_measured() -> None:
    def height(count: int) -> int:
        bare = outcome("bare", RuleState.LEFT_OUT).model_copy(update={"excess": None})
        return Image.open(BytesIO(interval_figure(record(bare, *(outcome(f"r{index}") for index in range(count)))))).height

    assert Image.open(BytesIO(interval_figure(record(outcome("a"))))).width == 900
    assert height(5) - height(3) == pytest.approx(2 * (height(2) - height(1)), abs=2)
    with pytest.raises(InputError, match="no rule with numbers"):
        interval_figure(record(outcome("a").model_copy(update={"excess": None})))


def test_intervals_stand_on_their_side_of_the_limit() -> None:
    """The colour of a state is found right of the line for a failure, left of it for a pass."""
    beyond = outcome("a")
    within = outcome("a", RuleState.PASSED).model_copy(update={"excess": Interval(value=-0.3, low=-0.4, high=-0.2)})
    for one, color, side in ((beyond, (0xD5, 0x5E, 0x00), 1), (within, (0x00, 0x9E, 0x73), -1)):
        pixels = np.asarray(Image.open(BytesIO(interval_figure(record(one)))).convert("RGB"))[60:100]
        columns = np.flatnonzero((pixels == color).all(axis=2).any(axis=0))
        middle = 900 * (0.25 + 0.43 / 2)
        assert ((columns - middle) * side > 0).all()
