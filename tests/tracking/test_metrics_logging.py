from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.records.metrics import GroupOrder, GroupRow, Measurement, MetricsReport, RealInfo
from qualitygate.tracking.logging import log_gated_set
from qualitygate.tracking.metrics_logging import log_metrics_set
from qualitygate.tracking.spool import State, pending, push, sync
from tests.tracking.gated_folder import SHA256, write_gated_folder

DOWN = "http://127.0.0.1:9"


def report(seed: int = 1) -> MetricsReport:
    def row(group: str, fid: float | None) -> GroupRow:
        one = Measurement(metric=names.FID, value=fid, low=fid and fid - 1, high=fid and fid + 1, samples=10, real="r" * 64)
        return GroupRow(
            group=group, samples=10, what=group, measurements={names.FID: one}, spread={"fid": 0.5} if group == "random" else {}
        )

    order = GroupOrder(metric="ppl", lowest=1.0, random=2.0, highest=3.0, holds=True, clear=False)
    return MetricsReport(
        checkpoint="models/faces.v2.safetensors",
        checkpoint_sha256=SHA256,
        family="dcgan",
        profile_id=None,
        policy_hash=None,
        package_version="0.1.0",
        torch_version="2",
        device="cpu",
        seed=seed,
        samples=10,
        sampling={},
        score="low_rate_0.1",
        group_share=0.1,
        extractor="eyes",
        distance=None,
        real=RealInfo(name="photos", digest="a" * 64, samples=7, preparation="as stored"),
        groups=(row("all", 30.0), row("random", 33.0), row("lowest", None)),
        order=(order,),
        histogram=None,
        left_out=("recall: none",),
        seconds=1.0,
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
    logged = log_metrics_set(folder, database, experiment)
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
    logged = log_metrics_set(folder, database, experiment)
    sent = {file.path for file in client.list_artifacts(logged.run_id)}
    assert {"metrics.json", "groups.parquet", "samples.parquet", "figures", "images", names.GROUPS_TABLE} <= sent
    table = json.loads(Path(client.download_artifacts(logged.run_id, names.GROUPS_TABLE, str(tmp_path))).read_text())
    assert table["columns"] == ["group", "samples", "fid"]
    assert table["data"][2] == ["lowest", 10, None]


def test_it_is_the_gates_model_and_twice_is_once(client, database, experiment, folder, tmp_path):
    gated = log_gated_set(write_gated_folder(tmp_path / "set"), database, experiment)
    first, again = (log_metrics_set(folder, database, experiment) for _ in range(2))
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
        log_metrics_set(tmp_path)
    (folder / "metrics.json").write_text("{}")
    with pytest.raises(InputError, match="measure again"):
        push(folder)
