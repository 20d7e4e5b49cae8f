from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qualitygate import names
from qualitygate.errors import InputError, TrackingError
from qualitygate.policy.corrections import SequentialAblation, SequentialCorrection
from qualitygate.policy.model import BatchRule, Calibration, Limit, Policy, Rule
from qualitygate.records.gate import ExpectationResult, SuiteResult, Verdict
from qualitygate.records.images import ImageEncoding
from qualitygate.tracking import sending
from qualitygate.tracking.gated_set import find_champion, gated_parcel, note, read_gated_set, run_params
from qualitygate.tracking.sending import send
from tests.tracking.gated_folder import SHA256, UNITS, suite_result, write_gated_folder


@pytest.fixture
def folder(tmp_path):
    return write_gated_folder(tmp_path / "set")


@pytest.fixture
def everywhere(database, monkeypatch):
    """MLflow's own tables and registry look up runs and models at the global address, whatever their client was made for."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)


def below(client, run_id, path=None) -> set[str]:
    found = set()
    for file in client.list_artifacts(run_id, path):
        found |= below(client, run_id, file.path) if file.is_dir else {file.path}
    return found


def test_values_of_the_run(client, database, experiment, folder):
    logged = send(gated_parcel(folder), database, experiment)
    run = client.get_run(logged.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.experiment_id == logged.experiment_id == client.get_experiment_by_name(experiment).experiment_id
    assert run.data.params["rule.low_rate.score"] == "low_rate_0.1"
    assert run.data.params["rule.low_rate.limit"] == "quantile 0.9"
    assert run.data.params["limit.low_rate/low_rate_0.1"] == "17.5"
    assert run.data.params["correction.rates"] == "0.1, 0.2, 0.3"
    assert run.data.params["detection.layers"] == "preset"
    assert run.data.tags["qualitygate.verdict"] == "passed"
    assert run.data.tags["qualitygate.checkpoint_sha256"] == SHA256
    assert run.data.tags["qualitygate.profile_id"] == "p" * 64
    assert run.data.tags["qualitygate.suite_hash"] == "s" * 64
    assert run.data.tags["qualitygate.version"] == "0.1.0"
    assert "qualitygate.metrics_not_finite" not in run.data.tags


def test_metrics_belong_to_run_and_model(client, database, experiment, folder):
    logged = send(gated_parcel(folder), database, experiment)
    written = json.loads((folder / "summary.json").read_text())["metrics"]
    assert client.get_run(logged.run_id).data.metrics == written
    model = client.get_logged_model(logged.model_id)
    assert {metric.key: metric.value for metric in model.metrics} == written
    assert {metric.run_id for metric in model.metrics} == {logged.run_id}


def test_model_of_the_checkpoint(client, database, experiment, folder):
    logged = send(gated_parcel(folder), database, experiment)
    model = client.get_logged_model(logged.model_id)
    assert model.name == "faces_v2"
    assert model.status == "READY"
    assert model.model_type == "qualitygate.generator"
    assert model.params["sha256"] == SHA256
    assert model.params["family"] == "dcgan"
    assert model.tags["qualitygate.verdict"] == "passed"
    outputs = client.get_run(logged.run_id).outputs.model_outputs
    assert [output.model_id for output in outputs] == [logged.model_id]


@pytest.mark.usefixtures("everywhere")
def test_model_can_be_registered_and_named_champion(client, database, experiment, folder):
    logged = send(gated_parcel(folder), database, experiment)
    client.create_registered_model("faces")
    source = f"models:/{logged.model_id}"
    version = client.create_model_version("faces", source=source, model_id=logged.model_id)
    client.set_registered_model_alias("faces", "champion", version.version)
    assert client.get_model_version_by_alias("faces", "champion").source == source


def test_checkpoint_gated_again_keeps_its_model_and_shows_the_last_verdict(client, database, experiment, tmp_path):
    first = send(gated_parcel(write_gated_folder(tmp_path / "one", seed=1)), database, experiment)
    failing = write_gated_folder(tmp_path / "two", seed=2, suite=suite_result("yield"))
    second = send(gated_parcel(failing), database, experiment)
    assert first.model_id == second.model_id
    assert first.run_id != second.run_id
    assert client.get_logged_model(first.model_id).tags["qualitygate.verdict"] == "failed"
    assert client.get_run(first.run_id).data.tags["qualitygate.verdict"] == "passed"


def test_artifacts_are_sent_and_images_are_not(client, database, experiment, folder, tmp_path):
    logged = send(gated_parcel(folder), database, experiment)
    sent = {path for path in below(client, logged.run_id) if not path.startswith("images/")}
    assert sent == {
        "summary.json",
        "samples.parquet",
        "units.parquet",
        "policy.yaml",
        "suite.json",
        names.RANKING_TABLE,
        "gallery/best.png",
        "gallery/rejected.png",
        "figures/low_rate_0.1.png",
    }
    copy = client.download_artifacts(logged.run_id, "samples.parquet", str(tmp_path))
    assert Path(copy).read_bytes() == (folder / "samples.parquet").read_bytes()


def test_artifacts_lie_beside_the_database(client, database, experiment, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    logged = send(gated_parcel(folder), database, experiment)
    assert f"/mlartifacts/{experiment}/" in client.get_run(logged.run_id).info.artifact_uri
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.usefixtures("everywhere")
def test_ranking_table(client, database, experiment, folder):
    logged = send(gated_parcel(folder), database, experiment)
    table = client.load_table(logged.experiment_id, names.RANKING_TABLE, run_ids=[logged.run_id])
    assert len(table) == 200
    assert table.columns[0] == names.UNIT_KEY
    assert list(table[names.UNIT_KEY][:4]) == [f"layer1/unit{unit}" for unit in (1, 0, UNITS - 1, UNITS - 2)]


def test_contact_sheets_are_image_keys(client, database, experiment, folder, tmp_path):
    logged = send(gated_parcel(folder), database, experiment)
    images = sorted(path for path in below(client, logged.run_id, "images") if path.endswith(".png"))
    assert [path.split("+")[0] for path in images] == ["images/gallery~best", "images/gallery~rejected"]
    assert client.get_run(logged.run_id).data.tags["mlflow.loggedImages"] == "True"
    copy = client.download_artifacts(logged.run_id, images[0], str(tmp_path))
    with Image.open(copy) as sent, Image.open(folder / "gallery/best.png") as written:
        assert np.array_equal(sent, written)


def test_note_says_what_failed_and_where_to_look(client, database, experiment, tmp_path):
    folder = write_gated_folder(tmp_path / "set", suite=suite_result("yield"))
    tags = client.get_run(send(gated_parcel(folder), database, experiment).run_id).data.tags
    assert tags["qualitygate.verdict"] == "failed"
    note = tags["mlflow.note.content"]
    assert note.startswith("**Failed**: 4 samples of `models/faces.v2.safetensors`")
    assert "50.0% accepted, 25.0% corrected, 25.0% rejected" in note
    assert "1 of 2 expectations failed:\n\n- `yield` (critical): observed 0.75" in note
    assert note.endswith("Look at `gallery/best`, `gallery/rejected`, `unit_ranking.json` (the units to suspect).")


def test_a_failed_gate_is_a_finished_run(client, database, experiment, tmp_path):
    folder = write_gated_folder(tmp_path / "set", suite=suite_result("yield"))
    assert client.get_run(send(gated_parcel(folder), database, experiment).run_id).info.status == "FINISHED"


@pytest.mark.parametrize("as_null", [False, True])
def test_metrics_that_are_not_finite_are_named_and_left_out(client, database, experiment, tmp_path, as_null):
    folder = write_gated_folder(tmp_path / "set", metrics={"fid": float("nan"), "kid": float("inf")})
    if as_null:
        text = (folder / "summary.json").read_text()
        (folder / "summary.json").write_text(text.replace("NaN", "null").replace("Infinity", "null"))
    run = client.get_run(send(gated_parcel(folder), database, experiment.replace("[", "_")).run_id)
    assert run.data.tags["qualitygate.metrics_not_finite"] == "fid, kid"
    assert not {"fid", "kid"} & run.data.metrics.keys()


def test_more_metrics_than_one_call_takes(client, database, experiment, tmp_path):
    folder = write_gated_folder(tmp_path / "set", metrics={f"score_{i}/q0.5": float(i) for i in range(1200)})
    logged = send(gated_parcel(folder), database, experiment)
    assert client.get_run(logged.run_id).data.metrics["score_1199/q0.5"] == 1199.0


def test_only_what_is_there_is_sent(client, database, experiment, folder):
    for name in ("units.parquet", "suite.json", "gallery/best.png", "gallery/rejected.png"):
        (folder / name).unlink()
    logged = send(gated_parcel(folder), database, experiment)
    assert below(client, logged.run_id) == {"summary.json", "samples.parquet", "policy.yaml", "figures/low_rate_0.1.png"}


def test_a_finished_set_is_not_sent_twice(client, database, experiment, folder, monkeypatch):
    first = send(gated_parcel(folder), database, experiment)
    before = below(client, first.run_id)
    monkeypatch.setattr(sending, "_send", lambda *_: pytest.fail("sent twice"))
    assert send(gated_parcel(folder), database, experiment) == first
    assert below(client, first.run_id) == before


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize(
    ("call", "number"),
    [
        ("finalize_logged_model", 1),
        ("create_run", 1),
        ("log_batch", 1),
        ("log_outputs", 1),
        ("log_batch", 2),
        ("log_artifact", 3),
        ("log_artifacts", 2),
        ("set_tag", 1),
        ("log_image", 2),
        ("set_logged_model_tags", 1),
        ("set_terminated", 1),
    ],
)
def test_a_push_that_broke_is_resumed_in_its_run(client, database, tmp_path, monkeypatch, call, number):
    experiment = f"resumed_{call}_{number}"
    folder = write_gated_folder(tmp_path / "set")
    whole = send(gated_parcel(folder), database, "whole")

    with monkeypatch.context() as patch:
        fail_once(patch, call, number)
        with pytest.raises(TrackingError, match="the server went away"):
            send(gated_parcel(folder), database, experiment)
    home = client.get_experiment_by_name(experiment).experiment_id
    begun = client.search_runs([home])
    assert all(run.info.status != "FINISHED" for run in begun)

    logged = send(gated_parcel(folder), database, experiment)
    runs = client.search_runs([home])
    assert [run.info.run_id for run in runs] == [run.info.run_id for run in begun] or not begun
    assert [(run.info.run_id, run.info.status) for run in runs] == [(logged.run_id, "FINISHED")]
    assert len(client.search_logged_models([home])) == 1
    assert without_names(below(client, logged.run_id)) == without_names(below(client, whole.run_id))
    run, expected = client.get_run(logged.run_id), client.get_run(whole.run_id)
    assert run.data.metrics == expected.data.metrics
    assert run.data.tags.keys() == expected.data.tags.keys()
    assert len(client.get_metric_history(logged.run_id, names.YIELD)) == 1
    assert len(client.get_logged_model(logged.model_id).metrics) == len(run.data.metrics)
    assert len(client.load_table(home, names.RANKING_TABLE)) == 200


def fail_once(patch, call: str, number: int = 1) -> None:
    from mlflow import MlflowClient

    real, calls = getattr(MlflowClient, call), []

    def fails(self, *args, **kwargs):
        calls.append(call)
        if len(calls) == number:
            raise ConnectionError("the server went away")
        return real(self, *args, **kwargs)

    patch.setattr(MlflowClient, call, fails)


def without_names(paths: set[str]) -> list[str]:
    """Sent images end in a time and a random name."""
    return sorted(re.sub(r"timestamp\+\d+\+[0-9a-f-]{36}", "", path) for path in paths)


def test_a_broken_push_is_a_failed_run(client, database, experiment, folder, monkeypatch):
    with monkeypatch.context() as patch:
        fail_once(patch, "log_artifacts")
        with pytest.raises(TrackingError) as raised:
            send(gated_parcel(folder), database, experiment)
    assert f"qualitygate sync {folder}" in str(raised.value)
    home = client.get_experiment_by_name(experiment).experiment_id
    assert [run.info.status for run in client.search_runs([home])] == ["FAILED"]


def test_no_active_run_and_nothing_on_stdout(database, experiment, folder, capfd):
    import mlflow

    send(gated_parcel(folder), database, experiment)
    assert mlflow.active_run() is None
    assert capfd.readouterr().out == ""


def test_deleted_experiment_is_named(client, database, experiment, folder):
    client.delete_experiment(client.create_experiment(experiment))
    with pytest.raises(TrackingError, match="deleted"):
        send(gated_parcel(folder), database, experiment)


def test_folder_that_is_no_gated_set(tmp_path):
    with pytest.raises(InputError, match=r"no summary\.json"):
        gated_parcel(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"metrics": 3}', '{"metrics": {}}'])
def test_summary_that_cannot_be_read(tmp_path, content):
    (tmp_path / "summary.json").write_text(content)
    with pytest.raises(InputError, match="Cannot read"):
        gated_parcel(tmp_path)


def test_the_note_says_what_changed_against_the_champion(client, database, experiment, tmp_path, everywhere):
    for other in client.search_registered_models():
        client.delete_registered_model(other.name)
    first = send(gated_parcel(write_gated_folder(tmp_path / "first", checkpoint="a.pt")), database, experiment)
    assert "champion" not in client.get_run(first.run_id).data.tags["mlflow.note.content"]
    client.create_registered_model(experiment)
    client.create_model_version(experiment, f"models:/{first.model_id}", model_id=first.model_id)
    client.set_registered_model_alias(experiment, "champion", "1")
    try:
        assert find_champion(client, "dcgan", SHA256) is None, "a checkpoint is not held against itself"
        assert find_champion(client, "pggan", "another") is None
        found = find_champion(client, "dcgan", "another")
        assert found is not None
        text = note(read_gated_set(write_gated_folder(tmp_path / "next", metrics={"yield": 0.5})), found)
        assert f"Against the champion, `{experiment}` version 1: yield 75.0% → 50.0%" in text
    finally:
        client.delete_registered_model(experiment)


def test_note_and_tags_stay_within_limits(tmp_path):
    results = tuple(
        ExpectationResult(id="x" * 300, type="t", severity="critical", success=False, observed=["y" * 999], kwargs={}) for _ in range(500)
    )
    suite = SuiteResult(passed=False, evaluated=500, results=results)
    not_finite = {f"{'m' * 200}{i}": float("nan") for i in range(500)}
    gated = read_gated_set(write_gated_folder(tmp_path / "set", suite=suite, metrics=not_finite, checkpoint="c" * 5000))
    assert all(len(value) < 8000 for value in gated_parcel(gated.folder).tags.values())
    assert len(note(gated)) < 8000
    assert "- and 480 more" in note(gated)
    assert "500 of 500 expectations failed" in note(gated)


def test_params_are_the_decisive_values(tmp_path):
    policy = Policy(
        rules=(Rule(id="cla", score="cla/layer_1", limit=Limit(value=12.0), action=Verdict.REJECT),),
        correction=None,
        calibration=Calibration(curvature_samples=200),
        batch=(BatchRule(id="y", metric="yield", min=0.5),),
    )
    assert run_params(read_gated_set(write_gated_folder(tmp_path / "none", policy=policy))) == {
        "family": "dcgan",
        "seed": "1",
        "detection.layers": "preset",
        "detection.rates": "0.02, 0.05, 0.1, 0.2, 0.3",
        "rule.cla.score": "cla/layer_1",
        "rule.cla.limit": "12",
        "rule.cla.action": "reject",
        "correction": "none",
        "limit.low_rate/low_rate_0.1": "17.5",
    }


def test_the_format_of_the_images_is_a_param_where_it_is_known(tmp_path):
    gated = read_gated_set(write_gated_folder(tmp_path / "set"))
    assert "images" not in run_params(gated)
    known = replace(gated, summary=gated.summary.model_copy(update={"image_encoding": ImageEncoding()}))
    assert run_params(known)["images"] == "png, level 1"


def test_params_of_a_correction(tmp_path):
    policy = Policy(correction=SequentialAblation(layers=(0, 1), rates=(0.2,), judged_at=0.1, limit=Limit(quantile=0.95)))
    params = run_params(read_gated_set(write_gated_folder(tmp_path / "set", policy=policy)))
    assert {key: value for key, value in params.items() if key.startswith("correction")} == {
        "correction": "sequential_ablation",
        "correction.layers": "0, 1",
        "correction.rates": "0.2",
        "correction.judged_at": "0.1",
        "correction.limit": "quantile 0.95",
    }


def test_params_of_a_correction_of_units(tmp_path):
    policy = Policy(correction=SequentialCorrection(units=(10, 20), stop=1, judged_at=0.1))
    params = run_params(read_gated_set(write_gated_folder(tmp_path / "set", policy=policy)))
    assert {name: value for name, value in params.items() if name.startswith("correction")} == {
        "correction": "sequential_correction",
        "correction.layers": "preset",
        "correction.stop": "1",
        "correction.units": "10, 20",
        "correction.shares": "default",
        "correction.score": "low_rate_activity",
        "correction.ranking": "sample",
        "correction.rate": "0.1",
        "correction.lambdas": "0.9",
        "correction.judged_at": "0.1",
        "correction.limit": "quantile 0.9",
    }
