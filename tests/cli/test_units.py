"""`units` and `label` from end to end on a small checkpoint that has its discriminator."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from cli.conftest import POLICY, Call, dcgan_state_dict, discriminator_state_dict
from mlflow import MlflowClient
from PIL import Image

from qualitygate import names
from qualitygate.units.score import load_unit_scores


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, and its profile."""
    from qualitygate.checkpoints.load import load_generator
    from qualitygate.gating.calibrate import calibrate
    from qualitygate.policy.model import load_policy

    made = tmp_path_factory.mktemp("units")
    torch.save({"netG": dcgan_state_dict(), "netD": discriminator_state_dict()}, made / "model.pt")
    (made / "policy.yaml").write_text(yaml.safe_dump(POLICY), encoding="utf8")
    calibrate(load_generator(made / "model.pt"), load_policy(made / "policy.yaml")).save(made / "profile")
    return made


def units(call: Call, folder: Path, *more: object):
    return call(
        "units",
        folder / "model.pt",
        "--profile",
        folder / "profile",
        "--extractor",
        "discriminator",
        "--samples",
        100,
        "--group",
        60,
        "--curvature",
        2,
        "--images",
        20,
        "--top",
        3,
        *more,
    )


def test_every_source_from_stand_ins_reaches_disk_and_mlflow(call: Call, folder: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    done = units(call, folder, "--out", tmp_path / "u", "--tracking-uri", uri, "--json")
    assert done.code == 0, done.stderr
    sources = {"cla", "low_rate_activity", "defective_score", "unit_fid", "negative_contribution", "joined_rank"}
    scores = load_unit_scores(tmp_path / "u" / "units.parquet")
    assert scores.keys() == sources == done.json["sources"].keys()
    assert all(np.isfinite(one.of(layer)).all() for one in scores.values() for layer in one.layers)
    assert done.json["labels"]["source"].startswith("nobody: the 60 highest and lowest")
    assert done.json["classifier"]["validation_accuracy"] > 0.5
    assert done.json["sources"]["unit_fid"]["against"] == "the generator's own samples"
    assert set(done.json["clusters"]) == {f"layer{layer}/unit{unit}" for layer, found in done.json["top"].items() for unit in found}
    assert json.loads((tmp_path / "u" / "comparison.json").read_text())["agreement"] == done.json["agreement"]
    with Image.open(tmp_path / "u" / "sheets" / "layer_0.png") as sheet:
        assert sheet.width > 100

    client = MlflowClient(uri)
    run = client.get_run(done.json["mlflow_run"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["classifier_validation_accuracy"] == done.json["classifier"]["validation_accuracy"]
    table = pd.read_json(client.download_artifacts(run.info.run_id, names.RANKING_TABLE), orient="split")
    assert list(table.columns[:3]) == ["unit_key", "layer", "unit"]
    assert table["joined_rank"].is_monotonic_decreasing


def test_a_study_of_some_sources_is_shown(call: Call, folder: Path) -> None:
    done = units(call, folder, "--sources", "low_rate,contribution")
    assert done.code == 0, done.stderr
    assert "negative_contribution" in done.stdout
    assert "rank correlation" in done.stdout
    assert "Labels: nobody" in done.stdout
    assert "Classifier" not in done.stdout


def test_without_mlflow_the_study_stands(call: Call, folder: Path, tmp_path: Path) -> None:
    done = units(call, folder, "--sources", "low_rate", "--out", tmp_path / "u", "--tracking-uri", "http://127.0.0.1:9", "--json")
    assert done.code == 0
    assert done.json["mlflow_run"] is None
    assert "MLflow was not reached" in done.stderr


def test_labels_made_and_read_and_used(call: Call, folder: Path, tmp_path: Path) -> None:
    done = call("label", folder / "model.pt", "--profile", folder / "profile", "--out", tmp_path / "t", "--count", 100, "--json")
    assert done.code == 0, done.stderr
    assert done.json["groups"] == {"highest": 35, "lowest": 35, "random": 30}
    assert {one.name for one in (tmp_path / "t").iterdir()} == {
        "images",
        "tasks.json",
        "labels.csv",
        "key.json",
        "README.md",
        "label_studio.xml",
    }
    key = json.loads((tmp_path / "t" / "key.json").read_text())
    asked = [line.split(",")[0] for line in (tmp_path / "t" / "labels.csv").read_text().splitlines()[1:]]
    assert sorted(map(int, asked)) == sorted(one for ids in key["groups"].values() for one in ids)
    assert asked != sorted(asked)  # nobody sees from the order which group an image is of
    assert len(list((tmp_path / "t" / "images").iterdir())) == 100

    worst = set(key["groups"]["highest"])
    answers = [f"{one},{'artifact' if int(one) in worst else 'normal'},ann" for one in asked]
    answers += [f"{key['groups']['random'][0]},artifact,bob"]
    (tmp_path / "answers.csv").write_text("\n".join(["id,label,rater", *answers]))
    done = call("label", "--read", tmp_path / "answers.csv", "--tasks", tmp_path / "t", "--out", tmp_path / "labels.csv", "--json")
    assert done.code == 0, done.stderr
    assert (done.json["artifact"], done.json["normal"], done.json["unanswered"]) == (35, 64, 0)
    assert done.json["contradictions"] == [key["groups"]["random"][0]]
    assert done.json["groups"]["highest"] == {"labelled": 35, "artifact": 35}
    assert done.json["raters"]["bob"] == {"artifact": 1, "normal": 0}

    done = units(call, folder, "--labels", tmp_path / "labels.csv", "--sources", "low_rate", "--json")
    assert done.json["labels"]["artifact"] == 35
    assert done.json["sources"]["low_rate_activity"]["samples"] == 35


def test_answers_of_samples_that_nobody_asked_about(call: Call, folder: Path, tmp_path: Path) -> None:
    assert call("label", folder / "model.pt", "--profile", folder / "profile", "--out", tmp_path / "t", "--count", 10).code == 0
    (tmp_path / "answers.csv").write_text("id,label\n5,normal\n")
    done = call("label", "--read", tmp_path / "answers.csv", "--tasks", tmp_path / "t", "--out", tmp_path / "labels.csv")
    assert done.code == 2
    assert "unknown ids: 5" in done.stderr
    assert not (tmp_path / "labels.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sources", "beauty"], "no such unit score"),
        (["--score", "beauty"], "no score beauty"),
        (["--extractor", "beauty"], "no extractor of this name"),
        (["--group", 200], "Not enough samples for two groups"),
        (["--labels", "missing.csv"], "no labels at missing.csv"),
    ],
)
def test_bad_input_exits_with_2(call: Call, folder: Path, arguments: list[object], message: str) -> None:
    done = units(call, folder, *arguments)
    assert done.code == 2
    assert message in done.stderr


def test_more_tasks_than_the_calibration_scored(call: Call, folder: Path, tmp_path: Path) -> None:
    arguments = ("label", folder / "model.pt", "--profile", folder / "profile", "--out", tmp_path / "t")
    done = call(*arguments, "--count", 301)
    assert done.code == 2
    assert "1 to 300 samples" in done.stderr
    assert not (tmp_path / "t").exists()


def test_label_needs_to_know_what_to_do(call: Call, folder: Path, tmp_path: Path) -> None:
    for arguments in ([], [folder / "model.pt"], ["--read", "x.csv"], [folder / "model.pt", "--read", "x.csv", "--tasks", "t"]):
        done = call("label", *arguments, "--out", tmp_path / "o")
        assert done.code == 2
        assert "not clear what to do" in done.stderr
