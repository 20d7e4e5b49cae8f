"""``qualitygate gate`` from end to end: shards, and what one folder has in common with them."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from cli.conftest import POLICY, Call, Called, Place

from qualitygate.produce.records import PROVENANCE

DOWN = "http://127.0.0.1:9"


def produce(call: Call, place: Place, out: Path | str, *more: object) -> Called:
    return call(
        "gate", place.checkpoint, "--profile", place.profile, "--out", out, "--shards", "webdataset", "--shard-size", 64, "--json", *more
    )


def test_so_many_images(call: Call, place: Place, tmp_path: Path) -> None:
    done = produce(call, place, tmp_path / "set", "--accepted", 70, "--no-track")
    assert done.code == 0, done.stderr
    assert done.json["accepted"] + done.json["corrected"] == 70
    table = pq.read_table(tmp_path / "set" / "manifest.parquet").to_pydict()
    assert sum(table["accepted"]) + sum(table["corrected"]) == 70
    page = (tmp_path / "set" / "report.html").stat()
    again = produce(call, place, tmp_path / "set", "--accepted", 70, "--no-track")
    assert (again.code, again.json) == (0, done.json)
    assert (tmp_path / "set" / "report.html").stat() == page
    other = produce(call, place, tmp_path / "set", "--accepted", 71, "--no-track")
    assert other.code == 2
    assert "under another plan" in other.stderr


def test_one_folder_of_so_many_images_by_several_workers(call: Call, place: Place, tmp_path: Path) -> None:
    def gate(out: str, *more: object) -> Called:
        common = ("--profile", place.profile, "--out", tmp_path / out, "--no-track", "--json", "--shard-size", 64)
        return call("gate", place.checkpoint, *common, *more)

    done = gate("a", "--accepted", 150, "--workers", 2)
    assert done.code == 0, done.stderr
    assert done.json["accepted"] + done.json["corrected"] == 150 == len(list((tmp_path / "a" / "images").iterdir()))
    same = gate("b", "--ids", done.json["samples"])
    for table in ("samples.parquet", "units.parquet"):
        assert pq.read_table(tmp_path / "a" / table).to_pandas().equals(pq.read_table(tmp_path / "b" / table).to_pandas())
    assert {one.name for one in (tmp_path / "a").iterdir()} == {one.name for one in (tmp_path / "b").iterdir()}
    counts = ("samples", "accepted", "corrected", "rejected", "borderline", "reasons", "limits")
    assert {name: done.json[name] for name in counts} == {name: same.json[name] for name in counts}
    again = gate("a", "--accepted", 150, "--workers", 2)
    assert again.code == 2
    assert "exists already" in again.stderr
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a", "b"]


def test_own_latents_and_records_alone_in_shards(call: Call, place: Place, tmp_path: Path) -> None:
    z = np.random.default_rng(0).normal(size=(100, 8)).astype(np.float32)
    np.savez(tmp_path / "own.npz", z=z)
    common = ("--profile", place.profile, "--latents", tmp_path / "own.npz", "--no-track", "--json", "--shard-size", 64)
    shards = call("gate", place.checkpoint, *common, "--out", tmp_path / "shards", "--shards", "parquet", "--no-images")
    folder = call("gate", place.checkpoint, *common, "--out", tmp_path / "folder")
    assert (shards.code, folder.code) == (0, 0), shards.stderr + folder.stderr
    rows = [
        pq.read_table(tmp_path / "shards" / "records" / name)
        for name in sorted(one.name for one in (tmp_path / "shards" / "records").iterdir())
    ]
    verdicts = [verdict for table in rows for verdict in table["verdict"].to_pylist()]
    assert pq.read_table(tmp_path / "folder" / "samples.parquet")["verdict"].to_pylist() == verdicts
    assert not (tmp_path / "shards" / "shards").exists()
    assert shards.json["provenance"]["latents"] == folder.json["provenance"]["latents"]


def test_a_drifting_run_stops_with_exit_code_1_and_names_the_expectation(call: Call, place: Place, tmp_path: Path) -> None:
    """The profile's calibration scores are a third of what the checkpoint has."""
    from qualitygate.storage import file_sha256

    shutil.copytree(place.profile, tmp_path / "p")
    table = pq.read_table(tmp_path / "p" / "calibration.parquet").to_pandas()
    scores = [name for name in table if name.startswith("low_rate")]
    table[scores] = np.floor(table[scores] / 3)
    table.to_parquet(tmp_path / "p" / "calibration.parquet")
    info = json.loads((tmp_path / "p" / "profile.json").read_text())
    info["files"]["calibration.parquet"] = file_sha256(tmp_path / "p" / "calibration.parquet")
    (tmp_path / "p" / "profile.json").write_text(json.dumps(info))
    drifting = Place(place.checkpoint, place.policy, tmp_path / "p")
    done = produce(call, drifting, tmp_path / "set", "--ids", "0:6400", "--no-track", "--shard-size", 320)
    assert done.code == 1
    failed = {one["id"] for one in done.json["suite"]["results"] if not one["success"]}
    assert "watch/drift/low_rate_0.3" in failed
    assert done.json["samples"] < 6400  # stopped
    shown = call(
        "gate",
        place.checkpoint,
        "--profile",
        tmp_path / "p",
        "--out",
        tmp_path / "set",
        "--shards",
        "webdataset",
        "--ids",
        "0:6400",
        "--no-track",
        "--shard-size",
        320,
    )
    assert shown.code == 1
    assert "watch/drift/low_rate_0.3" in shown.stdout


