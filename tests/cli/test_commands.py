"""The commands from end to end on a small checkpoint: results on stdout, exit codes, what lies on disk afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from cli.conftest import POLICY, Call, Place
from mlflow import MlflowClient
from PIL import Image

import qualitygate
from qualitygate.storage import image_name, to_uint8


def gate(call: Call, place: Place, out: Path, *more: object):
    return call("gate", place.checkpoint, "--profile", place.profile, "--out", out, "--ids", "0:150", *more)


@pytest.fixture
def gated(call: Call, place: Place, tmp_path: Path) -> Path:
    done = gate(call, place, tmp_path / "gated", "--no-track")
    assert done.code == 0, done.stderr
    return tmp_path / "gated"


def test_version_and_help(call: Call) -> None:
    assert call("--version").stdout.strip() == qualitygate.__version__
    for command in ("inspect", "calibrate", "gate", "decide", "metrics", "demo", "schema", "sync"):
        shown = call(command, "--help")
        assert shown.code == 0
        assert "Usage: qualitygate" in shown.stdout


def test_the_generator_of_the_demonstration_alone(call: Call, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qualitygate.checkpoints.demonstration.face_generator", lambda wheel: place.checkpoint)
    done = call("demo", "--fetch", tmp_path / "face.pt", "--json")
    assert done.json["out"] == str(tmp_path / "face.pt")
    assert (tmp_path / "face.pt").read_bytes() == place.checkpoint.read_bytes()
    assert call("demo", "--fetch", tmp_path / "face.pt").code == 2
    assert list(tmp_path.iterdir()) == [tmp_path / "face.pt"]


def test_inspect(call: Call, place: Place) -> None:
    found = call("inspect", place.checkpoint, "--json").json
    assert found["family"] == "dcgan"
    assert found["settings"] == {"latent_size": 8, "units": [12, 8, 6], "image_channels": 3}
    assert [layer["size"] for layer in found["layers"]] == ["4x4", "8x8", "16x16"]
    assert found["group"] == "netG"
    assert found["micro_batch"] == {"the CPU": 64, **{f"a GPU with {memory} GiB": 1024 for memory in (16, 40, 80)}}
    assert found["exact_cla_passes"] == 8 * 20
    assert found["screened_cla_passes"] == {"0.8": 98, "0.9": 65, "0.95": 123, "0.99": 43}
    assert found["screened_cla_error"] == {"0.8": 0.01, "0.9": 0.005, "0.95": 0.0025, "0.99": None}
    shown = call("inspect", place.checkpoint)
    assert found["sha256"] in shown.stdout.replace("\n", "")
    assert "differ): 98 at 0.8 (1.00%), 65 at 0.9 (0.50%)" in " ".join(shown.stdout.split())
    assert shown.stderr == ""


def test_calibrate_writes_a_profile_that_gates(call: Call, place: Place, tmp_path: Path) -> None:
    done = call("calibrate", place.checkpoint, "--out", tmp_path / "p", "--policy", place.policy, "--json")
    assert done.code == 0, done.stderr
    first = qualitygate.load_profile(place.profile)
    assert done.json["profile_id"] == first.info.profile_id
    again = qualitygate.load_profile(tmp_path / "p")
    assert all(np.array_equal(again.scores[name], first.scores[name]) for name in first.scores)


def test_gate_writes_one_record_for_every_id_and_the_images_it_keeps(place: Place, gated: Path) -> None:
    table = pq.read_table(gated / "samples.parquet").to_pandas()
    assert table["id"].tolist() == list(range(150))
    assert set(table["verdict"]) == {"accept", "correct", "reject"}
    kept = table.loc[table["verdict"] != "reject", "id"]
    assert sorted(path.name for path in (gated / "images").iterdir()) == [image_name(one) for one in kept]
    accepted = int(table.loc[table["verdict"] == "accept", "id"].iloc[0])
    generator = qualitygate.load_generator(place.checkpoint)
    image = generator(qualitygate.sample_latents(generator, [accepted], seed=1))[0].numpy()
    written = np.asarray(Image.open(gated / "images" / image_name(accepted))).astype(int)
    assert np.abs(written - to_uint8(image)).max() <= 1
    summary = json.loads((gated / "summary.json").read_text())
    assert summary["samples"] == 150 == summary["accepted"] + summary["corrected"] + summary["rejected"]
    assert summary["suite"]["passed"] is True
    assert {"gallery", "figures", "profile", "units.parquet", "policy.yaml", "suite.json"} <= {one.name for one in gated.iterdir()}


def test_gate_writes_the_format_that_was_asked_for(call: Call, place: Place, tmp_path: Path) -> None:
    asked = ("--image-format", "jpeg", "--image-quality", 80, "--no-track", "--exit-zero", "--json")
    done = gate(call, place, tmp_path / "gated", *asked)
    assert done.json["image_encoding"] == {"format": "jpeg", "level": None, "quality": 80}
    assert {one.suffix for one in (tmp_path / "gated" / "images").iterdir()} == {".jpg"}
    assert call("decide", tmp_path / "gated", "--policy", place.policy, "--json").json["changed"] == 0


def test_gate_of_own_latents(call: Call, place: Place, tmp_path: Path) -> None:
    z = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    np.savez(tmp_path / "own.npz", z=z)
    done = call(
        "gate",
        place.checkpoint,
        "--profile",
        place.profile,
        "--out",
        tmp_path / "g",
        "--latents",
        tmp_path / "own.npz",
        "--no-track",
        "--exit-zero",
        "--json",
    )
    assert done.code == 0, done.stderr
    assert done.json["samples"] == 20
    assert done.json["provenance"]["seed"] is None
    assert len(done.json["provenance"]["latents"]) == 64


def test_curvature_of_the_extremes_reaches_records_and_units(call: Call, place: Place, tmp_path: Path) -> None:
    assert gate(call, place, tmp_path / "g", "--no-track", "--curvature", 3).code == 0
    table = pq.read_table(tmp_path / "g" / "samples.parquet").to_pandas()
    assert table["cla/layer_1"].notna().sum() == 6
    units = pq.read_table(tmp_path / "g" / "units.parquet").to_pandas()
    assert units.loc[units["layer"] == 1, "cla"].notna().all()
    assert units.loc[units["layer"] == 0, "cla"].isna().all()


def test_a_batch_that_fails_its_suite_exits_with_1(call: Call, place: Place, tmp_path: Path) -> None:
    strict = {**POLICY, "batch": [{"id": "all_accepted", "metric": "accepted_share", "min": 0.999}]}
    (tmp_path / "strict.yaml").write_text(yaml.safe_dump(strict))
    done = gate(call, place, tmp_path / "g", "--no-track", "--policy", tmp_path / "strict.yaml")
    assert done.code == 1
    assert "all_accepted" in done.stdout
    assert (tmp_path / "g" / "summary.json").is_file()
    assert gate(call, place, tmp_path / "h", "--no-track", "--policy", tmp_path / "strict.yaml", "--exit-zero").code == 0


def test_a_handwritten_expectation_in_the_profile_counts(call: Call, place: Place, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(place.profile, tmp_path / "p")
    suite = json.loads((tmp_path / "p" / "suite.json").read_text())
    suite["summary"].append({"type": "expect_column_max_to_be_between", "kwargs": {"column": "rejected_share", "max_value": -1}})
    (tmp_path / "p" / "suite.json").write_text(json.dumps(suite))
    done = call("gate", place.checkpoint, "--profile", tmp_path / "p", "--out", tmp_path / "g", "--ids", "50", "--no-track", "--json")
    assert done.code == 1
    failed = [result["id"] for result in done.json["suite"]["results"] if not result["success"]]
    assert failed == ["custom-1"]


def test_decide_again(call: Call, place: Place, gated: Path, tmp_path: Path) -> None:
    same = call("decide", gated, "--policy", place.policy, "--json").json
    assert same["changed"] == 0
    looser = {**POLICY, "rules": [{"id": "low_rate", "score": "low_rate_0.3", "limit": {"quantile": 0.95}}]}
    (tmp_path / "looser.yaml").write_text(yaml.safe_dump(looser))
    done = call("decide", gated, "--policy", tmp_path / "looser.yaml", "--out", tmp_path / "new.parquet", "--json")
    assert done.json["after"]["accept"] > done.json["before"]["accept"]
    again = pq.read_table(tmp_path / "new.parquet").to_pandas()
    assert (again["verdict"] == "accept").sum() == done.json["after"]["accept"]


def test_a_stricter_policy_rejects_what_was_never_corrected(call: Call, gated: Path, tmp_path: Path) -> None:
    stricter = {**POLICY, "rules": [{"id": "low_rate", "score": "low_rate_0.3", "limit": {"quantile": 0.5}}]}
    (tmp_path / "stricter.yaml").write_text(yaml.safe_dump(stricter))
    done = call("decide", gated, "--policy", tmp_path / "stricter.yaml", "--json").json
    assert done["after"]["reject"] > done["before"]["reject"]
    assert done["to_gate_again"] > 0


def test_schema(call: Call) -> None:
    assert call("schema", "policy").json["title"] == "Policy"
    assert call("schema", "record").json["title"] == "SampleRecord"
    assert call("schema", "check").json["title"] == "CheckRecord"
    example = yaml.safe_load(call("schema", "--example").stdout)
    assert qualitygate.Policy.model_validate(example) == qualitygate.default_policy("dcgan")


def test_mlflow_gets_everything_and_nothing_reaches_stdout(call: Call, place: Place, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    done = gate(call, place, tmp_path / "g", "--tracking-uri", uri, "--json")
    assert done.code == 0, done.stderr
    run = MlflowClient(uri).get_run(done.json["mlflow_run"])
    assert run.data.metrics["accepted_share"] == done.json["metrics"]["accepted_share"]


def test_a_server_that_is_down_changes_nothing(call: Call, place: Place, tmp_path: Path) -> None:
    done = gate(call, place, tmp_path / "g", "--tracking-uri", "http://127.0.0.1:9", "--json")
    assert done.code == 0
    assert done.json["mlflow_run"] is None
    assert "qualitygate sync" in done.stderr
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert call("sync", tmp_path / "g", "--tracking-uri", uri, "--json").code == 0
