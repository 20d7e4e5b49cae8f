"""A check in words and numbers, the same in every report."""

from __future__ import annotations

from collections.abc import Iterator

from qualitygate.policy.model import TO_BASELINE, needs_of
from qualitygate.records import Interval
from qualitygate.records.check import CheckRecord, RuleOutcome, RuleState

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


def reason(record: CheckRecord) -> str:
    """Why the verdict is what it is, in a sentence or two."""
    of = {state: [one.id for one in record.rules if one.state is state and one.severity == "critical"] for state in RuleState}
    wishes = [one.id for one in record.suite.failures if one.severity == "critical" and one.id not in {rule.id for rule in record.rules}]
    if record.verdict is RuleState.FAILED:
        parts = [
            f"{', '.join(ids)} {what}"
            for what, ids in (("beyond the limit", of[RuleState.FAILED]), ("expected and not met", wishes))
            if ids
        ]
        return f"Critical: {'; '.join(parts)}." if parts else "The suite failed."
    if record.verdict is RuleState.INCONCLUSIVE:
        found = ", ".join(of[RuleState.INCONCLUSIVE])
        return f"No critical rule failed, but these could not be decided: {found}." if found else "No rule could be evaluated."
    warned = "; but there are warnings" if record.warned else ""
    return f"All {len(of[RuleState.PASSED])} critical rules that could be evaluated hold{warned}."


def cells(record: CheckRecord) -> Iterator[tuple[RuleOutcome, tuple[str, ...]]]:
    """The rules, worst first, each with the cells of its row under `HEADER`."""
    for one in record.worst_first:
        yield (
            one,
            (
                one.id,
                one.severity,
                one.state.value.replace("_", " "),
                f"{one.metric} {one.rule}",
                number(one.value),
                number(one.baseline),
                interval(one.excess),
                one.note or one.advice or "",
            ),
        )


def hand_written_failures(record: CheckRecord, severity: str | None = None) -> list[str]:
    """Expectations that failed and are no rule; of one severity only, where it is given."""
    rules = {one.id for one in record.rules}
    return [
        f"{one.severity}: {one.id} ({one.type}) observed {one.observed} {one.note or ''}".rstrip()
        for one in record.suite.failures
        if one.id not in rules and severity in (None, one.severity)
    ]


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def interval(found: Interval | None) -> str:
    return "–" if found is None else f"{found.value:+.3g} [{found.low:+.3g}, {found.high:+.3g}]"


def _method(record: CheckRecord) -> str:
    """How sure it is, in one sentence."""
    paired = "the same latents in both" if record.paired else "latents not shared"
    counted = sum(one.state is not RuleState.LEFT_OUT for one in record.rules)
    return (
        f"{counted} {'rule' if counted == 1 else 'rules'}, {record.looks} of up to {record.looks_planned} looks, {paired}; "
        f"the chance that any of them was decided wrongly is at most {record.error:g} (Bonferroni over rules and looks: each end of "
        f"an interval is left {record.tail:.2g})."
    )


def _uncovered(record: CheckRecord) -> str | None:
    """What the verdict does not cover, in one line; None where real images were looked at."""
    looked_at = {one.metric for one in record.rules if needs_of(one.metric) is not None and one.value is not None}
    if not looked_at:
        return "No rule looked at an image: the verdict is of scores and units, and says nothing of what the images show; give --real DIR."
    if looked_at <= set(TO_BASELINE):
        return (
            "No rule looked at a real image: the candidate's images were held against the baseline's own, which shows that they "
            "changed, not whether for the better; give --real DIR."
        )
    return None
