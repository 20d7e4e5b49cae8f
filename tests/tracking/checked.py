"""Folders of checks as `qualitygate check --out` writes them, without a generator; and what MLflow holds of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from small_records import check_record, rule_outcome

from qualitygate.records.check import CheckRecord, RuleState
from qualitygate.tracking import sending
from qualitygate.tracking.promotion import Version, register, tag_version
from qualitygate.tracking.studies import CHECK_RECORD, check_parcel


def write_check(folder: Path, name: str, state: RuleState = RuleState.PASSED) -> Path:
    """A check of the candidate ``name``, whose file lies beside the record."""
    folder.mkdir(parents=True)
    file = folder / f"{name}.pt"
    file.write_bytes(name.encode())
    record = check_record(
        file.name, rule_outcome("yield", state=state), sha256=hashlib.sha256(name.encode()).hexdigest(), source=name, verdict=state
    )
    (folder / CHECK_RECORD).write_text(record.model_dump_json(), encoding="utf8")
    (folder / "report.html").write_text(f"<h1>{name}</h1>", encoding="utf8")
    return folder


@dataclass(frozen=True)
class Sent:
    """A check that MLflow holds."""

    folder: Path
    record: CheckRecord
    run_id: str
    model_id: str
    version: Version


def send(folder: Path, name: str, model: str, uri: str, state: RuleState = RuleState.PASSED) -> Sent:
    """A check, sent; its candidate registered and tagged, as `qualitygate check` does before it promotes."""
    write_check(folder, name, state)
    logged = sending.send(check_parcel(folder), uri, model)
    record = CheckRecord.model_validate_json((folder / CHECK_RECORD).read_bytes())
    version = register(model, record, logged.model_id, folder / f"{name}.pt", uri)
    tag_version(version, record, logged.run_id, uri)
    return Sent(folder, record, logged.run_id, logged.model_id, version)
