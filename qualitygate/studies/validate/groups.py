"""The papers' table by score: the lowest and the highest group, beside random ones, on the half that is reported on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from qualitygate import names
from qualitygate.records.evidence import Setting
from qualitygate.records.validation import ScoreGroups
from qualitygate.studies.metrics.groups import Group, extremes, group_row, group_size, orders, random_row
from qualitygate.studies.observation import joined
from qualitygate.studies.validate.findings import reporting
from qualitygate.studies.validate.look import Looked


def score_groups(looked: Looked, settings: Iterable[Setting]) -> Iterator[ScoreGroups]:
    """One table for each setting that enough samples have; none where the images were not looked at."""
    if looked.subject.standing is None and looked.subject.population.discriminator is None:
        return
    rows = reporting(len(looked.latents))
    subject = looked.ruler.subject(joined(iter([(looked.subject.population, rows)])))
    size, everything = group_size(len(rows)), np.arange(len(rows))
    chance = random_row(looked.ruler, subject, size, path_rows=everything, path_size=0)
    whole = group_row(looked.ruler, Group(names.ALL, "all samples that are reported on", subject, everything))
    for setting in settings:
        values = looked.table.of(setting)[rows]
        known = np.flatnonzero(~np.isnan(values))
        if len(known) < 2 * size:
            continue
        lowest, highest = (known[found] for found in extremes(values[known], size))
        ends = [
            group_row(looked.ruler, Group(name, f"{name} {setting}", subject, found))
            for name, found in ((names.LOWEST, lowest), (names.HIGHEST, highest))
        ]
        table = [whole, chance, *ends]
        yield ScoreGroups(setting=setting, rows=tuple(table), order=orders(table))
