"""A check in words and numbers, the same in every report."""

from __future__ import annotations

from collections.abc import Iterator

from qualitygate.policy.check import OF_IMAGES, TO_BASELINE
from qualitygate.records import CheckRecord, Range, RuleOutcome, RuleState

HEADER = ("rule", "severity", "result", "metric", "candidate", "baseline", "beyond the limit", "look at")


def headline(record: CheckRecord) -> str:
    """The verdict in one line."""
    against = f"against {record.baseline.checkpoint}" if record.baseline else "without a baseline"
    warned = " WITH WARNINGS" if record.verdict is RuleState.PASSED and record.warned else ""
    return f"{record.verdict.upper()}{warned}: {record.candidate.checkpoint} {against}, {record.samples:,} samples"


def footing(record: CheckRecord) -> list[str]:
    """What the verdict stands on: how sure it is, and what it does not cover; a sentence each."""
    blind = _uncovered(record)
    return [_method(record)] if blind is None else [_method(record), blind]


def cells(record: CheckRecord) -> Iterator[tuple[RuleOutcome, tuple[str, ...]]]:
    """The rules, worst first, each with the cells of its row under `HEADER`."""
    for one in record.worst_first:
        yield one, (one.id, one.severity, one.state.value.replace("_", " "), f"{one.metric} {one.rule}", number(one.value),
                    number(one.baseline), interval(one.excess), one.note or one.advice or "")  # fmt: skip


def hand_written_failures(record: CheckRecord) -> list[str]:
    """Expectations that failed and are no rule."""
    rules = {one.id for one in record.rules}
    return [f"{one.severity}: {one.id} ({one.type}) observed {one.observed} {one.note or ''}".rstrip()
            for one in record.suite.failures if one.id not in rules]  # fmt: skip


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def interval(found: Range | None) -> str:
    return "–" if found is None else f"{found.value:+.3g} [{found.low:+.3g}, {found.high:+.3g}]"


def _method(record: CheckRecord) -> str:
    """How sure it is, in one sentence."""
    paired = "the same latents in both" if record.paired else "latents not shared"
    counted = sum(one.state is not RuleState.LEFT_OUT for one in record.rules)
    return (
        f"{counted} rules, {record.looks} of up to {record.looks_planned} looks, {paired}; the chance that any of them was decided "
        f"wrongly is at most {record.error:g} (Bonferroni over rules and looks: each end of an interval is left {record.tail:.2g})."
    )


def _uncovered(record: CheckRecord) -> str | None:
    """What the verdict does not cover, in one line; None where real images were looked at."""
    looked_at = {one.metric for one in record.rules if one.metric in OF_IMAGES and one.value is not None}
    if not looked_at:
        return "No image was looked at: the verdict is of scores and units, and says nothing of what the images show; give --real DIR."
    if looked_at <= set(TO_BASELINE):
        return (
            "No real image was looked at: the candidate's images were held against the baseline's own, which shows that they "
            "changed, not whether for the better; give --real DIR."
        )
    return None
