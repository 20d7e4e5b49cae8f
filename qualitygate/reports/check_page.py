"""A check as one page of HTML that needs nothing else: no script, no font, no picture from anywhere."""

from __future__ import annotations

from importlib.resources import files

from qualitygate.records import CheckRecord, Range, RuleOutcome
from qualitygate.reports import palette
from qualitygate.reports.check_text import cells, footing, hand_written_failures, headline, interval, number

_WIDTH = 220.0  # of the picture of an interval
_COLORS = {"passed": palette.LINE_COLORS[2], "failed": palette.LINE_COLORS[1], "inconclusive": palette.LINE_COLORS[4],
           "left_out": palette.MUTED}  # fmt: skip


def check_page(record: CheckRecord) -> str:
    """The page. Everything that came from outside is escaped."""
    from jinja2 import Environment, StrictUndefined

    source = (files("qualitygate.reports") / "templates" / "check.html.j2").read_text(encoding="utf8")
    template = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(source)
    rows = [
        {"rule": one, "cells": row, "bar": _bar(one), "difference": interval(one.difference)}
        for one, row in cells(record)
    ]
    return template.render(record=record, rows=rows, headline=headline(record), footing=footing(record), colors=_COLORS, palette=palette,
                           failures=hand_written_failures(record), number=number, width=_WIDTH)  # fmt: skip


def _bar(one: RuleOutcome) -> dict[str, float] | None:
    """Where the interval of the excess and its value stand to the limit, which is in the middle of the picture."""
    found: Range | None = one.excess
    if found is None:
        return None
    reach = max(abs(found.low), abs(found.high)) or 1.0
    low, value, high = (_WIDTH / 2 * (1 + 0.9 * end / reach) for end in (found.low, found.value, found.high))
    return {"low": round(low, 1), "value": round(value, 1), "length": round(max(high - low, 1.0), 1)}
