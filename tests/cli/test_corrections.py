"""``qualitygate corrections`` from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from cli.conftest import POLICY, Call, Place
from PIL import Image


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random patches in place of networks that take seconds to draw."""
    from qualitygate.features import registry
    from qualitygate.testing.toys import random_patches

    monkeypatch.setattr(registry, "make_extractor", lambda *_, **__: random_patches(3))


def study(call: Call, place: Place, *more: object):
    return call("corrections", place.checkpoint, "--profile", place.profile, "--samples", 12, "--pool", 80, *more)


def test_every_method_with_sheet_and_numbers(call: Call, place: Place, tmp_path: Path) -> None:
    done = study(call, place, "--out", tmp_path / "study", "--show", 4, "--json")
    assert done.code == 0, done.stderr
    found = {one["name"]: one for one in done.json["corrections"]}
    assert {"random_ablation", "sequential_ablation, the policy's", "local_region, low-rate neurons"} <= found.keys()
    assert "only the last layer 2 is edited" in done.json["left_out"]["single_ablation"]
    assert "set calibration.curvature_samples" in done.json["left_out"]["zero_ablation, CLA"]
    kept = json.loads((tmp_path / "study" / "corrections.json").read_text())
    assert kept["corrections"] == done.json["corrections"]
    rows = pq.read_table(tmp_path / "study" / "corrections.parquet").to_pandas()
    of_one = rows[(rows["correction"] == "random_ablation")]
    table = [one for one in done.json["rows"] if one["method"]]
    at = next(one for one in table if one["correction"] == "random_ablation" and one["strength"] == 0.3)
    assert of_one["passed"].mean() == at["passed"]
    assert len(rows) == 12 * sum(one["strength"] is not None for one in table)
    assert {one.name for one in (tmp_path / "study").iterdir()} == {
        "corrections.json",
        "corrections.parquet",
        "sheet.png",
        "steps.png",
        "strengths.png",
        "table.md",
        "trade.png",
    }
    with Image.open(tmp_path / "study" / "sheet.png") as sheet:
        assert sheet.height > 128 * len(found)
    again = study(call, place, "--out", tmp_path / "study")
    assert again.code == 2


def test_some_methods_as_a_table(call: Call, place: Place) -> None:
    done = study(call, place, "--method", "random_ablation", "--method", "zero_ablation")
    assert done.code == 0, done.stderr
    assert "random_ablation" in done.stdout
    assert "local_region" not in done.stdout
    assert "Left out: zero_ablation, CLA" in done.stdout


def test_low_rate_beside_high_rate(call: Call, place: Place) -> None:
    found = study(call, place, "--grid", "0.3,0.7", "--json").json
    names = [one["name"] for one in found["corrections"]] + list(found["left_out"])
    assert len(names) == 3 * 2 * 2
    assert {"low-rate, layers 0,1, R = 0.3", "high-rate, layers 1, R = 0.7"} <= set(names)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--method", "magic"), "no such correction"),
        (("--grid", "a,b"), "These are no rates"),
        (("--grid", "2"), "no rates"),
        (("--seed", 0), "seed of the calibration"),
        (("--samples", 99), "99 of 80"),
    ],
)
def test_bad_input(call: Call, place: Place, options: tuple[object, ...], words: str) -> None:
    done = study(call, place, *options)
    assert done.code == 2
    assert words in done.stderr


def test_the_gate_with_another_method_and_deciding_again(call: Call, place: Place, tmp_path: Path) -> None:
    correction = {"method": "zero_ablation", "layers": [0, 1], "units": [1, 3], "judged_at": 0.3, "limit": {"quantile": 0.9}}
    (tmp_path / "units.yaml").write_text(yaml.safe_dump({**POLICY, "correction": correction}))
    done = call(
        "gate",
        place.checkpoint,
        "--profile",
        place.profile,
        "--out",
        tmp_path / "g",
        "--ids",
        120,
        "--no-track",
        "--policy",
        tmp_path / "units.yaml",
        "--exit-zero",
        "--json",
    )
    assert done.code == 0, done.stderr
    failed = [one["id"] for one in done.json["suite"]["results"] if not one["success"]]
    assert not any(one.startswith("samples/") for one in failed)
    table = pq.read_table(tmp_path / "g" / "samples.parquet").to_pandas()
    assert table["zero_ablation_1/tried"].sum() > 10
    assert set(table["strength"].dropna()) <= {1.0, 3.0}
    again = call("decide", tmp_path / "g", "--policy", tmp_path / "units.yaml", "--json").json
    assert again["changed"] == 0
    other = call("decide", tmp_path / "g", "--policy", place.policy, "--json").json
    assert other["after"]["correct"] == 0


