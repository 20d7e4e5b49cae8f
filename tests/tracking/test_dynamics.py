"""A training run's snapshots in MLflow: metrics at their step, on a logged model each, and nothing twice."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from mlflow.entities import LoggedModelOutput
from PIL import Image

from qualitygate.errors import InputError, TrackingError
from qualitygate.records.dynamics import DynamicsRecord, SnapshotRecord
from qualitygate.tracking.dynamics import log_dynamics, step
from qualitygate.tracking.run_models import fetch_models, run_of
from qualitygate.tracking.store import experiment_id

CLA = "dynamics/cla_mean/layer_3"


def snapshot(at: float, value: float | None, model_id: str | None = None) -> SnapshotRecord:
    found = {} if value is None else {CLA: value, "dynamics/fid": math.nan}
    return SnapshotRecord(
        checkpoint=f"net-{at:g}.pt",
        checkpoint_sha256=f"{at:064.0f}",
        family="pggan",
        model_id=model_id,
        at=at,
        metrics=found,
        error="unreadable" if value is None else None,
    )


def record(*snapshots: SnapshotRecord, alarms: tuple[str, ...] = ()) -> DynamicsRecord:
    return DynamicsRecord(unit="kimg", settings={"samples": 4}, snapshots=snapshots, rising={3: ((1, 0.5),)}, alarms=alarms)


@pytest.fixture
def figures(tmp_path: Path) -> Path:
    folder = tmp_path / "figures"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "course.png")
    return folder


def test_each_snapshot_has_its_metrics_at_its_step(database, client, experiment, figures) -> None:
    made = record(snapshot(1, 2.0), snapshot(1.5, None), snapshot(3, 4.0), alarms=("it doubled",))
    logged = log_dynamics(made, figures, database, experiment)
    models = client.search_logged_models([logged.experiment_id])
    assert {model.name: [(one.key, one.value, one.step) for one in model.metrics] for model in models} == {
        "net-1": [(CLA, 2.0, 1000)],
        "net-3": [(CLA, 4.0, 3000)],
    }
    history = client.get_metric_history(logged.run_id, CLA)
    assert [(one.step, one.value) for one in history] == [(1000, 2.0), (3000, 4.0)]
    run = client.get_run(logged.run_id)
    assert run.info.status == "FINISHED"
    assert {one.step for one in run.outputs.model_outputs} == {1000, 3000}
    assert "it doubled" in run.data.tags["mlflow.note.content"]
    assert "unreadable" in run.data.tags["mlflow.note.content"]
    assert {"dynamics.json", "figures", "images"} <= {one.path for one in client.list_artifacts(logged.run_id)}

    assert log_dynamics(made, figures, database, experiment) == logged
    assert len(client.search_logged_models([logged.experiment_id])) == 2
    assert len(client.get_metric_history(logged.run_id, CLA)) == 2
    assert len(client.list_artifacts(logged.run_id, "images")) == 2  # the image and its small copy


def test_steps_are_whole_numbers() -> None:
    assert step("kimg", 1.504) == 1504
    assert step("step", 94) == 94


def test_a_server_that_is_down_is_said() -> None:
    with pytest.raises(TrackingError):
        log_dynamics(record(snapshot(1, 2.0)), None, "http://127.0.0.1:9")


def test_the_models_of_a_run_are_fetched_once_and_scored_as_themselves(database, client, experiment, tmp_path) -> None:
    home = experiment_id(client, database, experiment)
    run = client.create_run(home)
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"weights")
    whole, empty = (client.create_logged_model(home, name=name) for name in ("whole", "empty"))
    client.log_model_artifacts(whole.model_id, str(weights.parent))
    client.log_outputs(run.info.run_id, [LoggedModelOutput(whole.model_id, 400), LoggedModelOutput(empty.model_id, 800)])
    for _ in range(2):
        found = {one.step: one for one in fetch_models(run.info.run_id, tmp_path / "models", database)}
        assert Path(found[400].source).read_bytes() == b"weights"
        assert found[800].source == f"models:/{empty.model_id}"

    logged = log_dynamics(record(snapshot(400, 1.0, whole.model_id)), None, database, experiment)
    assert logged.model_id == whole.model_id
    assert client.get_logged_model(whole.model_id).metrics[0].key == CLA


def test_a_run_without_models(database, client, experiment, tmp_path) -> None:
    run = client.create_run(experiment_id(client, database, experiment))
    with pytest.raises(InputError, match="no logged models"):
        fetch_models(run.info.run_id, tmp_path, database)
    with pytest.raises(InputError, match="does not give the models"):
        fetch_models("0" * 32, tmp_path, database)


@pytest.mark.parametrize(
    ("source", "run_id"), [("runs:/abc123", "abc123"), ("runs:/abc123/", "abc123"), ("runs:/abc/model.pt", None), ("model.pt", None)]
)
def test_which_source_is_a_whole_run(source: str, run_id: str | None) -> None:
    assert run_of(source) == run_id
