"""The hook as pre-commit runs it: the script of a checkout, in another repository, by whatever Python is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
(HOOK,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf8"))


def hook(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([sys.executable, *words], cwd=folder, env=environment, text=True, capture_output=True, check=False)


def test_it_is_a_script_that_can_be_run() -> None:
    assert HOOK["language"] == "script"
    assert os.access(ROOT / HOOK["entry"], os.X_OK)
    assert (ROOT / HOOK["entry"]).read_text(encoding="utf8").startswith("#!/usr/bin/env python3\n")


@pytest.mark.parametrize(("path", "meant"), [("policy.yaml", True), ("gates/policy.yml", True), ("my-policy.yaml", False)])
def test_it_reads_policies(path: str, meant: bool) -> None:
    assert bool(re.search(HOOK["files"], path)) is meant


def test_a_policy_that_cannot_be_used_is_refused_and_the_others_are_read(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("batch: [{id: yield, metric: yield, min: 0.5}]")
    (tmp_path / "wrong.yaml").write_text("chek: {}")
    assert hook(tmp_path, str(ROOT / HOOK["entry"]), "good.yaml").returncode == 0
    done = hook(tmp_path, str(ROOT / HOOK["entry"]), "wrong.yaml", "good.yaml")
    assert done.returncode == 2
    assert "chek" in done.stderr


def test_it_loads_nothing_heavy(tmp_path: Path) -> None:
    done = hook(tmp_path, "-X", "importtime", str(ROOT / HOOK["entry"]))
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert done.returncode == 0
    assert "pydantic" in loaded
    assert not loaded & {"torch", "numpy", "mlflow", "great_expectations", "pandas"}


def test_a_python_without_what_it_takes_is_told_so(tmp_path: Path) -> None:
    done = hook(tmp_path, "-S", str(ROOT / HOOK["entry"]))
    assert done.returncode == 2
    assert "pip install 'pydantic" in done.stderr
