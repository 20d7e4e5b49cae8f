"""Send a check to MLflow: a run with the record and the report, and the verdict on the candidate's logged model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from qualitygate.errors import InputError
from qualitygate.records import CheckRecord
from qualitygate.tracking.describe import CHECKPOINT, NOTE, POLICY_HASH, PROFILE_ID, SUITE_HASH
from qualitygate.tracking.logging import (
    EXPERIMENT,
    Logged,
    as_tracking_error,
    closing,
    find_run,
    link_model,
    send_metrics,
)
from qualitygate.tracking.models import TrackedCheckpoint, checkpoint_model
from qualitygate.tracking.store import connect, experiment_id, public, tracking_uri

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
    folder, uri = Path(folder), tracking_uri(uri)
    record, digest = read_check(folder)
    with as_tracking_error(folder, uri), connect(uri) as client:
        home = experiment_id(client, uri, experiment)
        ours = record.candidate
        model_id = checkpoint_model(
            client, home, TrackedCheckpoint(ours.checkpoint, ours.checkpoint_sha256, ours.family, {})
        )
        name = f"{Path(ours.checkpoint).stem}, check, seed {record.seed}"
        run = find_run(client, home, CHECK_ID, digest) or client.create_run(
            home, tags={CHECK_ID: digest}, run_name=name
        )
        if run.info.status != "FINISHED":
            with closing(client, run.info.run_id):
                _send(client, run, model_id, folder, record)
    return Logged(run.info.run_id, model_id, home, public(uri))


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
        raise InputError(
            f"{folder} holds no check", str(error).splitlines()[0], "a folder of `qualitygate check --out`"
        ) from error


def verdict_tags(record: CheckRecord, run_id: str) -> dict[str, str]:
    """What the logged model and the registered version carry: verdict, by which rules, and where the report is."""
    return {CHECK_VERDICT: record.verdict.value, POLICY_HASH: record.policy_hash, SUITE_HASH: record.suite_hash, CHECK_RUN: run_id,
            CHECKPOINT: record.candidate.checkpoint_sha256}  # fmt: skip


def check_metrics(record: CheckRecord) -> Mapping[str, float]:
    """The candidate's numbers, and how far each rule is from its limit."""
    values = {one.metric: one.value for one in record.rules if one.value is not None}
    return values | {f"check/{one.id}/{end}": getattr(one.excess, end) for one in record.rules if one.excess is not None
                     for end in ("value", "low", "high")}  # fmt: skip


def _send(client: MlflowClient, run: Run, model_id: str, folder: Path, record: CheckRecord) -> None:
    from mlflow.entities import Param, RunTag

    run_id = run.info.run_id
    params = {"family": record.candidate.family, "check.samples": record.samples, "check.seed": record.seed,
              "check.baseline": record.baseline.checkpoint_sha256 if record.baseline else "none", "check.error": record.error}  # fmt: skip
    counted = ", ".join(f"{one.id} {one.state.value}" for one in record.worst_first)
    tags = verdict_tags(record, run_id) | {
        PROFILE_ID: record.candidate.profile_id,
        NOTE: f"**{record.verdict.value}**: {counted}"[:4000],
    }
    client.log_batch(run_id, params=[Param(key, str(value)) for key, value in params.items()],
                     tags=[RunTag(key, value) for key, value in tags.items()])  # fmt: skip
    link_model(client, run, model_id)
    send_metrics(client, run, model_id, check_metrics(record))
    for name in FILES:
        if (folder / name).is_file():
            client.log_artifact(run_id, str(folder / name))
    client.set_logged_model_tags(model_id, verdict_tags(record, run_id))
