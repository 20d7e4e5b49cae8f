"""Rules on images, from end to end, on a small checkpoint with its discriminator; and what one command computed another does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from cli.conftest import POLICY, Call, Called, dcgan_state_dict, discriminator_state_dict
from metrics.made_up import Projection, Squares

from qualitygate import names
from qualitygate.features import registry
from qualitygate.features.cache import SampleFeatures
from qualitygate.features.extractor import Extractor
from qualitygate.latents import Sampling
from qualitygate.studies.check import model as checked_model
from qualitygate.testing.toys import random_patches

SAMPLES, PATHS = 64, 20
RULES: tuple[dict[str, Any], ...] = (
    {"metric": names.FID, "max": 1e6},
    {"metric": names.KID, "max": -1e6},
    {"metric": names.PPL, "max": 1e9},
    {"metric": names.DISCRIMINATOR, "min": -1e6},
    {"metric": names.PRECISION, "min": 0.0},
    {"metric": names.RECALL, "min": 0.0},
    {"metric": names.REALISM, "min": 0.0},
)


class Counted(Projection):
    """Random projections that count the images they were shown."""

    shown = 0

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        Counted.shown += len(images)
        return super().__call__(images)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache of its own, and no networks that take seconds to draw."""
    monkeypatch.setenv("QUALITYGATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(registry, "make_extractor", lambda *_, **__: Counted())
    monkeypatch.setattr(registry, "make_distance", lambda *_, **__: Squares())


def checkpoint(folder: Path, name: str, shift: float = 0.0) -> Path:
    """The small checkpoint, with its discriminator; biases of a layer shifted."""
    state = dcgan_state_dict()
    state["main.4.bias"] = state["main.4.bias"] + shift
    torch.save({"netG": state, "netD": discriminator_state_dict()}, folder / f"{name}.pt")
    return folder / f"{name}.pt"


@pytest.fixture
def real(tmp_path: Path) -> Path:
    np.savez(tmp_path / "real.npz", images=np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8))
    return tmp_path / "real.npz"


@pytest.fixture
def checked(call: Call, tmp_path: Path) -> Callable[..., Called]:
    """Checks by these rules, without MLflow."""

    def run(rules: tuple[dict[str, Any], ...], *arguments: object) -> Called:
        named = [{"id": rule["metric"].replace("/", "-"), **rule} for rule in rules]
        own = {"samples": SAMPLES, "budget": {"samples": SAMPLES}, "path_samples": PATHS, "rules": named}
        (tmp_path / "policy.yaml").write_text(yaml.safe_dump({**POLICY, "check": own}), encoding="utf8")
        return call("check", *arguments, "--policy", tmp_path / "policy.yaml", "--no-track", "--json")

    return run


def by_metric(done: Called) -> dict[str, dict[str, Any]]:
    return {one["metric"]: one for one in done.json["rules"]}


