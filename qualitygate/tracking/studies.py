"""What is sent to MLflow of the studies of a checkpoint: its check, its set metrics, its units, and how it trained."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.records import canonical_hash
from qualitygate.records.check import CheckRecord
from qualitygate.records.dynamics import DynamicsRecord
from qualitygate.records.metrics import MetricsReport
from qualitygate.tracking.gated_set import ranking
from qualitygate.tracking.sending import Parcel, TrackedCheckpoint, finite, software_tags

if TYPE_CHECKING:
    import pandas as pd

CHECK_RECORD = "check.json"
CHECK_FILES = (CHECK_RECORD, "report.html", "junit.xml", "summary.md", "suite.json", "policy.yaml", "samples.parquet")
METRICS_REPORT = "metrics.json"
METRICS_FILES = (METRICS_REPORT, "groups.parquet", "samples.parquet")
FIGURES = "figures"
UNITS, COMPARISON, SHEETS = "units.parquet", "comparison.json", "sheets"


def read_check(folder: Path) -> tuple[CheckRecord, str]:
    """The record of a check in a folder, and the SHA-256 of its file."""
    try:
        content = (folder / CHECK_RECORD).read_bytes()
        return CheckRecord.model_validate_json(content), hashlib.sha256(content).hexdigest()
    except (OSError, ValidationError) as error:
        raise InputError(f"{folder} holds no check", str(error).splitlines()[0], "a folder of `qualitygate check --out`") from error


def check_parcel(folder: str | Path) -> Parcel:
    """What is sent of a check: the record and the report, and the verdict on the candidate with its numbers, and how far each rule is from
    its limit."""
    folder = Path(folder)
    record, digest = read_check(folder)
    ours, shown = record.candidate, verdict_tags(record)
    excess = {one.id: one.excess for one in record.rules if one.excess is not None}
    metrics = {one.metric: one.value for one in record.rules if one.value is not None}
    metrics |= {f"check/{rule}/{end}": getattr(found, end) for rule, found in excess.items() for end in ("value", "low", "high")}
    checkpoint = TrackedCheckpoint(ours.checkpoint, ours.checkpoint_sha256, ours.family, shown, metrics)
    counted = ", ".join(f"{one.id} {one.state.value}" for one in record.worst_first)
    return Parcel(
        what=folder,
        identity=(names.TAG_CHECK, digest),
        run_name=f"{checkpoint.name}, check, seed {record.seed}",
        checkpoints=(checkpoint,),
        params={
            "family": ours.family,
            "check.samples": record.samples,
            "check.seed": record.seed,
            "check.baseline": record.baseline.checkpoint_sha256 if record.baseline else "none",
            "check.error": record.error,
        },
        tags=shown | {names.TAG_PROFILE: ours.profile_id},
        run_tag=names.TAG_CHECK_RUN,
        note=f"**{record.verdict.value}**: {counted}"[:4000],
        files=[folder / name for name in CHECK_FILES if (folder / name).is_file()],
    )


def verdict_tags(record: CheckRecord, run_id: str | None = None) -> dict[str, str]:
    """What the logged model and the registered version carry: verdict, by which rules, and the run where the report is."""
    tags = {
        names.TAG_CHECK_VERDICT: record.verdict.value,
        names.TAG_POLICY: record.policy_hash,
        names.TAG_SUITE: record.suite_hash,
        names.TAG_CHECKPOINT: record.candidate.checkpoint_sha256,
    }
    return tags if run_id is None else tags | {names.TAG_CHECK_RUN: run_id}


def read_metrics(folder: str | Path) -> tuple[MetricsReport, str]:
    """What `qualitygate metrics` wrote, and the SHA-256 of its file: the same numbers are recognised wherever they were sent."""
    path = Path(folder) / METRICS_REPORT
    if not path.is_file():
        raise InputError(f"{folder} holds no metrics", f"no {METRICS_REPORT} in it", "a folder written by `qualitygate metrics`")
    content = path.read_bytes()
    try:
        return MetricsReport.model_validate_json(content), hashlib.sha256(content).hexdigest()
    except ValidationError as error:
        raise InputError(f"Cannot read {path}", str(error), "what `qualitygate metrics` wrote there", "measure again") from error


def metrics_parcel(folder: str | Path) -> Parcel:
    """What is sent of a folder of metrics, with the real set as the dataset it was held against; the folder is only read."""
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

    rows = [
        {"group": row.group, "samples": row.samples} | {name: one.value for name, one in row.measurements.items()} for row in report.groups
    ]
    return pd.DataFrame(rows, columns=["group", "samples", *(one.name for one in report.shown)])


def _metrics_note(report: MetricsReport) -> str:
    """What was measured, whether the papers' order holds, where to look."""
    against = f" against {report.real.samples:,} images of {report.real.name}" if report.real else " without real images"
    lines = [f"{report.samples:,} samples of `{report.checkpoint}`{against}."]
    for one in report.order:
        word = "holds beyond chance" if one.clear else "holds within chance" if one.holds else "does not hold"
        values = f"{one.lowest:.4g}, {one.random:.4g}, {one.highest:.4g}"
        lines.append(f"{one.metric}: lowest better than random better than highest {word} ({values}).")
    lines += [f"{one}." for one in (*report.rare_or_wrong, *report.alike)]
    lines += [f"{one[0].upper()}{one[1:]}." for one in report.remarks]
    lines += [f"Not measured: {left_out}." for left_out in report.left_out]
    return "\n\n".join([*lines, f"Look at `{names.GROUPS_TABLE}` and `{FIGURES}/`."])


