"""The folder of `qualitygate metrics`: the report, its table as Parquet, the samples it is made of, figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qualitygate import storage
from qualitygate.records.metrics import METRICS, MetricsReport, metric
from qualitygate.reports.metric_figures import discriminator_figure, group_figure, trade_figure
from qualitygate.studies.metrics.run import Measured

REPORT, GROUPS, SAMPLES, FIGURES = "metrics.json", "groups.parquet", "samples.parquet", "figures"


def write_metrics(path: str | Path, measured: Measured) -> None:
    """Write the folder, in one step.

    Raises:
        OutputError: something else is there already.
        StorageError: it cannot be written.
    """
    report = measured.report
    with storage.new_folder(path) as folder:
        storage.write_bytes(folder / REPORT, report.model_dump_json(indent=2).encode())
        storage.write_table(folder / GROUPS, group_table(report))
        storage.write_table(folder / SAMPLES, measured.samples)
        (folder / FIGURES).mkdir()
        for name, draw in (("precision_recall", trade_figure), ("groups", group_figure), ("discriminator", discriminator_figure)):
            if (picture := draw(report)) is not None:
                storage.write_bytes(folder / FIGURES / f"{name}.png", picture)


def group_table(report: MetricsReport) -> dict[str, list[Any]]:
    """One row a group and metric: everything that is known of the number."""
    rows = [
        {
            "group": row.group,
            "metric": name,
            "value": one.value,
            "low": one.low,
            "high": one.high,
            "spread": row.spread.get(name),
            "higher_is_better": metric(name).higher_is_better,
            "samples": one.samples,
            "real_samples": one.real_samples,
            "extractor": one.extractor,
            "note": one.note,
        }
        for row in report.groups
        for name, one in row.measurements.items()
    ]
    columns = list(rows[0]) if rows else ["group", "metric", "value"]
    return {column: [row[column] for row in rows] for column in columns}


def shown_metrics(report: MetricsReport) -> list[str]:
    """Metrics that some group has, in the order of the table of metrics."""
    return [name for name in METRICS if any(name in row.measurements for row in report.groups)]
