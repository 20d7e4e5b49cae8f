"""A folder of metrics as it lies on disk: all that is ever sent, and nothing but that."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from pydantic import ValidationError

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.records.metrics import MetricsReport

if TYPE_CHECKING:
    import pandas as pd

REPORT = "metrics.json"
FILES = (REPORT, "groups.parquet", "samples.parquet")
FIGURES = "figures"


@dataclass(frozen=True)
class MetricsSet:
    """The parts of a folder of metrics that tracking needs.

    Attributes:
        folder: where it lies.
        report: what was measured.
        metrics_id: SHA-256 of ``metrics.json``: the same numbers are recognised wherever they were sent.
    """

    folder: Path
    report: MetricsReport
    metrics_id: str

    @property
    def name(self) -> str:
        """The checkpoint's name."""
        return PurePath(self.report.checkpoint).stem or "generator"

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The finite metrics under their fixed names. MLflow would store an infinite one as 1.8e308."""
        return {name: value for name, value in self.report.values().items() if math.isfinite(value)}

    @property
    def files(self) -> list[Path]:
        """The single files that are there."""
        return [self.folder / name for name in FILES if (self.folder / name).is_file()]

    @property
    def figures(self) -> dict[str, Path]:
        """The figures that are there, by image key."""
        found = {key: self.folder / FIGURES / f"{key.rpartition('/')[2]}.png" for key in names.METRIC_FIGURES}
        return {key: path for key, path in found.items() if path.is_file()}

    def table(self) -> pd.DataFrame:
        """One row a group, one column a metric: what MLflow lays beside that of another checkpoint."""
        import pandas as pd

        shown = [one.name for one in self.report.shown]
        return pd.DataFrame(
            [
                {"group": row.group, "samples": row.samples}
                | {name: row.measurements[name].value if name in row.measurements else None for name in shown}
                for row in self.report.groups
            ]
        )


def is_metrics_set(folder: Path) -> bool:
    return (folder / REPORT).is_file()


def read_metrics_set(folder: str | Path) -> MetricsSet:
    """Read what `qualitygate metrics` wrote.

    Raises:
        InputError: there are no metrics in the folder, or they cannot be read.
    """
    folder = Path(folder)
    if not is_metrics_set(folder):
        raise InputError(f"{folder} holds no metrics", f"no {REPORT} in it", "a folder written by `qualitygate metrics`")
    content = (folder / REPORT).read_bytes()
    try:
        report = MetricsReport.model_validate_json(content)
    except ValidationError as error:
        raise InputError(f"Cannot read {folder / REPORT}", str(error), "what `qualitygate metrics` wrote there", "measure again") from error
    return MetricsSet(folder, report, hashlib.sha256(content).hexdigest())
