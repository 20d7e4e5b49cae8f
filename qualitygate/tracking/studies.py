"""What is sent to MLflow of the studies of a checkpoint: its set metrics, its units, and how it trained."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.records import canonical_hash
from qualitygate.records.dynamics import DynamicsRecord
from qualitygate.records.metrics import MetricsReport
from qualitygate.tracking.gated_set import ranking
from qualitygate.tracking.sending import Parcel, TrackedCheckpoint, finite, software_tags

if TYPE_CHECKING:
    import pandas as pd

METRICS_REPORT = "metrics.json"
METRICS_FILES = (METRICS_REPORT, "groups.parquet", "samples.parquet")
FIGURES = "figures"
UNITS, COMPARISON, SHEETS = "units.parquet", "comparison.json", "sheets"
STEPS_A_KIMG = 1000
"""MLflow's steps are whole numbers: images for progress in kimg."""


def read_metrics(folder: str | Path) -> tuple[MetricsReport, str]:
    """What `qualitygate metrics` wrote, and the SHA-256 of its file: the same numbers are recognised wherever they were sent.

    Raises:
        InputError: there are no metrics in the folder, or they cannot be read.
    """
    path = Path(folder) / METRICS_REPORT
    if not path.is_file():
        raise InputError(f"{folder} holds no metrics", f"no {METRICS_REPORT} in it", "a folder written by `qualitygate metrics`")
    content = path.read_bytes()
    try:
        return MetricsReport.model_validate_json(content), hashlib.sha256(content).hexdigest()
    except ValidationError as error:
        raise InputError(f"Cannot read {path}", str(error), "what `qualitygate metrics` wrote there", "measure again") from error


def metrics_parcel(folder: str | Path) -> Parcel:
    """What is sent of a folder of metrics, with the real set as the dataset it was held against; the folder is only read.

    Raises:
        InputError: the folder holds no metrics.
    """
    folder = Path(folder)
    report, digest = read_metrics(folder)
    checkpoint = TrackedCheckpoint(report.checkpoint, report.checkpoint_sha256, report.family, metrics=finite(report.values()))
    params = {
        "metrics.seed": report.seed,
        "metrics.samples": report.samples,
        "metrics.score": report.score,
        "metrics.group_share": f"{report.group_share:g}",
        "metrics.extractor": report.extractor,
        "metrics.distance": report.distance,
        "metrics.real": report.real.name if report.real else None,
    }
    tags = {names.TAG_CHECKPOINT: report.checkpoint_sha256, names.TAG_PROFILE: report.profile_id, names.TAG_POLICY: report.policy_hash}
    figures = {key: folder / FIGURES / f"{key.rpartition('/')[2]}.png" for key in names.METRIC_FIGURES}
    return Parcel(
        what=folder,
        identity=(names.TAG_METRICS, digest),
        run_name=f"{checkpoint.name}, metrics, seed {report.seed}",
        checkpoints=(checkpoint,),
        params={"family": report.family} | {name: value for name, value in params.items() if value is not None},
        tags={name: value for name, value in tags.items() if value is not None} | software_tags(report),
        note=_metrics_note(report),
        real=report.real,
        files=[folder / name for name in METRICS_FILES if (folder / name).is_file()],
        folders={FIGURES: folder / FIGURES} if (folder / FIGURES).is_dir() else {},
        table=(names.GROUPS_TABLE, _groups(report)),
        images={key: path for key, path in figures.items() if path.is_file()},
    )


def _groups(report: MetricsReport) -> pd.DataFrame:
    """One row a group, one column a metric."""
    import pandas as pd

    shown = [one.name for one in report.shown]
    values = [[row.measurements[name].value if name in row.measurements else None for name in shown] for row in report.groups]
    return pd.DataFrame(
        [[row.group, row.samples, *of_group] for row, of_group in zip(report.groups, values, strict=True)],
        columns=["group", "samples", *shown],
    )


def _metrics_note(report: MetricsReport) -> str:
    """What was measured, whether the papers' order holds, where to look."""
    against = f" against {report.real.samples:,} images of {report.real.name}" if report.real else " without real images"
    lines = [f"{report.samples:,} samples of `{report.checkpoint}`{against}."]
    for one in report.order:
        word = "holds beyond chance" if one.clear else "holds within chance" if one.holds else "does not hold"
        values = f"{one.lowest:.4g}, {one.random:.4g}, {one.highest:.4g}"
        lines.append(f"{one.metric}: lowest better than random better than highest {word} ({values}).")
    lines += [f"Not measured: {left_out}." for left_out in report.left_out]
    return "\n\n".join([*lines, f"Look at `{names.GROUPS_TABLE}` and `{FIGURES}/`."])


