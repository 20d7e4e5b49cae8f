"""The papers' table by score: the lowest and the highest group, beside random ones, on the half that is reported on."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import qualitygate
from qualitygate import names, storage
from qualitygate.gating.validated import setting_of
from qualitygate.generators.passes import Reporter
from qualitygate.metrics.estimate import Resampling, mean
from qualitygate.records.validation import Evidence, ScoreGroups, ScoreSetting, ScoreYield, ValidationReport, YieldPoint
from qualitygate.reports.validation_figures import auc_figure, yield_figure
from qualitygate.studies.metrics.groups import extremes, group_row, group_size, orders, random_groups, random_row
from qualitygate.studies.observation import joined
from qualitygate.studies.validate.findings import SHARES, Choice, Judged, enough_of, evidence, remarks_on, reporting
from qualitygate.studies.validate.request import Request, Tools
from qualitygate.studies.validate.samples import Looked, look


def score_groups(looked: Looked, settings: Iterable[ScoreSetting]) -> Iterator[ScoreGroups]:
    """One table for each setting that enough samples have; none where the images were not looked at."""
    if not (looked.measured.has("real") or looked.measured.has("discriminator")):
        return
    rows = reporting(len(looked.latents))
    measured = joined((looked.measured, rows)).against(looked.measured.real)
    size, everything = group_size(len(rows)), np.arange(len(rows))
    chance = random_row(looked.evaluator, measured, size, path_rows=everything, path_size=0)
    whole = group_row(looked.evaluator, names.ALL, "all samples that are reported on", measured)
    for setting in settings:
        values = looked.table.of(setting)[rows]
        known = np.flatnonzero(~np.isnan(values))
        if len(known) < 2 * size:
            continue
        lowest, highest = (known[found] for found in extremes(values[known], size))
        ends = [
            group_row(looked.evaluator, name, f"{name} {setting}", measured, found)
            for name, found in ((names.LOWEST, lowest), (names.HIGHEST, highest))
        ]
        table = [whole, chance, *ends]
        yield ScoreGroups(setting=setting, rows=tuple(table), order=orders(table))


_CHANCE = 5  # random sets that a point of the yield is compared with


@dataclass(frozen=True)
class Yields:
    """Yields by any setting.

    Attributes:
        looked: the samples, looked at.
        judged: the evidence of what is bad; of ``looked`` itself, or of samples of its own whose images nobody has looked at.
        seed: of random sets and intervals.
    """

    looked: Looked
    judged: Judged
    seed: int

    def by(self, setting: ScoreSetting) -> ScoreYield:
        """What is left, share by share."""
        rows, values = reporting(len(self.judged.bad)), self.judged.table.of(setting)
        rows = rows[~np.isnan(values[rows])]
        rows = rows[np.argsort(values[rows], kind="stable")]
        return ScoreYield(setting=setting, points=tuple(self._point(share, rows) for share in SHARES))

    def _point(self, share: float, rows: np.ndarray) -> YieldPoint:
        """What is left of rows (n,), the lowest score first."""
        accepted = rows[: len(rows) - round(share * len(rows))]
        seen, classes = self.judged.table is self.looked.table, self.looked.classes
        counts = np.bincount(classes[accepted]) if seen and classes is not None else np.empty(0)
        bad = mean(self.judged.bad[accepted], Resampling(self.seed)).interval()
        return YieldPoint(
            rejected=share,
            accepted=len(accepted),
            bad=bad,
            measurements=self.looked.evaluator.measure(self.looked.measured, accepted) if seen else {},
            chance=self._chance(rows, len(accepted)) if seen and share else {},
            classes={k: float(count / len(accepted)) for k, count in enumerate(counts) if count},
        )

    def _chance(self, rows: np.ndarray, size: int) -> dict[str, float]:
        """The same numbers of as many samples at random, their mean over a few draws."""
        bare = replace(self.looked.evaluator, intervals=False)
        drawn = random_groups(len(rows), size, _CHANCE, seed=self.seed)
        found = [bare.measure(self.looked.measured, np.sort(rows[places])) for places in drawn]
        values = {name: [one[name].value for one in found] for name in found[0]}
        return {name: float(np.mean([v for v in of if v is not None])) for name, of in values.items() if None not in of}


REPORT, FINDINGS, RECOMMENDED, FIGURES = "validation.json", "findings.parquet", "recommended.yaml", "figures"


def write_validation(path: str | Path, report: ValidationReport) -> None:
    """Write the folder, in one step.

    Raises:
        OutputError: something else is there already.
        StorageError: it cannot be written.
    """
    with storage.new_folder(path) as folder:
        storage.write_bytes(folder / REPORT, report.model_dump_json(indent=2).encode())
        storage.write_table(folder / FINDINGS, finding_table(report))
        if report.evidence.recommended is not None:
            storage.write_bytes(folder / RECOMMENDED, report.evidence.recommended.encode())
        (folder / FIGURES).mkdir()
        for name, picture in (("auc", auc_figure(report)), ("yield", yield_figure(report))):
            if picture is not None:
                storage.write_bytes(folder / FIGURES / f"{name}.png", picture)


def finding_table(report: ValidationReport) -> dict[str, list[Any]]:
    """One row a score and kind of evidence."""
    rows = [
        {
            "score": str(one.setting),
            "evidence": str(one.kind),
            "sight": str(one.sight),
            "samples": one.samples,
            "bad": one.bad,
            "auc": one.auc.value,
            "auc_low": one.auc.low,
            "auc_high": one.auc.high,
            "chosen_by": None if one.chosen_by is None else one.chosen_by.value,
            "rank_correlation": None if one.correlation is None else one.correlation.value,
            "bad_lowest": one.bad_lowest,
            "bad_highest": one.bad_highest,
        }
        for one in report.evidence.findings
    ]
    return {column: [row[column] for row in rows] for column in rows[0]}


def validate(tools: Tools, request: Request, reporter: Reporter | None = None) -> ValidationReport:
    """Hold every score against every kind of evidence there is.

    Raises:
        InputError: no evidence, or too little of it; real images without an extractor; the calibration's seed.
        ProfileError: the profile is of another checkpoint.
    """
    started, reporter, profile = time.perf_counter(), reporter or Reporter(), tools.profile
    profile.check_generator(tools.generator)
    profile.check_seed(request.seed)
    looked = look(tools, request, reporter)
    found = list(evidence(tools, request, looked, reporter))
    remarks = [*looked.by_class.remarks, *remarks_on(found)]
    judged = enough_of(found, remarks)
    choice = Choice.of(judged, profile, request.seed)
    known = Evidence(
        profile_id=profile.info.profile_id,
        package_version=qualitygate.__version__,
        seed=request.seed,
        sources=tuple(one.source for one in judged),
        findings=choice.findings,
        recommended=choice.advice(profile.policy),
    )
    own = known.of(setting_of(profile, profile.policy, profile.policy.rules[0].score))
    shown = list({str(one.setting): one.setting for one in (choice.best, own) if one is not None}.values())
    seen = next((one for one in judged if one.table is looked.table), choice.main)  # whose images were looked at
    yields, origin = Yields(looked, seen, request.seed), tools.generator.identity()
    return ValidationReport(
        checkpoint=origin.name,
        checkpoint_sha256=origin.sha256,
        samples=request.samples,
        extractor=looked.evaluator.extractor,
        real=looked.real,
        evidence=known,
        best=choice.best,
        fitted=choice.fitted,
        by_class=choice.by_class,
        policy=own,
        groups=tuple(score_groups(looked, shown)),
        yields=tuple(yields.by(setting) for setting in shown if seen.table.has(setting)),
        remarks=tuple(choice.in_words(remarks)),
        seconds=time.perf_counter() - started,
    )