def test_a_batch_that_fails_its_suite_exits_with_1(call: Call, place: Place, tmp_path: Path) -> None:
    strict = {**POLICY, "batch": [{"id": "all_accepted", "metric": "accepted_share", "min": 0.999}]}
    (tmp_path / "strict.yaml").write_text(yaml.safe_dump(strict))
    done = produce(call, place, tmp_path / "set", "--ids", "0:64", "--no-track", "--policy", tmp_path / "strict.yaml")
    assert done.code == 1
    assert "all_accepted" in {one["id"] for one in done.json["suite"]["results"] if not one["success"]}


@pytest.mark.slow
def test_mlflow_that_is_down_changes_no_verdict_and_is_told_later(call: Call, place: Place, tmp_path: Path) -> None:
    start = time.monotonic()
    done = produce(call, place, tmp_path / "set", "--ids", "0:64", "--tracking-uri", DOWN)
    assert done.code == 0, done.stderr
    assert time.monotonic() - start < 60
    assert done.json["mlflow_run"] is None
    assert f"qualitygate sync {tmp_path / 'set'}" in done.stderr
    plain = produce(call, place, tmp_path / "plain", "--ids", "0:64", "--no-track")
    same = ("samples", "accepted", "corrected", "rejected", "reasons", "limits")
    assert {key: done.json[key] for key in same} == {key: plain.json[key] for key in same}
    sent = call("sync", tmp_path / "set", "--tracking-uri", f"sqlite:///{tmp_path / 'mlflow.db'}", "--json")
    assert sent.code == 0, sent.stderr
    assert sent.json[str(tmp_path / "set")]["state"] == "sent"


@pytest.mark.slow
def test_mlflow_that_goes_down_half_way_is_told_the_rest_later(
    call: Call, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    given = []

    def refused(self: MlflowClient, run_id: str, path: str, *more: object) -> None:
        given.append(run_id)
        if len(given) > 1:
            raise ConnectionError("connection refused")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifact", refused)
        done = produce(call, place, tmp_path / "set", "--ids", "0:64", "--tracking-uri", uri)
    assert done.code == 0, done.stderr
    assert len(given) == 2
    assert json.loads((tmp_path / "set" / "tracking.json").read_text())["state"] == "pending"
    sent = call("sync", tmp_path / "set", "--json").json[str(tmp_path / "set")]
    assert (sent["state"], sent["run_id"]) == ("sent", given[0])
    names = [file.path for file in MlflowClient(uri).list_artifacts(given[0])]
    assert {"summary.json", "manifest.parquet", "policy.yaml", "suite.json", "units.parquet"} <= set(names)
    assert {"report.html", "survey.parquet", "exhibit.parquet", "gallery", "figures", "images"} <= set(names)


def test_a_device_that_is_not_there_is_said_before_anything_is_loaded(call: Call, place: Place, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = produce(call, place, tmp_path / "set", "--ids", "0:64", "--device", "cuda", "--workers", 8)
    assert done.code == 2
    assert "Cannot run on cuda" in done.stderr
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--shards", "folder"), "neither --ids nor --accepted"),
        (("--shards", "folder", "--ids", "0:9", "--accepted", "3"), "both --ids and --accepted"),
        (("--shards", "folder", "--ids", "0:9", "--curvature", "2"), "--curvature cannot be used here"),
        (("--latents", "own.npz", "--accepted", "3"), "both --accepted and --latents"),
        (("--shards", "folder", "--ids", "0:9", "--out", "nowhere://x"), "Cannot use the store"),
    ],
)
def test_options_that_do_not_go_together(call: Call, place: Place, tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    done = call("gate", place.checkpoint, "--profile", place.profile, "--out", tmp_path / "set", *options)
    assert done.code == 2
    assert said in done.stderr


def test_images_in_bfloat16_by_a_profile_in_bfloat16(call: Call, place: Place, tmp_path: Path) -> None:
    lower = ("--precision", "bfloat16")
    learned = call("calibrate", place.checkpoint, "--policy", place.policy, "--out", tmp_path / "profile", "--json", *lower)
    assert (learned.code, learned.json["precision"]) == (0, "bfloat16"), learned.stderr
    gate = ("gate", place.checkpoint, "--profile", tmp_path / "profile", "--ids", 40, "--no-track")
    refused = call(*gate, "--out", tmp_path / "a")
    assert refused.code == 2
    assert "another precision" in refused.stderr
    assert "--precision bfloat16" in refused.stderr
    done = call(*gate, "--out", tmp_path / "a", *lower)
    assert done.code == 0, done.stderr
    provenance = json.loads(pq.read_metadata(tmp_path / "a" / "samples.parquet").metadata[PROVENANCE.encode()])
    assert (provenance["precision"], provenance["profile_id"]) == ("bfloat16", learned.json["profile_id"])
