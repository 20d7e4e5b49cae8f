"""A check in words and numbers, the same in every report; for GitHub within its limits, and as JUnit XML."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence

from qualitygate.policy.model import TO_BASELINE, needs_of
from qualitygate.records import Interval
from qualitygate.records.check import CheckRecord, RuleOutcome, RuleState
from qualitygate.records.gate import ExpectationResult

HEADER = ("rule", "severity", "result", "metric", "candidate", "baseline", "beyond the limit", "look at")
SUMMARY_BYTES = 2**20  # beyond it GitHub shows nothing at all
ANNOTATIONS = 10  # of one kind, in one step; more are dropped without a word
_CUT = "\n\n… cut off here: the rest is in `check.json`.\n"
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 does not have."""
_DATA = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_PROPERTY = _DATA | str.maketrans({":": "%3A", ",": "%2C"})
"""How workflow commands are escaped."""


def headline(record: CheckRecord) -> str:
    """The verdict in one line."""
    against = f"against {record.baseline.checkpoint}" if record.baseline else "without a baseline"
    warned = " WITH WARNINGS" if record.verdict is RuleState.PASSED and record.warned else ""
    return f"{record.verdict.upper()}{warned}: {record.candidate.checkpoint} {against}, {record.samples:,} samples"


def footing(record: CheckRecord) -> list[str]:
    """What the verdict stands on: how sure it is, and what it does not cover, where no real images were looked at; a sentence each."""
    paired = "the same latents in both" if record.paired else "latents not shared"
    counted = sum(one.state is not RuleState.LEFT_OUT for one in record.rules)
    sentences = [
        f"{counted} {'rule' if counted == 1 else 'rules'}, {record.looks} of up to {record.looks_planned} looks, {paired}; "
        f"the chance that any of them was decided wrongly is at most {record.error:g} (Bonferroni over rules and looks: each end of "
        f"an interval is left {record.tail:.2g})."
    ]
    looked_at = {one.metric for one in record.rules if needs_of(one.metric) is not None and one.value is not None}
    if not looked_at:
        sentences.append(
            "No rule looked at an image: the verdict is of scores and units, and says nothing of what the images show; give --real DIR."
        )
    elif looked_at <= set(TO_BASELINE):
        sentences.append(
            "No rule looked at a real image: the candidate's images were held against the baseline's own, which shows that they "
            "changed, not whether for the better; give --real DIR."
        )
    return sentences


def reason(record: CheckRecord) -> str:
    """Why the verdict is what it is, in a sentence or two."""
    of = {state: [one.id for one in record.rules if one.state is state and one.severity == "critical"] for state in RuleState}
    if record.verdict is RuleState.FAILED:
        unmet = [one.id for one in unmet_wishes(record) if one.severity == "critical"]
        why = (("beyond the limit", of[RuleState.FAILED]), ("expected and not met", unmet))
        parts = [f"{', '.join(ids)} {what}" for what, ids in why if ids]
        return f"Critical: {'; '.join(parts)}." if parts else "The suite failed."
    if record.verdict is RuleState.INCONCLUSIVE:
        found = ", ".join(of[RuleState.INCONCLUSIVE])
        return f"No critical rule failed, but these could not be decided: {found}." if found else "No rule could be evaluated."
    warned = "; but there are warnings" if record.warned else ""
    return f"All {len(of[RuleState.PASSED])} critical rules that could be evaluated hold{warned}."


def cells(record: CheckRecord) -> Iterator[tuple[RuleOutcome, tuple[str, ...]]]:
    """The rules, worst first, each with the cells of its row under `HEADER`."""
    return ((one, _row(one)) for one in record.worst_first)


def unmet_wishes(record: CheckRecord) -> list[ExpectationResult]:
    """Expectations that failed and are no rule: written by hand."""
    rules = {one.id for one in record.rules}
    return [one for one in record.suite.failures if one.id not in rules]


