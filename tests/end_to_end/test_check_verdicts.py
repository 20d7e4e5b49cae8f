"""Candidates whose fate is known, made from a small champion, through the real command."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from cli.conftest import Call, Called, call, dcgan_state_dict  # noqa: F401 - a fixture

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # after the tests: `metrics` is there too

from candidates import candidates, planted

pytestmark = pytest.mark.slow

MADE = {one.name: one.write for one in candidates()} | {"planted": planted(6, 0.05)}
POLICY = {
    "calibration": {"rate_samples": 4000, "score_samples": 500},
    "check": {
        "samples": 1024,
        "budget": {"samples": 1024},
        "rules": [
            {"id": "yield", "metric": "yield", "min": 0.8},
            {"id": "low_rate_tail", "metric": "low_rate_0.1/q0.9", "worse_by": {"relative": 0.05}},
            {"id": "low_rate_neurons", "metric": "low_rate_share_0.1", "worse_by": {"relative": 0.05}},
            {"id": "dead_units", "metric": "dead_units", "worse_by": {"absolute": 0.005}},
        ],
    },
}
"""Rules on counts alone, as strict as the default: they take seconds."""

Check = Callable[[str], Called]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("verdicts")
    torch.save({"netG_state_dict": dcgan_state_dict()}, made / "champion.pt")
    (made / "policy.yaml").write_text(yaml.safe_dump(POLICY), encoding="utf8")
    return made


@pytest.fixture
def check(call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Check:  # noqa: F811
    """Checks a candidate of that name against the champion; profiles are kept from test to test."""
    monkeypatch.setenv("QUALITYGATE_CACHE", str(folder / "cache"))

    def run(name: str) -> Called:
        champion = folder / "champion.pt"
        candidate = MADE[name](champion, folder / name)
        return call("check", candidate, "--baseline", champion, "--policy", folder / "policy.yaml", "--no-track", "--json")

    return run


def states(done: Called) -> dict[str, str]:
    return {one["id"]: one["state"] for one in done.json["rules"]}


def test_the_same_file_passes(check: Check) -> None:
    done = check("same")
    assert done.code == 0, done.stderr


def test_zeroed_units_fail_it(check: Check) -> None:
    done = check("zeroed")
    assert done.code == 1, done.stderr
    assert states(done)["dead_units"] == "failed"


def test_a_planted_defect_fails_it(check: Check) -> None:
    """A file of a planted generator is held against its base: of the same family, on the same latents."""
    done = check("planted")
    assert done.code == 1, done.stderr
    assert states(done)["low_rate_neurons"] == "failed"
    assert done.json["candidate"]["family"] == done.json["baseline"]["family"] == "dcgan"
    assert done.json["paired"]


def test_a_truncated_file_is_refused(check: Check) -> None:
    done = check("truncated")
    assert done.code == 2
    assert "cut off" in done.stderr


def test_another_family_is_neither_passed_nor_failed_by_counts_that_cannot_be_compared(check: Check) -> None:
    done = check("family")
    assert done.code == 4, done.stderr
    notes = {one["id"]: one["note"] for one in done.json["rules"]}
    assert states(done) | {"yield": None} == {
        "yield": None,
        "low_rate_tail": "inconclusive",
        "low_rate_neurons": "inconclusive",
        "dead_units": "inconclusive",
    }
    assert "the candidate is a pggan, the baseline a dcgan" in notes["low_rate_tail"]
    assert "check.rules" in notes["low_rate_tail"]
