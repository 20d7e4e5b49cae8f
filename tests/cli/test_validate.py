"""`qualitygate validate` from end to end on a small checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from cli.conftest import Call, Called, Place
from PIL import Image

from qualitygate.records.validation import ValidationReport


@pytest.fixture
def profile(place: Place, tmp_path: Path) -> Path:
    """A copy, since the evidence is written into it."""
    return Path(shutil.copytree(place.profile, tmp_path / "profile"))


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Labels that say nothing."""
    drawn = np.random.default_rng(0).random(120) < 0.4
    rows = [f"{row},{'artifact' if bad else 'normal'}" for row, bad in enumerate(drawn)]
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(("id,label", *rows)), encoding="utf8")
    return path


def validate(call: Call, place: Place, profile: Path, *more: object) -> Called:
    return call("validate", place.checkpoint, "--profile", profile, "--samples", 60, "--curvature", 0, *more)


def test_it_says_that_scores_are_blind_and_the_gate_warns(call: Call, place: Place, profile: Path, labels: Path, tmp_path: Path) -> None:
    out = tmp_path / "v"
    done = validate(call, place, profile, "--labels", labels, "--label-seed", 3, "--out", out)
    assert done.code == 0, done.stderr
    for word in ("BLIND", "Evidence, the strongest first", "Nothing is recommended", "labels", str(out)):
        assert word in done.stdout
    report = ValidationReport.model_validate_json((out / "validation.json").read_bytes())
    assert report.evidence.recommended is None
    assert not (out / "recommended.yaml").exists()
    for path in (out / "figures").iterdir():
        with Image.open(path) as figure:
            assert figure.size[0] == 900
    assert json.loads((profile / "evidence.json").read_text())["seed"] == 1
    with pytest.warns(UserWarning, match="is blind to"):
        gated = call("gate", place.checkpoint, "--profile", profile, "--ids", 10, "--out", tmp_path / "set", "--no-track")
    assert gated.code in (0, 1), gated.stderr
    assert validate(call, place, profile, "--labels", labels, "--out", out).code == 2


def test_json_and_real_images(call: Call, place: Place, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from metrics.made_up import Projection

    from qualitygate.features import registry

    monkeypatch.setenv("QUALITYGATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(registry, "make_extractor", lambda *_, **__: Projection())
    images, classes = tmp_path / "real.npz", tmp_path / "classes.npy"
    np.savez(images, images=np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8))
    np.save(classes, np.arange(24) % 2)
    real = ("--real", images, "--real-classes", classes, "--samples", 100, "--class-samples", 40)
    done = validate(call, place, profile, *real, "--json", "--no-write")
    assert done.code == 0, done.stderr
    assert done.json["evidence"]["sources"][0]["kind"] == "realism"
    assert done.json["real"]["samples"] == 24
    assert not (profile / "evidence.json").exists()
    np.save(classes, np.arange(23))
    refused = validate(call, place, profile, *real)
    assert refused.code == 2
    assert "for each of the 24 real images" in refused.stderr


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--no-planted",), "no evidence"),
        (("--labels", "nowhere"), "There are no labels at nowhere"),
        (("--seed", 0), "seed of the calibration"),
    ],
)
def test_bad_input(call: Call, place: Place, profile: Path, more: tuple[str, ...], said: str) -> None:
    done = validate(call, place, profile, *more)
    assert done.code == 2
    assert said in done.stderr
