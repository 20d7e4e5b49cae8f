"""A check for GitHub: step summary and annotations, within its limits."""

from __future__ import annotations

from collections.abc import Iterator

from qualitygate.records.check import CheckRecord, RuleOutcome, RuleState
from qualitygate.reports.check_text import HEADER, cells, footing, hand_written_failures, headline

SUMMARY_BYTES = 2**20
"""Beyond it GitHub shows nothing at all."""
ANNOTATIONS = 10
"""Of one kind, in one step; more are dropped without a word."""
_CUT = "\n\n… cut off here: the rest is in `check.json`.\n"


def step_summary(record: CheckRecord, room: int = SUMMARY_BYTES) -> str:
    """Markdown of at most ``room`` bytes: the verdict, and the rules, worst first."""
    lines = [f"## {_cell(headline(record))}", "", *footing(record), "", _row(HEADER), _row(["---"] * len(HEADER))]
    lines += [_row(row) for _, row in cells(record)]
    lines += ["", *(f"- {_cell(one)}" for one in hand_written_failures(record))]
    text = "\n".join(lines) + "\n"
    if len(text.encode()) <= room:
        return text
    kept = text.encode()[: max(0, room - len(_CUT.encode()))].decode(errors="ignore")
    return (kept.rsplit("\n", 1)[0] + _CUT) if room >= len(_CUT.encode()) else ""


def workflow_commands(record: CheckRecord) -> list[str]:
    """Workflow commands, at most 10 of a kind, worst first: errors for what fails the gate or leaves it open, warnings, notices."""
    kept: dict[str, list[str]] = {"error": [], "warning": [], "notice": []}
    for kind, title, text in _remarks(record):
        if len(kept[kind]) < ANNOTATIONS:
            kept[kind].append(f"::{kind} title={_property(title)}::{_data(text)}")
    return [line for of_kind in kept.values() for line in of_kind]


def _remarks(record: CheckRecord) -> Iterator[tuple[str, str, str]]:
    for one in hand_written_failures(record):
        yield "error" if one.startswith("critical") else "warning", "expectation", one
    for outcome, row in cells(record):
        if outcome.state in (RuleState.FAILED, RuleState.INCONCLUSIVE):
            yield (_kind(outcome), f"{outcome.id} {row[2]}", f"{row[3]}: {row[4]} against {row[5]}, beyond the limit {row[6]}. {row[7]}")


def _kind(one: RuleOutcome) -> str:
    return {"critical": "error", "warning": "warning"}.get(one.severity, "notice")


def _row(values: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(map(_cell, values))} |"


def _cell(text: str) -> str:
    """Text that stays in its cell and is no HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
