"""A check as one page of HTML that needs nothing else: no script, no font, no picture from anywhere."""

from __future__ import annotations

from collections import Counter

from markupsafe import Markup, escape

from qualitygate.records import WORST_FIRST, CheckRecord, RuleState
from qualitygate.reports.check_figure import interval_figure
from qualitygate.reports.check_text import cells, footing, interval, reason
from qualitygate.reports.page.markup import drawn_as, inline, render


def check_page(record: CheckRecord, policy: str) -> str:
    """The page. Everything that came from outside is escaped.

    Args:
        record: of the check.
        policy: what it was checked by, as YAML.
    """
    counts = Counter(one.state for one in record.rules)
    return render("check.html.j2", {
        "record": record,
        "policy": policy,
        "reason": reason(record),
        "footing": footing(record),
        "counts": [(state.value.replace("_", " "), state.value, counts[state]) for state in WORST_FIRST],
        "rows": [(one, row, interval(one.difference)) for one, row in cells(record)],
        "look_at": [(one, _with_code(one.note or one.advice or "")) for one in record.worst_first
                    if one.state in (RuleState.FAILED, RuleState.INCONCLUSIVE)],
        "wishes": [one for one in record.suite.failures if one.id not in {rule.id for rule in record.rules}],
        "figure": inline(interval_figure(record, drawn_as("rules"))) if any(one.excess for one in record.rules) else None,
    })  # fmt: skip


def _with_code(text: str) -> Markup:
    """Text whose parts between backticks are code."""
    parts = (
        escape(part) if place % 2 == 0 else Markup("<code>{}</code>").format(part)
        for place, part in enumerate(text.split("`"))
    )
    return Markup("").join(parts)
