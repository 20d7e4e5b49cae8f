"""Send a check to MLflow: a run with the record and the report, and the verdict on the candidate's logged model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from qualitygate.errors import InputError
from qualitygate.records.check import CheckRecord
from qualitygate.tracking.describe import CHECKPOINT, NOTE, POLICY_HASH, PROFILE_ID, SUITE_HASH
from qualitygate.tracking.models import TrackedCheckpoint
from qualitygate.tracking.sending import EXPERIMENT, Logged, Parcel, link_model, send_metrics, send_once

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

CHECK_ID = "qualitygate.check_id"
CHECK_VERDICT = "qualitygate.check_verdict"
CHECK_RUN = "qualitygate.check_run"
RECORD = "check.json"
FILES = (RECORD, "report.html", "junit.xml", "summary.md", "suite.json", "policy.yaml", "samples.parquet")


def log_check(folder: str | Path, uri: str | None = None, experiment: str = EXPERIMENT) -> Logged:
    """Send a check; one that was sent before is not sent again.

    Raises:
        InputError: the folder holds no check.
        TrackingError: MLflow cannot be reached, or refused something.
    """
    folder = Path(folder)
    record, digest = read_check(folder)
    ours = record.candidate
    checkpoint = TrackedCheckpoint(ours.checkpoint, ours.checkpoint_sha256, ours.family, {})
    parcel = Parcel(folder, checkpoint, (CHECK_ID, digest), f"{checkpoint.name}, check, seed {record.seed}")
    return send_once(parcel, lambda client, run, model_id: _send(client, run, model_id, folder, record), uri, experiment)


def is_check(folder: Path) -> bool:
    """Whether `qualitygate check --out` wrote the folder."""
    return (folder / RECORD).is_file()


def read_check(folder: Path) -> tuple[CheckRecord, str]:
    """The record in a folder, and the SHA-256 of its file.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    try:
        content = (folder / RECORD).read_bytes()
        return CheckRecord.model_validate_json(content), hashlib.sha256(content).hexdigest()
    except (OSError, ValidationError) as error:
        raise InputError(f"{folder} holds no check", str(error).splitlines()[0], "a folder of `qualitygate check --out`") from error


def verdict_tags(record: CheckRecord, run_id: str) -> dict[str, str]:
    """What the logged model and the registered version carry: verdict, by which rules, and where the report is."""
    return {
        CHECK_VERDICT: record.verdict.value,
        POLICY_HASH: record.policy_hash,
        SUITE_HASH: record.suite_hash,
        CHECK_RUN: run_id,
        CHECKPOINT: record.candidate.checkpoint_sha256,
    }


def check_metrics(record: CheckRecord) -> Mapping[str, float]:
    """The candidate's numbers, and how far each rule is from its limit."""
    values = {one.metric: one.value for one in record.rules if one.value is not None}
    return values | {
        f"check/{one.id}/{end}": getattr(one.excess, end)
        for one in record.rules
        if one.excess is not None
        for end in ("value", "low", "high")
    }


def _send(client: MlflowClient, run: Run, model_id: str, folder: Path, record: CheckRecord) -> None:
    from mlflow.entities import Param, RunTag

    run_id = run.info.run_id
    params = {
        "family": record.candidate.family,
        "check.samples": record.samples,
        "check.seed": record.seed,
        "check.baseline": record.baseline.checkpoint_sha256 if record.baseline else "none",
        "check.error": record.error,
    }
    counted = ", ".join(f"{one.id} {one.state.value}" for one in record.worst_first)
    tags = verdict_tags(record, run_id) | {PROFILE_ID: record.candidate.profile_id, NOTE: f"**{record.verdict.value}**: {counted}"[:4000]}
    client.log_batch(
        run_id, params=[Param(key, str(value)) for key, value in params.items()], tags=[RunTag(key, value) for key, value in tags.items()]
    )
    link_model(client, run, model_id)
    send_metrics(client, run, model_id, check_metrics(record))
    for name in FILES:
        if (folder / name).is_file():
            client.log_artifact(run_id, str(folder / name))
    client.set_logged_model_tags(model_id, verdict_tags(record, run_id))
