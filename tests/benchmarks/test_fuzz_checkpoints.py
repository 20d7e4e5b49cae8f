"""Nothing in a damaged checkpoint runs, and none hangs; the script reads ten thousand."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from qualitygate.checkpoints.reader import read
from qualitygate.errors import CheckpointError

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # after the tests: `metrics` is there too

from fuzz_checkpoints import SECONDS, damaged, genuine, outcomes


def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    found = list(outcomes(tmp_path, 1000, seed=1))
    assert {outcome for _, outcome, _ in found} == {"read", "CheckpointError", "UnsafeCheckpointError"}
    assert max(seconds for *_, seconds in found) < SECONDS


def test_whole_files_are_read_and_payloads_are_not(tmp_path: Path) -> None:
    for name, content in genuine(tmp_path / "payload-ran").items():
        path = tmp_path / name
        path.write_bytes(content)
        if name.startswith("payload"):
            with pytest.raises(CheckpointError, match="would run code"):
                read(path)
        else:
            read(path)
    assert not (tmp_path / "payload-ran").exists()


def test_the_same_seed_makes_the_same_files() -> None:
    files = genuine(Path("nowhere"))
    first, second = ([damaged(files["legacy"], [files["pickle 4"]], random.Random(seed)) for _ in range(3)] for seed in (5, 5))
    assert first == second