def test_a_check_says_what_metrics_says_and_its_features_are_reused(checked, call: Call, real: Path, tmp_path: Path) -> None:
    model = checkpoint(tmp_path, "model")
    done = checked(RULES, model, "--real", real)
    assert done.code == 1, done.stderr
    found = by_metric(done)
    states = {metric: one["state"] for metric, one in found.items()}
    assert states == {rule["metric"]: "failed" if rule["metric"] == names.KID else "passed" for rule in RULES}
    assert Counted.shown > 0

    Counted.shown = 0
    arguments = ("--real", real, "--samples", SAMPLES, "--path-samples", PATHS // 5, "--group-share", 0.1)
    measured = call("metrics", model, *arguments, "--json")
    assert measured.code == 0, measured.stderr
    groups = {row["group"]: row["measurements"] for row in measured.json["groups"]}
    made_anew = [row["samples"] for row in measured.json["groups"] if row["group"].startswith("psi_")]
    assert Counted.shown == 64 * len(made_anew), "only what no check had made: other images, in batches of 64"
    for metric, one in found.items():
        assert one["value"] == pytest.approx(groups[names.ALL][metric]["value"], rel=1e-6), metric
        assert one["samples"] == groups[names.ALL][metric]["samples"], metric


def test_a_baseline_is_calibrated_once(checked, real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    calibrate = checked_model.calibrate

    def counted(generator, *arguments, **named):
        seen.append(generator.identity().name)
        return calibrate(generator, *arguments, **named)

    monkeypatch.setattr(checked_model, "calibrate", counted)
    made = {"base": 0.0, "a": 1e-3, "b": 2e-3}
    baseline, *candidates = (checkpoint(tmp_path, name, shift) for name, shift in made.items())
    rules = tuple({"metric": metric, "worse_by": {"absolute": 1e6}} for metric in (names.KID, names.DISCRIMINATOR))
    looked = []
    for candidate in candidates:
        Counted.shown = 0
        done = checked(rules, candidate, "--baseline", baseline, "--real", real)
        assert done.code == 0, done.stderr
        assert all(one["difference"] is not None for one in done.json["rules"])
        looked.append(Counted.shown)
    assert sorted(seen[:2]) == ["a.pt", "base.pt"]
    assert seen[2:] == ["b.pt"]
    assert looked == [64 * 3, 64], "real images, baseline and candidate; then the candidate alone"


def test_an_extractor_in_place_of_the_policys_does_not_reach_the_profile(checked, call: Call, real: Path, tmp_path: Path) -> None:
    """It may name code, which a policy must not: a profile with it could not be read again."""
    one = checkpoint(tmp_path, "one")
    rules = ({"metric": names.PRECISION, "min": 0.0},)
    done = checked(rules, one, "--baseline", one, "--real", real, "--extractor", "module:mine:net@8", "--out", tmp_path / "c")
    assert done.code == 0, done.stderr
    assert "module:" not in (tmp_path / "c" / "profile" / "policy.yaml").read_text(encoding="utf8")
    gated = call("gate", one, "--profile", tmp_path / "c" / "profile", "--ids", "5", "--out", tmp_path / "g", "--no-track", "--exit-zero")
    assert gated.code == 0, gated.stderr
    assert "computed anew" not in checked(rules, one, "--baseline", one, "--real", real).stderr


def test_too_few_samples_for_fid_are_inconclusive(checked, real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide: Extractor = random_patches(3, channels=SAMPLES)
    monkeypatch.setattr(registry, "make_extractor", lambda *_, **__: wide)
    done = checked((RULES[0], RULES[1]), checkpoint(tmp_path, "model"), "--real", real)
    found = by_metric(done)
    assert done.code == 1, "KID is told, and is beyond its limit"
    assert found[names.FID]["state"] == "inconclusive"
    assert "samples for 64 features; KID has no such limit" in found[names.FID]["note"]
    alone = checked((RULES[0],), tmp_path / "model.pt", "--real", real)
    assert alone.code == 4
    assert json.loads(alone.stdout)["verdict"] == "inconclusive"


def test_more_features_join_those_that_are_kept(tmp_path: Path) -> None:
    from small import small_dcgan

    shelf = SampleFeatures(small_dcgan(), Sampling(), 1, Projection())
    assert shelf.known(10).shape == (0, 6)
    rows = np.arange(60, dtype=np.float32).reshape(10, 6)
    shelf.keep(rows[:4])
    shelf.keep(rows)
    shelf.keep(rows[:7])
    assert np.array_equal(shelf.known(99), rows)
    assert np.array_equal(shelf.known(3), rows[:3])
    for other in (
        SampleFeatures(small_dcgan(seed=1), Sampling(), 1, Projection()),
        SampleFeatures(small_dcgan(), Sampling(psi=0.5), 1, Projection()),
        SampleFeatures(small_dcgan(), Sampling(), 2, Projection()),
        SampleFeatures(small_dcgan(), Sampling(), 1, Projection(seed=1)),
    ):
        assert len(other.known(9)) == 0
