"""One contact sheet for each reason why samples were chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.records.gate import ExhibitItem, ExhibitRole, RuleLimit
from qualitygate.reports.contact_sheet import contact_sheet
from qualitygate.reports.lettering import number

COMPACT_OVER = 24
"""Best and worst samples beyond this many are shown by their images alone: they are there to be compared at a glance."""

_WORDS: Mapping[ExhibitRole, tuple[str, str]] = {
    ExhibitRole.BEST: ("Best samples", "Accepted samples with the lowest scores, the lowest first."),
    ExhibitRole.WORST: ("Worst samples", "The samples with the highest scores, the highest first, whatever became of them."),
    ExhibitRole.CORRECTED: (
        "Corrected samples",
        "Samples over a limit whose correction passed, the highest score first: as generated, and as kept.",
    ),
    ExhibitRole.REJECTED: (
        "Rejected samples",
        "Samples that were thrown away, the highest score first: as generated and, where a correction was tried, after the strongest one.",
    ),
    ExhibitRole.BORDERLINE: (
        "Borderline samples",
        "Samples with a score so close to its limit that another device might decide otherwise, the lowest score first.",
    ),
}
"""Title of a role's sheet, and how its samples were chosen: as `qualitygate.gating.exhibit` does it."""


def exhibit_sheets(items: Sequence[ExhibitItem], *, limits: Sequence[RuleLimit] = ()) -> dict[str, Image.Image]:
    """Contact sheets of an exhibit, by the keys of `names.SHEET_KEYS` and in their order; roles without samples have none.

    Args:
        items: the exhibit, in any order of roles; within a role the order is kept.
        limits: the rules as they were applied: captions then hold the score that decided, and subtitles the limits.

    Raises:
        InputError: an empty exhibit.
    """
    if not items:
        raise InputError("There is no exhibit to show", "no items", "at least one sample", "gate with an exhibit")
    sheets = {}
    for key in names.SHEET_KEYS:
        role = ExhibitRole(key.removeprefix("gallery/"))
        chosen = [item for item in items if item.role is role]
        if chosen:
            sheets[key] = _sheet(role, chosen, limits)
    return sheets


def _sheet(role: ExhibitRole, items: Sequence[ExhibitItem], limits: Sequence[RuleLimit]) -> Image.Image:
    title, chosen = _WORDS[role]
    rules = "; ".join(f"{limit.score} over {number(limit.limit)}: {limit.action}" for limit in limits)
    subtitle = f"{chosen} Rules: {rules}." if rules else chosen
    compact = role in (ExhibitRole.BEST, ExhibitRole.WORST) and len(items) > COMPACT_OVER
    return contact_sheet(items, f"{title} ({len(items)})", subtitle, limits=limits, compact=compact)
