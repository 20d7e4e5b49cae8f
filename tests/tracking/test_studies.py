"""What is sent of a checkpoint's studies."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from PIL import Image
from small_records import metrics_report

from qualitygate import names
from qualitygate.errors import InputError, TrackingError
from qualitygate.records.dynamics import DynamicsRecord, SnapshotRecord
from qualitygate.records.metrics import GroupOrder, GroupRow, Measurement, MetricsReport, RealInfo
from qualitygate.tracking.gated_set import gated_parcel
from qualitygate.tracking.sending import send
from qualitygate.tracking.spool import State, push, sync
from qualitygate.tracking.studies import dynamics_parcel, metrics_parcel, step
from tests.tracking.gated_folder import SHA256, pending, write_gated_folder

DOWN = "http://127.0.0.1:9"


def report(seed: int = 1) -> MetricsReport:
    def row(group: str, fid: float | None) -> GroupRow:
        one = Measurement(metric=names.FID, value=fid, low=fid and fid - 1, high=fid and fid + 1, samples=10, real="r" * 64)
        return GroupRow(
            group=group, samples=10, what=group, measurements={names.FID: one}, spread={"fid": 0.5} if group == "random" else {}
        )

    order = GroupOrder(metric="ppl", lowest=1.0, random=2.0, highest=3.0, holds=True, clear=False)
    return metrics_report(
        row("all", 30.0),
        row("random", 33.0),
        row("lowest", None),
        checkpoint="models/faces.v2.safetensors",
        checkpoint_sha256=SHA256,
        package_version="0.1.0",
        torch_version="2",
        seed=seed,
        samples=10,
        extractor="eyes",
        real=RealInfo(name="photos", digest="a" * 64, samples=7, preparation="as stored"),
        order=(order,),
        left_out=("recall: none",),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "metrics"
    (made / "figures").mkdir(parents=True)
    (made / "metrics.json").write_text(report().model_dump_json(), encoding="utf8")
    for name in ("groups.parquet", "samples.parquet"):
        (made / name).write_bytes(b"table")
    Image.new("RGB", (9, 9)).save(made / "figures" / "precision_recall.png")
    return made


def test_fixed_names_on_run_and_model_with_the_real_set_as_dataset(client, database, experiment, folder):
    logged = send(metrics_parcel(folder), database, experiment)
    run = client.get_run(logged.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"fid": 30.0, "fid_low": 29.0, "fid_high": 31.0, "fid/random": 33.0, "fid/random/spread": 0.5}
    model = client.get_logged_model(logged.model_id)
    assert {metric.key for metric in model.metrics} == set(run.data.metrics)
    assert {(metric.dataset_name, metric.dataset_digest) for metric in model.metrics} == {("photos", "a" * 36)}
    (given,) = run.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("photos", "a" * 36)
    assert json.loads(given.dataset.source)["sha256"] == "a" * 64
    assert {tag.value for tag in given.tags} == {"real"}
    assert run.data.params["metrics.extractor"] == "eyes"
    assert "holds within chance" in run.data.tags["mlflow.note.content"]
    (found,) = client.search_logged_models([logged.experiment_id], "metrics.fid < 31")
    assert found.model_id == logged.model_id


def test_table_figures_and_files(client, database, experiment, folder, tmp_path):
    logged = send(metrics_parcel(folder), database, experiment)
    sent = {file.path for file in client.list_artifacts(logged.run_id)}
    assert {"metrics.json", "groups.parquet", "samples.parquet", "figures", "images", names.GROUPS_TABLE} <= sent
    table = json.loads(Path(client.download_artifacts(logged.run_id, names.GROUPS_TABLE, str(tmp_path))).read_text())
    assert table["columns"] == ["group", "samples", "fid"]
    assert table["data"][2] == ["lowest", 10, None]


def test_it_is_the_gates_model_and_twice_is_once(client, database, experiment, folder, tmp_path):
    gated = send(gated_parcel(write_gated_folder(tmp_path / "set")), database, experiment)
    first, again = (send(metrics_parcel(folder), database, experiment) for _ in range(2))
    assert first == again
    assert first.model_id == gated.model_id
    assert first.run_id != gated.run_id
    assert len(client.get_run(first.run_id).inputs.dataset_inputs) == 1


def test_a_server_that_is_down_leaves_it_pending_until_sync(database, experiment, folder):
    assert push(folder, DOWN, experiment).state is State.PENDING
    assert pending(folder.parent) == [folder]
    assert sync([folder.parent], database)[folder].state is State.SENT
    assert pending(folder.parent) == []


def test_what_is_no_report_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match="holds no metrics"):
        metrics_parcel(tmp_path)
    (folder / "metrics.json").write_text("{}")
    with pytest.raises(InputError, match="measure again"):
        push(folder)


# how a generator trained: metrics at their step, on a logged model each, and nothing twice

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
    logged = send(dynamics_parcel(made, figures), database, experiment)
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

    assert send(dynamics_parcel(made, figures), database, experiment) == logged
    assert len(client.search_logged_models([logged.experiment_id])) == 2
    assert len(client.get_metric_history(logged.run_id, CLA)) == 2
    assert len(client.list_artifacts(logged.run_id, "images")) == 2  # the image and its small copy


def test_steps_are_whole_numbers() -> None:
    assert step("kimg", 1.504) == 1504
    assert step("step", 94) == 94


def test_a_server_that_is_down_is_said() -> None:
    with pytest.raises(TrackingError):
        send(dynamics_parcel(record(snapshot(1, 2.0)), None), "http://127.0.0.1:9")
