"""A check as JUnit XML: one case a rule, one for the suite. A critical rule that failed is a failure, one that is open is an error."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from qualitygate.records.check import CheckRecord, RuleOutcome, RuleState
from qualitygate.reports.check_text import footing, hand_written_failures, headline, interval, number

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 does not have."""


def junit_xml(record: CheckRecord) -> bytes:
    """The document, UTF-8."""
    suite = ET.Element("testsuite", name=plain(f"qualitygate check {record.candidate.checkpoint}"), time=f"{record.seconds:.3f}")
    cases = [_case(suite, one) for one in record.rules]
    cases.append(_suite_case(suite, record))
    counts = {kind: sum(case.find(kind) is not None for case in cases) for kind in ("failure", "error", "skipped")}
    for kind, name in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        suite.set(name, str(counts[kind]))
    suite.set("tests", str(len(cases)))
    ET.SubElement(suite, "system-out").text = plain("\n".join((headline(record), *footing(record))))
    root = ET.Element("testsuites")
    root.append(suite)
    return ET.tostring(root, encoding="utf-8", xml_declaration=True)


def plain(text: str) -> str:
    """The text without what XML forbids."""
    return _FORBIDDEN.sub("�", text)


def _case(suite: ET.Element, one: RuleOutcome) -> ET.Element:
    case = ET.SubElement(suite, "testcase", classname="qualitygate.check", name=plain(f"{one.id} ({one.severity})"))
    said = plain(
        f"{one.metric} {one.rule}: {number(one.value)} against {number(one.baseline)}, beyond the limit {interval(one.excess)}. "
        f"{one.note or one.advice or ''}".rstrip()
    )
    if one.state is RuleState.LEFT_OUT:
        ET.SubElement(case, "skipped", message=said)
    elif one.severity == "critical" and one.state is RuleState.FAILED:
        ET.SubElement(case, "failure", message=said, type=one.severity)
    elif one.severity == "critical" and one.state is RuleState.INCONCLUSIVE:
        ET.SubElement(case, "error", message=said, type="inconclusive")
    else:
        ET.SubElement(case, "system-out").text = f"{one.state.value}: {said}"
    return case


def _suite_case(suite: ET.Element, record: CheckRecord) -> ET.Element:
    case = ET.SubElement(suite, "testcase", classname="qualitygate.check", name="expectations")
    if critical := hand_written_failures(record, "critical"):
        ET.SubElement(case, "failure", message=plain("; ".join(critical)), type="critical")
    if failures := hand_written_failures(record):
        ET.SubElement(case, "system-out").text = plain("\n".join(failures))
    return case
