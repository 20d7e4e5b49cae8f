"""The folder of `qualitygate validate`: the report, its findings as Parquet, the recommended part of a policy, figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qualitygate import storage
from qualitygate.records.validation import ValidationReport
from qualitygate.reports.validation_figures import auc_figure, yield_figure

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