@pytest.mark.usefixtures("quick")
def test_units_layers_strengths_and_quality(call: Call, place: Place, tmp_path: Path) -> None:
    from qualitygate.units.score import UnitScores, save_unit_scores

    (tmp_path / "units").mkdir()
    given = UnitScores({0: np.linspace(0.1, 0.6, 12), 1: np.linspace(0.6, 1.0, 8)}, "defective_score")
    save_unit_scores(tmp_path / "units" / "units.parquet", [given])
    np.savez(tmp_path / "real.npz", np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8))
    more = (
        "--method",
        "zero_ablation",
        "--units",
        tmp_path / "units",
        "--edit",
        "0",
        "--edit",
        "0,1",
        "--strengths",
        "zero_ablation=0.1,0.5",
        "--real",
        tmp_path / "real.npz",
        "--extractor",
        "random-vgg16-32",
        "--harm",
        8,
        "--out",
        tmp_path / "study",
    )
    keep = "zero_ablation, units/defective_score, layers 0,1"
    done = study(call, place, *more, "--keep", keep, "--json")
    assert done.code == 0, done.stderr
    rows = {(one["correction"], one["strength"]): one for one in done.json["rows"]}
    assert rows["untouched", None]["fid"] > 0
    assert rows["normal samples", None]["realism"] > 0
    assert {"fid", "realism", "precision", "harm", "moved"} <= rows[keep, 0.5].keys()
    assert rows[keep, 0.5]["moved"] > rows[keep, 0.1]["moved"]
    assert ("zero_ablation, random units, layers 0", 0.1) in rows
    assert done.json["against"] | {"name": ""} == {"name": "", "images": 20, "real": True, "extractor": done.json["against"]["extractor"]}
    assert (tmp_path / "study" / "layers.png").stat().st_size > 1000

    assert call("label", "--corrected", tmp_path / "study", "--out", tmp_path / "round").code == 0
    lines = (tmp_path / "round" / "labels.csv").read_text().splitlines()[1:]
    answers = [f"{line.split(',')[0]},{'left' if ',pair,' in line else 'normal'},ann" for line in lines]
    (tmp_path / "answers.csv").write_text("\n".join(["id,label,rater", *answers]))
    read = ("label", "--read", tmp_path / "answers.csv", "--tasks", tmp_path / "round", "--out")
    found = call(*read, tmp_path / "a.csv", "--json").json
    assert (found["correction"], found["answers"], found["corrected"]) == (keep, 36, 1.0)
    assert "normal before" in call(*read, tmp_path / "b.csv").stdout


@pytest.mark.usefixtures("quick")
def test_artifacts_by_label_against_normal_samples(call: Call, place: Place, tmp_path: Path) -> None:
    said = "".join(f"{one},{'artifact' if one < 5 else 'normal'}\n" for one in range(40))
    (tmp_path / "labels.csv").write_text(f"id,label\n{said}")
    done = study(call, place, "--labels", tmp_path / "labels.csv", "--method", "random_ablation", "--extractor", "random-vgg16-32")
    assert done.code == 0, done.stderr
    assert "5 artifacts according to" in done.stdout
    assert "not real images" in done.stdout


def test_a_planted_generator_against_the_truth(call: Call, place: Place, tmp_path: Path) -> None:
    from qualitygate import save_generator
    from qualitygate.checkpoints.load import load_generator
    from qualitygate.gating.calibrate import calibrate
    from qualitygate.policy.model import load_policy
    from qualitygate.testing.planted import Defect, load_planted, plant

    made = plant(load_generator(place.checkpoint), Defect("4x4", 2, 0.1, mark="blob"), 0)
    save_generator(made.generator, tmp_path / "planted.safetensors")
    calibrate(load_planted(tmp_path / "planted.safetensors").generator, load_policy(place.policy)).save(tmp_path / "p")
    done = call(
        "corrections",
        tmp_path / "planted.safetensors",
        "--planted",
        "--profile",
        tmp_path / "p",
        "--samples",
        8,
        "--pool",
        200,
        "--method",
        "sequential_ablation",
        "--harm",
        8,
        "--json",
    )
    assert done.code == 0, done.stderr
    untouched, first = done.json["rows"][:2]
    assert (untouched["correction"], untouched["repaired"], untouched["damage"]) == ("untouched", 0.0, 0.0)
    assert {"repaired", "mark_gone", "damage", "harm"} <= first.keys()
