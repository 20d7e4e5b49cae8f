"""A check as it lies on disk, and what of it is sent to MLflow: a run with the record and the report, and the verdict on the candidate."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.records.check import CheckRecord
from qualitygate.tracking.sending import Parcel, TrackedCheckpoint

RECORD = "check.json"
FILES = (RECORD, "report.html", "junit.xml", "summary.md", "suite.json", "policy.yaml", "samples.parquet")


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


def check_parcel(folder: str | Path) -> Parcel:
    """What is sent of a check.

    Raises:
        InputError: the folder holds no check.
    """
    folder = Path(folder)
    record, digest = read_check(folder)
    ours = record.candidate
    shown = verdict_tags(record)
    checkpoint = TrackedCheckpoint(ours.checkpoint, ours.checkpoint_sha256, ours.family, shown, check_metrics(record))
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
        files=[folder / name for name in FILES if (folder / name).is_file()],
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


def check_metrics(record: CheckRecord) -> Mapping[str, float]:
    """The candidate's numbers, and how far each rule is from its limit."""
    values = {one.metric: one.value for one in record.rules if one.value is not None}
    return values | {
        f"check/{one.id}/{end}": getattr(one.excess, end)
        for one in record.rules
        if one.excess is not None
        for end in ("value", "low", "high")
    }
