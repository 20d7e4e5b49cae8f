"""Folders of checks as `qualitygate check --out` writes them, without a generator; and what MLflow holds of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from qualitygate.records import Interval
from qualitygate.records.check import CheckedSide, CheckRecord, RuleOutcome, RuleState
from qualitygate.records.gate import SuiteResult
from qualitygate.tracking import sending
from qualitygate.tracking.promotion import Version, register, tag_version
from qualitygate.tracking.studies import CHECK_RECORD, check_parcel


def write_check(folder: Path, name: str, state: RuleState = RuleState.PASSED) -> Path:
    """A check of the candidate ``name``, whose file lies beside the record."""
    folder.mkdir(parents=True)
    file = folder / f"{name}.pt"
    file.write_bytes(name.encode())
    side = CheckedSide(
        source=name, checkpoint=file.name, checkpoint_sha256=hashlib.sha256(name.encode()).hexdigest(), family="dcgan", profile_id="p"
    )
    rule = RuleOutcome(
        id="yield",
        metric="yield",
        severity="critical",
        rule="at least 0.8",
        state=state,
        value=0.9,
        excess=Interval(value=-0.1, low=-0.2, high=-0.05),
    )
    record = CheckRecord(
        verdict=state,
        candidate=side,
        baseline=None,
        paired=False,
        samples=64,
        looks=1,
        looks_planned=1,
        seed=1,
        error=0.05,
        tail=0.001,
        rules=(rule,),
        suite=SuiteResult(passed=True, evaluated=1, results=()),
        policy_hash="h",
        suite_hash="s",
        real=None,
        extractor=None,
        package_version="0",
        torch_version="0",
        device="cpu",
        seconds=1.0,
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
