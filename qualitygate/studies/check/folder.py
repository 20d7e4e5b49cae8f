"""The folder of a check: for machines and for people, written in one step."""

from __future__ import annotations

import json
from pathlib import Path

from qualitygate import storage
from qualitygate.gating.profile import Profile
from qualitygate.policy.model import Policy, policy_yaml
from qualitygate.reports.check_page import check_page
from qualitygate.reports.github import step_summary
from qualitygate.reports.junit import junit_xml
from qualitygate.studies.check.run import Checked

RECORD, JUNIT, PAGE, SUMMARY, SUITE, SAMPLES, POLICY, PROFILE = (
    "check.json",
    "junit.xml",
    "report.html",
    "summary.md",
    "suite.json",
    "samples.parquet",
    "policy.yaml",
    "profile",
)


def write_check(path: str | Path, checked: Checked, policy: Policy, profile: Profile) -> None:
    """Write the folder; ``profile`` is the candidate's, ready for `qualitygate gate`.

    Raises:
        OutputError: something else is there already.
        StorageError: it cannot be written.
    """
    record = checked.record
    with storage.new_folder(path) as folder:
        storage.write_bytes(folder / RECORD, record.model_dump_json(indent=2).encode())
        storage.write_bytes(folder / JUNIT, junit_xml(record))
        storage.write_bytes(folder / PAGE, check_page(record, policy_yaml(policy), checked.sheets).encode())
        storage.write_bytes(folder / SUMMARY, step_summary(record).encode())
        storage.write_bytes(folder / SUITE, json.dumps(checked.suite, indent=2).encode())
        storage.write_bytes(folder / POLICY, policy_yaml(policy).encode())
        storage.write_table(folder / SAMPLES, checked.samples)
        profile.save(folder / PROFILE)
