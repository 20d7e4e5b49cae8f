"""`qualitygate report` and `qualitygate compare` on sets that the gate wrote."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cli.conftest import Call, Place
from cli.real_report import write_real_report
from mlflow import MlflowClient
from reports.test_page import Page

from qualitygate.reports.material import EXHIBIT, read_exhibit


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
def test_compare_reads_runs_and_logs_what_it_found(call: Call, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.slow
def test_every_part_of_the_page_is_filled_by_the_commands_themselves(call: Call, tmp_path: Path) -> None:
    made = write_real_report(call, tmp_path)
    text = made.page.read_text(encoding="utf8")
    page = Page(text)
    assert not page.open
    assert not [words for words in (*EMPTY, "{{", "None", "nan") if words in page.words]
    for words in (
        *("low_rate_0.3", "cla/layer_1", "Each point is one of the 8 samples"),  # gate
        *("joined_rank", "defective_score", "negative_contribution"),  # units
        *("precision", "40 images of real.npz", "Metrics by group", "lowest", "highest", "random"),  # metrics
        *("kimg", "2 snapshots, scored on the same latents"),  # dynamics
        *("Baseline: model.pt passed, 80 samples", "Worst of the baseline"),  # baseline
        *("gating, all workers together", f"--ids {shown(text)[0]}:{shown(text)[0] + 1} --seed 1"),
    ):
        assert words in page.words, words
    sheets = [one for one in page.of("img") if "what the most suspected units draw" in (one["alt"] or "")]
    assert len(sheets) == len(list((made.units / "sheets").glob("*.png"))) > 0
    assert len(page.of("svg")) >= 6
    assert set(shown(text)) == {one.record.id for one in read_exhibit(made.gated / EXHIBIT)}
    assert {"overlay", "scores", "scatter", "trade-off", "quality", "course", "precision-recall"} <= drawn(text)

    sharded = Page((made.sharded / "report.html").read_text(encoding="utf8"))
    assert "a kept image, with the gate" in sharded.words
    compared = Page(made.comparison.read_text(encoding="utf8"))
    assert not compared.open
    for words in ("What differs", "against A (model.pt): yield", "gallery/worst", "place in A"):
        assert words in compared.words


EMPTY = (
    "No set metrics were given",
    "No snapshots were given",
    "No baseline was given",
    "No CLA and no risk",
    "nothing to draw",
    "No samples were made again",
    "no table of units",
    "no calibration beside this set",
)


def shown(page: str) -> list[int]:
    """Ids of the gallery."""
    return [int(one) for one in re.findall(r'data-id="(\d+)"', page)]


def drawn(page: str) -> set[str]:
    """Names of the figures."""
    return {one.rpartition("-figure_")[0] for one in re.findall(r'<g id="([a-z-]+-figure_1)"', page)}
