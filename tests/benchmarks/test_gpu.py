"""The script that is to prove what is said of GPUs, with toys on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.sh"


@pytest.mark.slow
def test_every_part_but_the_face_generators(tmp_path: Path) -> None:
    parts = ["parity", "precisions", "curvature", "gate", "production", "rates"]
    call = [SCRIPT, "--device", "cpu", "--only", *parts, "--out", tmp_path / "gpu"]
    done = subprocess.run(call, env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "gpu.json").read_text())
    assert [name for name in document if name in parts] == parts
    met = [row["met"] for row in document["parity"]["rows"] if row["goal"]]
    assert len(met) > 18
    assert all(met)
    for part in parts:
        assert all(row["value"] == row["value"] for row in document[part]["rows"])
        assert f"## {part}" in (tmp_path / "gpu.md").read_text()