def hand_written_failures(record: CheckRecord, severity: str | None = None) -> list[str]:
    """`unmet_wishes` in words; of one severity only, where it is given."""
    found = [one for one in unmet_wishes(record) if severity in (None, one.severity)]
    return [f"{one.severity}: {one.id} ({one.type}) observed {one.observed} {one.note or ''}".rstrip() for one in found]


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def step_summary(record: CheckRecord, room: int = SUMMARY_BYTES) -> str:
    """Markdown of at most ``room`` bytes: the verdict, and the rules, worst first."""
    table = (HEADER, ["---"] * len(HEADER), *(row for _, row in cells(record)))
    lines = [f"## {_markdown(headline(record))}", "", *footing(record), ""]
    lines += [f"| {' | '.join(map(_markdown, row))} |" for row in table]
    lines += ["", *(f"- {_markdown(one)}" for one in hand_written_failures(record))]
    text = "\n".join(lines) + "\n"
    if len(text.encode()) <= room:
        return text
    kept = text.encode()[: max(0, room - len(_CUT.encode()))].decode(errors="ignore")
    return (kept.rsplit("\n", 1)[0] + _CUT) if room >= len(_CUT.encode()) else ""


def workflow_commands(record: CheckRecord) -> list[str]:
    """Workflow commands, at most 10 of a kind, worst first: errors for what fails the gate or leaves it open, warnings, notices."""
    kinds = {"critical": "error", "warning": "warning"}
    remarks = [("error" if one.startswith("critical") else "warning", "expectation", one) for one in hand_written_failures(record)]
    remarks += [
        (kinds.get(one.severity, "notice"), f"{one.id} {row[2]}", _sentence(row))
        for one, row in cells(record)
        if one.state in (RuleState.FAILED, RuleState.INCONCLUSIVE)
    ]
    lines: dict[str, list[str]] = {"error": [], "warning": [], "notice": []}
    for kind, title, text in remarks:
        lines[kind].append(f"::{kind} title={title.translate(_PROPERTY)}::{text.translate(_DATA)}")
    return [line for of_kind in lines.values() for line in of_kind[:ANNOTATIONS]]


def junit_xml(record: CheckRecord) -> bytes:
    """The document, UTF-8."""
    root = ET.Element("testsuites")
    suite = ET.SubElement(root, "testsuite", name=_xml(f"qualitygate check {record.candidate.checkpoint}"), time=f"{record.seconds:.3f}")
    for one in record.rules:
        _case(suite, one)
    wishes = ET.SubElement(suite, "testcase", classname="qualitygate.check", name="expectations")
    if critical := hand_written_failures(record, "critical"):
        ET.SubElement(wishes, "failure", message=_xml("; ".join(critical)), type="critical")
    if failures := hand_written_failures(record):
        ET.SubElement(wishes, "system-out").text = _xml("\n".join(failures))
    for kind, name in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        suite.set(name, str(len(suite.findall(f"testcase/{kind}"))))
    suite.set("tests", str(len(suite)))
    ET.SubElement(suite, "system-out").text = _xml("\n".join((headline(record), *footing(record))))
    return ET.tostring(root, encoding="utf-8", xml_declaration=True)


def _case(suite: ET.Element, one: RuleOutcome) -> None:
    case = ET.SubElement(suite, "testcase", classname="qualitygate.check", name=_xml(f"{one.id} ({one.severity})"))
    said = _xml(_sentence(_row(one)).rstrip())
    if one.state is RuleState.LEFT_OUT:
        ET.SubElement(case, "skipped", message=said)
    elif one.severity == "critical" and one.state is RuleState.FAILED:
        ET.SubElement(case, "failure", message=said, type=one.severity)
    elif one.severity == "critical" and one.state is RuleState.INCONCLUSIVE:
        ET.SubElement(case, "error", message=said, type="inconclusive")
    else:
        ET.SubElement(case, "system-out").text = f"{one.state.value}: {said}"


def _row(one: RuleOutcome) -> tuple[str, ...]:
    result, numbers = one.state.value.replace("_", " "), (number(one.value), number(one.baseline), _interval(one.excess))
    return (one.id, one.severity, result, f"{one.metric} {one.rule}", *numbers, one.note or one.advice or "")


def _interval(found: Interval | None) -> str:
    return "–" if found is None else f"{found.value:+.3g} [{found.low:+.3g}, {found.high:+.3g}]"


def _sentence(row: Sequence[str]) -> str:
    return f"{row[3]}: {row[4]} against {row[5]}, beyond the limit {row[6]}. {row[7]}"


def _markdown(text: str) -> str:
    """Text that stays in its cell and is no HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _xml(text: str) -> str:
    return _FORBIDDEN.sub("�", text)
