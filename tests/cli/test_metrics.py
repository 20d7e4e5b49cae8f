"""`qualitygate metrics` from end to end on a small checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from cli.conftest import Call, Place
from PIL import Image

from qualitygate.records.metrics import MetricsReport


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("real") / "real.npz"
    np.savez(path, images=np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8))
    return path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Random projections in place of networks that take seconds to draw."""
    from metrics.made_up import Projection, Squares

    from qualitygate.features import registry

    monkeypatch.setenv("QUALITYGATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(registry, "make_extractor", lambda *_, **__: Projection())
    monkeypatch.setattr(registry, "make_distance", lambda *_, **__: Squares())


def metrics(call: Call, place: Place, *more: object):
    return call("metrics", place.checkpoint, "--profile", place.profile, "--samples", 60, "--path-samples", 3, "--group-share", 0.2, *more)


@pytest.mark.usefixtures("quick")
def test_the_folder_and_the_table(call: Call, place: Place, real: Path, tmp_path: Path) -> None:
    out = tmp_path / "m"
    done = metrics(call, place, "--real", real, "--out", out)
    assert done.code == 0, done.stderr
    assert {str(one.relative_to(out)) for one in out.rglob("*") if one.is_file()} == {
        "metrics.json",
        "groups.parquet",
        "samples.parquet",
        "figures/precision_recall.png",
        "figures/groups.png",
    }
    report = MetricsReport.model_validate_json((out / "metrics.json").read_bytes())
    assert report.score == "low_rate_0.3"  # the first rule's
    assert report.real.samples == 24
    groups = pq.read_table(out / "groups.parquet").to_pandas()
    assert {"group", "metric", "value", "low", "high", "spread", "samples", "extractor", "note"} <= set(groups.columns)
    samples = pq.read_table(out / "samples.parquet").to_pandas()
    assert samples["id"].tolist() == list(range(60))
    assert {"realism", "rarity", "precision", "density", "ppl", "low_rate_0.3", "verdict"} <= set(samples.columns)
    for path in (out / "figures").iterdir():
        with Image.open(path) as figure:
            assert figure.size[0] == 900
    for word in ("lowest", "random", "psi 0.5", "realism", "rarity", "PPL", "projection 6"):
        assert word in done.stdout
    assert metrics(call, place, "--out", out).code == 2


@pytest.mark.usefixtures("quick")
def test_json_without_real_images(call: Call, place: Place) -> None:
    done = metrics(call, place, "--json", "--path", "ppl_z_end", "--score", "cla/layer_1")
    assert done.code == 0, done.stderr
    assert done.json["score"] == "cla/layer_1"
    assert done.json["extractor"] is None
    assert done.json["out"] is None
    whole = done.json["groups"][0]
    assert set(whole["measurements"]) == {"ppl", "ppl_z_end"}
    assert any("real images" in one for one in done.json["left_out"])


@pytest.mark.usefixtures("quick")
def test_what_could_not_be_logged_is_sent_later(call: Call, place: Place, real: Path, tmp_path: Path) -> None:
    out = tmp_path / "m"
    done = metrics(call, place, "--real", real, "--out", out, "--track", "--tracking-uri", "http://127.0.0.1:9")
    assert done.code == 0, done.stderr
    assert "qualitygate sync" in done.stderr
    assert json.loads((out / "tracking.json").read_text())["state"] == "pending"


@pytest.mark.usefixtures("quick")
def test_a_gated_set_is_measured_as_it_was_judged(call: Call, place: Place, tmp_path: Path) -> None:
    gated = tmp_path / "gated"
    assert call("gate", place.checkpoint, "--profile", place.profile, "--out", gated, "--ids", 40, "--seed", 5, "--no-track").code == 0
    done = call("metrics", place.checkpoint, "--gated", gated, "--distance", "none", "--out", tmp_path / "m", "--json")
    assert done.code == 0, done.stderr
    assert (done.json["seed"], done.json["samples"]) == (5, 40)
    verdicts = [pq.read_table(one / "samples.parquet")["verdict"].to_pylist() for one in (gated, tmp_path / "m")]
    assert verdicts[0] == verdicts[1]
    both = call("metrics", place.checkpoint, "--gated", gated, "--profile", place.profile)
    assert both.code == 2
    assert "--gated alone" in both.stderr


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--track",), "give --out FOLDER"),
        (("--path", "ppl_y"), "ppl_y"),
        (("--score", "low_rate_0.9"), "low_rate_0.9"),
        (("--real", "nowhere"), "nowhere"),
        (("--extractor", "eyes", "--real", "digits"), "eyes"),
        (("--extractor", "discriminator", "--real", "digits"), "no discriminator to look with"),
        (("--distance", "miles"), "miles"),
    ],
)
def test_bad_input(call: Call, place: Place, more: tuple[str, ...], said: str) -> None:
    distance = () if "--distance" in more else ("--distance", "none")
    done = metrics(call, place, *distance, *more)
    assert done.code == 2
    assert said in done.stderr