def units_parcel(folder: str | Path) -> Parcel:
    """What is sent of what `qualitygate units` wrote: its ranking at the path that every run has it, so that two checkpoints compare row
    by row.

    Raises:
        InputError: the folder holds no such study.
    """
    folder = Path(folder)
    if not (folder / COMPARISON).is_file():
        raise InputError(f"{folder} is not a study of units", f"no {COMPARISON} in it", "a folder written by `qualitygate units`")
    content = (folder / COMPARISON).read_bytes()
    study = json.loads(content)
    accuracy = {names.CLASSIFIER_ACCURACY: study["classifier"]["validation_accuracy"]} if study["classifier"] else {}
    checkpoint = TrackedCheckpoint(study["checkpoint"], study["checkpoint_sha256"], study["family"], metrics=accuracy)
    return Parcel(
        what=folder,
        identity=(names.TAG_UNITS, hashlib.sha256(content).hexdigest()),
        run_name=f"{checkpoint.name}, units",
        checkpoints=(checkpoint,),
        tags={names.TAG_CHECKPOINT: checkpoint.sha256, names.TAG_PROFILE: study["profile_id"]},
        note=_units_note(study),
        files=[folder / name for name in (UNITS, COMPARISON)],
        folders={SHEETS: folder / SHEETS},
        table=(names.RANKING_TABLE, ranking(folder / UNITS, names.UNIT_JOINED)),
        remedy="nothing is lost: the folder holds all of it",
    )


def _units_note(study: dict[str, Any]) -> str:
    found = [f"Unit scores of `{study['checkpoint']}`: {', '.join(study['sources'])}.", f"Labels: {study['labels']['source']}."]
    if study["classifier"]:
        low, high = study["classifier"]["interval"]
        accuracy = study["classifier"]["validation_accuracy"]
        found.append(f"Classifier: validation accuracy {accuracy:.2f} (95 % interval {low:.2f} to {high:.2f}, chance 0.5).")
    return "\n\n".join(found)


def dynamics_parcel(record: DynamicsRecord, figures: str | Path | None = None) -> Parcel:
    """What is sent of a training run's snapshots: one run for the analysis, one logged model for each snapshot, metrics at its step. The
    names are the same for every training run, so two of them overlay.

    Args:
        record: what was measured.
        figures: folder of PNG files, sent as images under ``dynamics/NAME`` and as artifacts.
    """
    pictures = [] if figures is None else sorted(Path(figures).glob("*.png"))
    return Parcel(
        what="the dynamics",
        identity=(names.TAG_DYNAMICS, canonical_hash([record.settings, [one.checkpoint_sha256 for one in record.snapshots]])),
        run_name=f"dynamics of {len(record.snapshots)} snapshots",
        checkpoints=[
            TrackedCheckpoint(
                one.checkpoint,
                one.checkpoint_sha256,
                one.family or "",
                metrics=finite(one.metrics),
                step=step(record.unit, one.at),
                model_id=one.model_id,
            )
            for one in record.snapshots
            if one.checkpoint_sha256 and one.metrics
        ],
        params=record.settings,
        note=_dynamics_note(record),
        documents={"dynamics.json": record.model_dump(mode="json")},
        folders={FIGURES: Path(figures)} if figures is not None and pictures else {},
        images={f"dynamics/{path.stem}": path for path in pictures},
        again=True,
        remedy="run it again when the cause is gone: nothing is scored or sent twice",
    )


def step(unit: str, at: float) -> int:
    """MLflow's step: images seen, or training steps."""
    return round(at * STEPS_A_KIMG) if unit == "kimg" else round(at)


def _dynamics_note(record: DynamicsRecord) -> str:
    lines = [f"{len(record.snapshots)} snapshots, {record.snapshots[0].at:g} to {record.snapshots[-1].at:g} {record.unit}."]
    lines += [f"- **alarm**: {one}" for one in record.alarms]
    lines += [f"- `{one.checkpoint}` is left out: {one.error}" for one in record.snapshots if one.error]
    return "\n".join(lines)[:5000]
