"""`qualitygate report` and `qualitygate compare` on sets that the gate wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli.conftest import Call, Place
from mlflow import MlflowClient


def gate(call: Call, place: Place, out: Path, *more: object) -> Path:
    done = call("gate", place.checkpoint, "--profile", place.profile, "--ids", "0:60", "--out", out, *more)
    assert done.code == 0, done.stderr
    return out


def test_a_gated_set_brings_its_page_and_report_makes_a_fuller_one(call: Call, place: Place, tmp_path: Path) -> None:
    gated = gate(call, place, tmp_path / "gated", "--no-track")
    first = (gated / "report.html").read_text()
    assert "Verdict and rules" in first
    assert f"{place.checkpoint.name} --profile PROFILE" in first
    assert "No baseline was given" in first
    done = call("report", gated, "--baseline", gated, "--out", tmp_path / "r.html", "--json")
    assert done.code == 0, done.stderr
    assert done.json["verdict"] == "passed"
    page = (tmp_path / "r.html").read_text()
    assert done.json["bytes"] == len(page.encode())
    assert "Worst of the baseline" in page


def test_what_is_no_gated_set_is_refused(call: Call, tmp_path: Path) -> None:
    for command in ("report", "compare"):
        done = call(command, tmp_path, "--out", tmp_path / "page.html")
        assert done.code == 2
        assert "is not a gated set" in done.stderr
    done = call("compare", "nothing", "--out", tmp_path / "page.html")
    assert "neither a folder nor the id of a run" in done.stderr


@pytest.mark.slow
def test_compare_reads_runs_and_logs_what_it_found(
    call: Call, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    for seed in (1, 2):
        gate(call, place, tmp_path / str(seed), "--seed", seed)
    client = MlflowClient(uri)
    home = client.get_experiment_by_name("qualitygate")
    assert home is not None
    runs = [run.info.run_id for run in client.search_runs([home.experiment_id])]
    assert {file.path for file in client.list_artifacts(runs[0])} >= {"report.html", "exhibit.parquet"}
    done = call("compare", *runs, "--out", tmp_path / "page.html", "--json")
    assert done.code == 0, done.stderr
    logged = client.get_run(done.json["mlflow_run"])
    assert logged.data.tags["qualitygate.compared"] == ", ".join(runs)
    assert done.json["outcomes"][0] in logged.data.tags["mlflow.note.content"]
    assert [file.path for file in client.list_artifacts(logged.info.run_id)] == ["page.html"]
    assert "gallery/worst" in (tmp_path / "page.html").read_text()
