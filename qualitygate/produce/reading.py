"""Folders that other commands wrote, read for the pages that show them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image
from pydantic import ValidationError

from qualitygate import names, storage
from qualitygate.errors import InputError, public
from qualitygate.produce.local import PROFILE, is_sharded, local
from qualitygate.produce.manifest import RECORDS
from qualitygate.produce.store import open_store
from qualitygate.produce.survey import SURVEY, Survey, Surveyor, read_survey
from qualitygate.records.dynamics import DynamicsRecord
from qualitygate.records.gate import GateSummary
from qualitygate.reports.material import EXHIBIT, Gated, MeasuredMetrics, UnitPage, read_exhibit
from qualitygate.tracking.gated_set import UNITS, read_gated_set
from qualitygate.tracking.studies import SHEETS, read_metrics_set

SAMPLES, CALIBRATION, DYNAMICS = "samples.parquet", "calibration.parquet", "dynamics.json"


def read_gated(place: str | Path, name: str | None = None, profile: Path | None = None) -> Gated:
    """A gated set with everything that its page shows; of a set of shards, a sample of its records.

    Args:
        place: a folder written by the gate, or where a set of shards is kept: ``s3://…``.
        name: what it is called to the reader; default: its place.
        profile: the profile, where it does not lie in the set.

    Raises:
        InputError: there is no gated set.
        ProfileError: one of its tables cannot be read.
        StorageError: the store does not answer.
    """
    with local(place) as folder:
        found = read_gated_set(folder)
        surveyed = _survey(place, folder, found.summary)
        return Gated(
            place=name or public(str(place)),
            summary=found.summary,
            columns=_columns(folder / SAMPLES) if surveyed is None else surveyed.columns,
            calibration=_columns((profile or folder / PROFILE) / CALIBRATION),
            units=storage.read_table(folder / UNITS)[0].to_pandas() if found.has(UNITS) else None,
            exhibit=read_exhibit(folder / EXHIBIT) if (folder / EXHIBIT).is_file() else (),
            drawn_from=surveyed.samples if surveyed is not None and surveyed.is_part else None,
            over={} if surveyed is None else surveyed.over,
        )


def _survey(place: str | Path, folder: Path, summary: GateSummary) -> Survey | None:
    """What is known of the records of a set of shards; they are walked through where nobody did yet. None for a plain set."""
    if (folder / SURVEY).is_file():
        return read_survey(folder / SURVEY)
    store = open_store(place)
    if not is_sharded(folder) or not store.names(RECORDS):  # MLflow has no records
        return None
    return Surveyor(store, summary.limits).walk()[0]


def read_measured(folder: str | Path) -> MeasuredMetrics:
    """A folder of metrics.

    Raises:
        InputError: there are no metrics.
    """
    found = read_metrics_set(folder)
    return MeasuredMetrics(found.report, _columns(found.folder / SAMPLES))


def read_units(folder: str | Path) -> UnitPage:
    """A study of units.

    Raises:
        InputError: there is none.
    """
    folder = Path(folder)
    if not (folder / UNITS).is_file():
        raise InputError(f"{folder} is not a study of units", f"no {UNITS} in it", "a folder written by `qualitygate units`")
    table: pd.DataFrame = storage.read_table(folder / UNITS)[0].to_pandas()
    sheets = {f"Layer {path.stem.rpartition('_')[2]}": _opened(path) for path in sorted((folder / SHEETS).glob("*.png"))}
    return UnitPage(table, sheets)


def read_dynamics(folder: str | Path) -> DynamicsRecord:
    """What `qualitygate dynamics` wrote.

    Raises:
        InputError: there is nothing of it.
    """
    path = Path(folder) / DYNAMICS
    try:
        return DynamicsRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InputError(f"Cannot read {path}", str(error), "a folder written by `qualitygate dynamics`") from error


def _columns(path: Path) -> Mapping[str, np.ndarray]:
    """Columns of a table that are of use for a page: verdicts, and numbers. Nothing if the table is not there."""
    if not path.is_file():
        return {}
    table, _ = storage.read_table(path)
    wanted = [
        field.name
        for field in table.schema
        if field.name == names.VERDICT or pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
    ]
    return {name: table[name].to_numpy(zero_copy_only=False) for name in wanted}


def _opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image
