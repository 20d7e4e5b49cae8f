"""A check as one page of HTML that needs nothing else: no script, no font, no picture from anywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from qualitygate.records import Interval
from qualitygate.records.check import WORST_FIRST, CheckRecord, RuleState
from qualitygate.reports.check_figure import interval_figure
from qualitygate.reports.check_text import cells, footing, reason
from qualitygate.reports.contact_sheet import comparison_sheet
from qualitygate.reports.exhibit_table import webp
from qualitygate.reports.page.markup import data_uri, drawn_as, inline, render
from qualitygate.reports.page.tables import Cell

_SIDE = 96
"""Of the images on the page, in pixels."""


@dataclass(frozen=True)
class Sheet:
    """Samples to look at.

    Attributes:
        title: what they have in common.
        caption: how they were chosen.
        captions: of each sample.
        rows: by whose they are, uint8 images (height, width, channels), one for each sample.
    """

    title: str
    caption: str
    captions: Sequence[str]
    rows: Mapping[str, Sequence[np.ndarray]]


def check_page(record: CheckRecord, policy: str, sheets: Sequence[Sheet] = ()) -> str:
    """The page. Everything that came from outside is escaped.

    Args:
        record: of the check.
        policy: what it was checked by, as YAML.
        sheets: images to look at.
    """
    counts = Counter(one.state for one in record.rules)
    return render(
        "check.html.j2",
        {
            "record": record,
            "policy": policy,
            "reason": reason(record),
            "footing": footing(record),
            "counts": [(state.value.replace("_", " "), state.value, counts[state]) for state in WORST_FIRST],
            "rows": [(one, row, _cell(one.difference), _cell(one.excess)) for one, row in cells(record)],
            "look_at": [
                (one, _with_code(one.note or one.advice or ""))
                for one in record.worst_first
                if one.state in (RuleState.FAILED, RuleState.INCONCLUSIVE)
            ],
            "wishes": [one for one in record.suite.failures if one.id not in {rule.id for rule in record.rules}],
            "figure": inline(interval_figure(record, drawn_as("rules"))) if any(one.excess for one in record.rules) else None,
            "sheets": [
                (sheet, data_uri(webp(comparison_sheet(sheet.captions, sheet.rows, sheet.title, columns=6, scale_to=_SIDE))))
                for sheet in sheets
            ],
        },
    )


def _with_code(text: str) -> Markup:
    """Text whose parts between backticks are code."""
    parts = (escape(part) if place % 2 == 0 else Markup("<code>{}</code>").format(part) for place, part in enumerate(text.split("`")))
    return Markup("").join(parts)


def _cell(found: Interval | None) -> Cell:
    """A number over its interval."""
    return Cell("–") if found is None else Cell(f"{found.value:+.3g}", f"{found.low:+.3g} … {found.high:+.3g}")
