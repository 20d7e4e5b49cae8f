"""``qualitygate dynamics`` and ``qualitygate pattern`` from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli.conftest import Call
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput
from PIL import Image
from studies.dynamics.snapshots import write

SMALL = ("--samples", 2, "--axes", 2, "--rate-samples", 16, "--layers", "3")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    for kimg in (200, 0, 100):
        write(folder, kimg)
    return folder


def test_numbers_figures_and_what_is_left_out(call: Call, run: Path, tmp_path: Path) -> None:
    (run / "net-50.pt").write_bytes(b"nothing")
    (run / "net-50.pt").rename(run / "kimg50.pt")
    out = tmp_path / "out"
    done = call("dynamics", run, "--out", out, "--no-track", "--json", *SMALL)
    assert done.code == 0, done.stderr
    assert "kimg50.pt is left out" in done.stderr
    assert [one["at"] for one in done.json["snapshots"]] == [0, 50, 100, 200]
    assert [bool(one["error"]) for one in done.json["snapshots"]] == [False, True, False, False]
    assert json.loads((out / "dynamics.json").read_text())["snapshots"] == done.json["snapshots"]
    for name in ("course.png", "unit.png"):
        with Image.open(out / "figures" / name) as figure:
            assert figure.width > 500
    again = call("dynamics", run / "net-*", run / "kimg50.pt", "--out", out, "--no-track", "--unit", "3/1", *SMALL)
    assert again.code == 0, again.stderr
    assert "rise" in again.stdout


def test_an_alarm_is_exit_code_1(call: Call, run: Path, tmp_path: Path) -> None:
    alarm = "dynamics/activation_scale/layer_3 x1.5 in 200"
    done = call("dynamics", run, "--out", tmp_path / "out", "--no-track", "--alarm", alarm, *SMALL)
    assert done.code == 1, done.stderr
    assert "alarm: dynamics/activation_scale/layer_3 went from" in done.stdout


def test_realism_where_there_are_real_images(call: Call, run: Path, tmp_path: Path) -> None:
    extractor = ("--extractor", "module:studies.dynamics.snapshots:pixels@8")
    done = call("dynamics", run, "--out", tmp_path / "out", "--no-track", "--real", "digits", *extractor, "--images", 8, "--json", *SMALL)
    assert done.code == 0, done.stderr
    assert all(0 < one["metrics"]["dynamics/realism"] < 1 for one in done.json["snapshots"])
    assert all(one["metrics"]["dynamics/fid"] > 0 for one in done.json["snapshots"])  # of 8 images, all the same


def test_every_snapshot_is_a_logged_model(call: Call, run: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    done = call("dynamics", run, "--out", tmp_path / "out", "--tracking-uri", uri, "--json", *SMALL)
    assert done.code == 0, done.stderr
    client = MlflowClient(uri)
    history = client.get_metric_history(done.json["mlflow_run"], "dynamics/cla_mean/layer_3")
    assert [one.step for one in history] == [0, 100_000, 200_000]
    home = client.get_experiment_by_name("qualitygate").experiment_id
    assert len(client.search_logged_models([home])) == 3

    trained = client.create_run(home).info.run_id  # as a training run leaves its snapshots behind
    models = [client.create_logged_model(home, name=path.stem) for path in sorted(run.iterdir())]
    for model, path in zip(models, sorted(run.iterdir()), strict=True):
        client.log_model_artifact(model.model_id, str(path))
    client.log_outputs(trained, [LoggedModelOutput(model.model_id, 10 * place) for place, model in enumerate(models)])
    done = call("dynamics", f"runs:/{trained}", "--out", tmp_path / "of_run", "--tracking-uri", uri, "--json", *SMALL)
    assert done.code == 0, done.stderr
    assert [(one["at"], one["model_id"]) for one in done.json["snapshots"]] == [
        (10 * place, model.model_id) for place, model in enumerate(models)
    ]
    assert all(client.get_logged_model(model.model_id).metrics for model in models)


def test_without_mlflow_the_numbers_stand(call: Call, run: Path, tmp_path: Path) -> None:
    for path in sorted(run.iterdir())[1:]:
        path.unlink()
    done = call("dynamics", run, "--out", tmp_path / "out", "--tracking-uri", "http://127.0.0.1:9", "--json", *SMALL)
    assert done.code == 0
    assert "MLflow was not reached" in done.stderr
    assert done.json["mlflow_run"] is None


@pytest.mark.parametrize("arguments", [("nowhere",), (".", "--alarm", "doubled"), (".", "--unit", "3"), (".", "--layers", "8x8")])
def test_bad_input_is_exit_code_2(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple) -> None:
    monkeypatch.chdir(tmp_path)
    done = call("dynamics", *arguments, "--no-track")
    assert done.code == 2
    assert not list(tmp_path.iterdir())


def test_pattern(call: Call, run: Path, tmp_path: Path) -> None:
    out, checkpoint = tmp_path / "pattern.png", run / "net-000200.safetensors"
    found = call("pattern", checkpoint, "--out", out, "--id", 4, "--json").json
    with Image.open(out) as figure:
        assert figure.width == 1200
    assert found["layer"] == 3
    named = call("pattern", checkpoint, "--out", out, "--id", 4, "--at", f"3/{found['unit']}", "--plane", "0,2", "--json").json
    assert {**named, "axes": found["axes"]} == found
    assert named["axes"] == [0, 2]
    shown = call("pattern", checkpoint, "--out", out, "--at", "1/2/3/0")
    assert "activation" in shown.stdout
    for bad in (("--at", "3/1/2"), ("--at", "3/9"), ("--plane", "1,1"), ("--at", "9")):
        assert call("pattern", checkpoint, "--out", out, *bad).code == 2
