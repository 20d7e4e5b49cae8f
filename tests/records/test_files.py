"""What earlier versions wrote is read today, and written again with the same keys and values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from qualitygate.records.check import CheckRecord
from qualitygate.records.dynamics import DynamicsRecord
from qualitygate.records.gate import GateSummary, SampleRecord
from qualitygate.records.metrics import MetricsReport
from qualitygate.records.validation import Evidence, ValidationReport
from qualitygate.tracking.spool import Tracking

FILES = Path(__file__).parent / "files"
KINDS: dict[str, type[BaseModel]] = {
    "check.json": CheckRecord,
    "dynamics.json": DynamicsRecord,
    "evidence.json": Evidence,
    "metrics.json": MetricsReport,
    "sample.json": SampleRecord,
    "summary.json": GateSummary,
    "tracking.json": Tracking,
    "validation.json": ValidationReport,
}


def test_there_is_a_recording_of_every_kind() -> None:
    assert {path.name for path in FILES.iterdir()} == KINDS.keys()


@pytest.mark.parametrize("name", KINDS)
def test_what_was_written_once(name: str) -> None:
    content = (FILES / name).read_bytes()
    again = json.loads(KINDS[name].model_validate_json(content).model_dump_json())
    assert lost(json.loads(content), again) == []


def lost(before: Any, after: Any, place: str = "") -> list[str]:
    """Where a document does not hold what an earlier one held. Keys may be added to objects."""
    if isinstance(before, dict) and isinstance(after, dict):
        missing = [f"{place}/{key}" for key in before if key not in after]
        return missing + [one for key in before if key in after for one in lost(before[key], after[key], f"{place}/{key}")]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [one for index, pair in enumerate(zip(before, after, strict=True)) for one in lost(*pair, f"{place}/{index}")]
    return [] if before == after else [place]
