"""Reports of a check within the limits of those who read them."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from qualitygate.records import CheckRecord, Compared, Range, RuleOutcome, RuleState, SuiteResult
from qualitygate.reports.check_page import check_page
from qualitygate.reports.check_text import footing, headline
from qualitygate.reports.github import ANNOTATIONS, step_summary, workflow_commands
from qualitygate.reports.junit import junit_xml


def outcome(
    name: str, state: RuleState = RuleState.FAILED, severity: str = "critical", note: str | None = None
) -> RuleOutcome:
    return RuleOutcome(id=name, metric="yield", severity=severity, rule="at least 0.8", state=state, value=0.5, note=note,
                       excess=Range(value=0.3, low=0.2, high=0.4))  # fmt: skip


def record(*rules: RuleOutcome, checkpoint: str = "model.pt") -> CheckRecord:
    side = Compared(
        source=checkpoint, checkpoint=checkpoint, checkpoint_sha256="a" * 64, family="dcgan", profile_id="p"
    )
    return CheckRecord(
        verdict=RuleState.FAILED, candidate=side, baseline=side, paired=True, samples=64, looks=1, looks_planned=3, seed=1, error=0.05,
        tail=0.001, rules=rules, suite=SuiteResult(passed=False, evaluated=1, results=()), policy_hash="h", suite_hash="s", real=None,
        extractor=None, package_version="0", torch_version="0", device="cpu", seconds=1.0,
    )  # fmt: skip


def test_worst_first() -> None:
    rules = [
        outcome("a", RuleState.PASSED),
        outcome("b", severity="warning"),
        outcome("c", RuleState.INCONCLUSIVE),
        outcome("d"),
    ]
    assert [one.id for one in record(*rules).worst_first] == ["d", "b", "c", "a"]


def test_annotations_are_few_and_escaped() -> None:
    many = [outcome(f"r{index}") for index in range(30)] + [
        outcome("w", severity="warning", note="100 %\r\nof, it: all")
    ]
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
    rules = [outcome("a", note="\x00\x1b[31m"), outcome("b", RuleState.INCONCLUSIVE), outcome("c", RuleState.LEFT_OUT),
             outcome("d", severity="warning")]  # fmt: skip
    suite = ET.fromstring(junit_xml(record(*rules, checkpoint="m\x0b.pt")))[0]
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "5", "failures": "1", "errors": "1", "skipped": "1"
    }  # fmt: skip


def test_the_page_escapes_and_needs_nothing_else() -> None:
    page = check_page(
        record(outcome("a", note="<script>x</script>"), outcome("b", RuleState.PASSED), checkpoint="<img src=x>")
    )
    assert "<script" not in page
    assert "<img" not in page
    assert "http" not in page
    assert page.count("<svg") == 2


def of_images(metric: str, value: float | None) -> RuleOutcome:
    return outcome(metric, RuleState.PASSED).model_copy(update={"metric": metric, "value": value})


def test_every_report_says_what_was_not_looked_at() -> None:
    blind = record(outcome("a"), of_images("precision", None))
    for report in (step_summary(blind), check_page(blind), junit_xml(blind).decode()):
        assert "No image was looked at" in report
    alike = step_summary(record(of_images("recall_to_baseline", 0.7)))
    assert "No real image was looked at" in alike
    assert "looked at:" not in step_summary(record(of_images("precision", 0.7), of_images("recall_to_baseline", 0.7)))
    assert len(footing(record(of_images("precision", 0.7)))) == 1


def test_a_pass_with_warnings_says_so_first() -> None:
    warned = record(outcome("a", severity="warning")).model_copy(update={"verdict": RuleState.PASSED})
    assert headline(warned).startswith("PASSED WITH WARNINGS: ")
    assert headline(record(outcome("a", severity="warning"))).startswith("FAILED: ")
