"""What to look at when a rule of a check did not pass."""

from __future__ import annotations

import numpy as np

from qualitygate import names
from qualitygate.policy.model import AGAINST_REAL, SHARES, TO_BASELINE
from qualitygate.studies.check.subject import Subject

_NAMED = 3


def advice(metric: str, candidate: Subject) -> str:
    """One sentence with the command, or the units, to look at first."""
    if metric in SHARES:
        return "the gallery of `qualitygate gate CANDIDATE --profile OUT/profile`: what was rejected and corrected, and why"
    if metric == names.DEAD_UNITS:
        return f"units that never fire: {_units(candidate, names.UNIT_DEAD)}"
    if names.is_worst_unit_cla(metric):
        return "`qualitygate units CANDIDATE`: the units with the highest CLA and what they draw"
    if metric in AGAINST_REAL:
        return "`qualitygate metrics CANDIDATE --real DIR`: the same number in groups, with its figures"
    if metric in TO_BASELINE:
        return "images of both, side by side: where they differ, for better or worse, only --real DIR tells which"
    if metric in (names.PPL, names.DISCRIMINATOR):
        return "`qualitygate metrics CANDIDATE`: the samples that are worst in it"
    if names.low_rate_share_at(metric) is not None:
        return f"`qualitygate inspect CANDIDATE`; units with the least activity: {_units(candidate, names.UNIT_RATE, lowest=True)}"
    return f"units with the most low-rate activity: {_units(candidate, names.UNIT_LOW_RATE)}"


def _units(candidate: Subject, column: str, *, lowest: bool = False) -> str:
    table = candidate.profile.units
    values = np.asarray(table[column], dtype=np.float64)
    order = np.argsort(values if lowest else -values, kind="stable")[:_NAMED]
    return ", ".join(table[names.UNIT_KEY][row] for row in order)
