"""What people see of a gated set, wherever it is kept: samples made again, figures, its page, and what MLflow is sent."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image
from pydantic import ValidationError

from qualitygate import names, storage
from qualitygate.errors import InputError, public
from qualitygate.gating import exhibit
from qualitygate.gating.profile import SCORES
from qualitygate.generators.passes import Reporter
from qualitygate.produce.executor import Executor
from qualitygate.produce.manifest import RECORDS, TABLE
from qualitygate.produce.records import PROFILE, SAMPLES, SURVEY, Records, Survey, read_survey, recorded_block
from qualitygate.produce.store import LocalStore, Store, open_store
from qualitygate.produce.worker import OpenedSource
from qualitygate.records.dynamics import DynamicsRecord
from qualitygate.records.gate import ExhibitRole, GateSummary
from qualitygate.reports.gate_figures import score_figure, trade_off_figure
from qualitygate.reports.gate_report import report_page
from qualitygate.reports.material import EXHIBIT, Gated, Material, MeasuredMetrics, UnitPage, exhibit_columns, read_exhibit
from qualitygate.reports.sheets import exhibit_sheets
from qualitygate.tracking.gated_set import FILES, FOLDERS, REPORT, SUMMARY, UNITS, read_gated_set
from qualitygate.tracking.spool import TRACKING
from qualitygate.tracking.studies import SHEETS, read_metrics

FIGURES, CALIBRATION, DYNAMICS = "figures", "calibration.parquet", "dynamics.json"


def finished(store: Store) -> GateSummary | None:
    """The summary of a set that has come to its end."""
    data = store.read(SUMMARY)
    return None if data is None else GateSummary.model_validate_json(data)


# ---- made for people


def ensure_report(executor: Executor, reporter: Reporter | None = None) -> None:
    """Write exhibit, figures and page of a finished set, unless they are there: the page comes last. The work is bounded whatever the size
    of the set, but for one pass over a few columns of its records."""
    place = executor.job.workplace
    store = open_store(place)
    summary = finished(store)
    if summary is None or REPORT in store.names(""):
        return
    with (reporter or Reporter()).phase("report", 2) as progress:
        if executor.job.plan.form is not None:
            records = Records.of_finished(store)
            survey, chosen, _ = records.survey(summary.limits)
            survey.put(store)
            show(executor.source, records, survey, chosen, store)
        progress(1)
        store.put(REPORT, report_page(Material(read_gated(place, public(executor.job.place)))).encode())
        store.sweep()
        progress(1)


def show(source: OpenedSource, records: Records, survey: Survey, chosen: Mapping[ExhibitRole, np.ndarray], store: Store) -> None:
    """Put the exhibit (the ids ``chosen`` by role, made again), its contact sheets and the figures, drawn from the survey, into a set."""
    stage, rules = source.stage, source.stage.limits.rules
    ids = np.concatenate(list(chosen.values()))
    table = records.rows(ids)
    block = recorded_block(source.latents(table[names.ID].to_numpy()), table)
    rows = np.searchsorted(block.latents.ids, ids)
    shown = [stage.record(block, int(row)) for row in rows]
    items = exhibit.exhibit_items(stage, block.latents[rows], shown, chosen)
    scores = {rule.score: survey.columns[rule.score] for rule in rules}
    store.put(EXHIBIT, storage.table_bytes(exhibit_columns(items)))
    for key, sheet in exhibit_sheets(items, limits=rules).items():
        buffer = io.BytesIO()
        sheet.save(buffer, "PNG")
        store.put(f"{key}.png", buffer.getvalue())
    store.put(f"{FIGURES}/scores.png", score_figure(scores, rules, survey.columns[names.VERDICT]))
    calibration = stage.profile.columns(stage.policy)
    if known := [rule for rule in rules if np.isfinite(calibration.get(rule.score, np.nan)).any()]:
        # a rule with an absolute limit may be on a score that was not calibrated
        store.put(f"{FIGURES}/trade_off.png", trade_off_figure(scores, calibration, known))


# ---- read for pages


def read_gated(place: str | Path, name: str | None = None, profile: Path | None = None) -> Gated:
    """A gated set with everything that its page shows; of a set of shards, which may lie at ``s3://…``, a sample of its records. The reader
    is told its ``name``, by default its place; ``profile`` is for a set in which it does not lie."""
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
    """What is known of the records where they do not lie in one small table; those of a set of shards are walked through where nobody did
    yet."""
    if (folder / SURVEY).is_file():
        return read_survey(folder / SURVEY)
    store = open_store(place)
    if not (folder / TABLE).is_file() or not store.names(RECORDS):  # MLflow has no records
        return None
    return Records.of_finished(store).survey(summary.limits)[0]


def read_measured(folder: str | Path) -> MeasuredMetrics:
    return MeasuredMetrics(read_metrics(folder)[0], _columns(Path(folder) / SAMPLES))


def read_units(folder: str | Path) -> UnitPage:
    folder = Path(folder)
    if not (folder / UNITS).is_file():
        raise InputError(f"{folder} is not a study of units", f"no {UNITS} in it", "a folder written by `qualitygate units`")
    table: pd.DataFrame = storage.read_table(folder / UNITS)[0].to_pandas()
    sheets = {}
    for path in sorted((folder / SHEETS).glob("*.png")):
        with Image.open(path) as image:
            sheets[f"Layer {path.stem.rpartition('_')[2]}"] = image.copy()
    return UnitPage(table, sheets)


def read_dynamics(folder: str | Path) -> DynamicsRecord:
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
    is_number = {field.name: pa.types.is_floating(field.type) or pa.types.is_integer(field.type) for field in table.schema}
    return {name: table[name].to_numpy(zero_copy_only=False) for name in is_number if is_number[name] or name == names.VERDICT}


# ---- wherever it is kept


@contextmanager
def local(place: str | Path) -> Iterator[Path]:
    """The set's own folder; or a local copy of what is small in it, from which what MLflow answered goes back."""
    store = open_store(place)
    if isinstance(store, LocalStore):
        yield store.root
        return
    small = [*FILES, TRACKING, f"{PROFILE}/{SCORES}", *(f"{folder}/{one}" for folder in FOLDERS for one in store.names(folder))]
    with tempfile.TemporaryDirectory(prefix="qualitygate-") as name:
        for file in small:
            if (data := store.read(file)) is not None:
                path = Path(name, file)
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(data)
        answer = Path(name, TRACKING)
        before = answer.read_bytes() if answer.is_file() else None
        try:
            yield Path(name)
        finally:
            if answer.is_file() and (after := answer.read_bytes()) != before:
                store.put(TRACKING, after)
