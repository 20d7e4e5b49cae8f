"""``qualitygate corrections`` from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from cli.conftest import Call, Place
from PIL import Image


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
    assert of_one["passed"].mean() == found["random_ablation"]["strengths"][0]["passed"]
    assert len(rows) == 12 * sum(len(one["strengths"]) for one in found.values())
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
    [(("--method", "magic"), "no such correction"), (("--grid", "a,b"), "These are no rates"), (("--grid", "2"), "no rates"),
     (("--seed", 0), "seed of the calibration"), (("--samples", 99), "99 of 80")],
)  # fmt: skip
def test_bad_input(call: Call, place: Place, options: tuple[object, ...], words: str) -> None:
    done = study(call, place, *options)
    assert done.code == 2
    assert words in done.stderr