def units_parcel(folder: str | Path) -> Parcel:
    """What is sent of what `qualitygate units` wrote: its ranking at the path that every run has it, so that two checkpoints compare row
    by row."""
    folder = Path(folder)
    if not (folder / COMPARISON).is_file():
        raise InputError(f"{folder} is not a study of units", f"no {COMPARISON} in it", "a folder written by `qualitygate units`")
    content = (folder / COMPARISON).read_bytes()
    study = json.loads(content)
    note = [f"Unit scores of `{study['checkpoint']}`: {', '.join(study['sources'])}.", f"Labels: {study['labels']['source']}."]
    metrics = {}
    if study["classifier"]:
        accuracy, (low, high) = study["classifier"]["validation_accuracy"], study["classifier"]["interval"]
        metrics[names.CLASSIFIER_ACCURACY] = accuracy
        note.append(f"Classifier: validation accuracy {accuracy:.2f} (95 % interval {low:.2f} to {high:.2f}, chance 0.5).")
    checkpoint = TrackedCheckpoint(study["checkpoint"], study["checkpoint_sha256"], study["family"], metrics=metrics)
    return Parcel(
        what=folder,
        identity=(names.TAG_UNITS, hashlib.sha256(content).hexdigest()),
        run_name=f"{checkpoint.name}, units",
        checkpoints=(checkpoint,),
        tags={names.TAG_CHECKPOINT: checkpoint.sha256, names.TAG_PROFILE: study["profile_id"]},
        note="\n\n".join(note),
        files=[folder / name for name in (UNITS, COMPARISON)],
        folders={SHEETS: folder / SHEETS},
        table=(names.RANKING_TABLE, ranking(folder / UNITS, names.UNIT_JOINED)),
        remedy="nothing is lost: the folder holds all of it",
    )


def dynamics_parcel(record: DynamicsRecord, figures: str | Path | None = None) -> Parcel:
    """What is sent of a training run's snapshots: one run for the analysis, one logged model for each snapshot, metrics at its step. The
    names are the same for every training run, so two of them overlay. The folder's PNG files are sent as images under ``dynamics/NAME``
    and as artifacts."""
    pictures = [] if figures is None else sorted(Path(figures).glob("*.png"))
    note = [f"{len(record.snapshots)} snapshots, {record.snapshots[0].at:g} to {record.snapshots[-1].at:g} {record.unit}."]
    note += [f"- **alarm**: {one}" for one in record.alarms]
    note += [f"- `{one.checkpoint}` is left out: {one.error}" for one in record.snapshots if one.error]
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
        note="\n".join(note)[:5000],
        documents={"dynamics.json": record.model_dump(mode="json")},
        folders={FIGURES: Path(figures)} if figures is not None and pictures else {},
        images={f"dynamics/{path.stem}": path for path in pictures},
        again=True,
        remedy="run it again when the cause is gone: nothing is scored or sent twice",
    )


def step(unit: str, at: float) -> int:
    """MLflow's step, a whole number: images seen, or training steps."""
    return round(at * 1000) if unit == "kimg" else round(at)
