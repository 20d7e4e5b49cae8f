"""Bad input: one clear message with what was found, what was needed and the way out; the right exit code; nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from cli.conftest import POLICY, Call, Called, Place, dcgan_state_dict

import qualitygate


def complains(done: Called, *words: str, code: int = 2) -> None:
    assert done.code == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    for word in ("found:", *words):
        assert word in done.stderr


def gate(call: Call, place: Place, out: Path, *more: object) -> Called:
    return call("gate", place.checkpoint, "--profile", place.profile, "--out", out, "--ids", "20", "--no-track", *more)


def nothing_left(folder: Path, *names: str) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_no_such_file(call: Call, tmp_path: Path) -> None:
    complains(call("inspect", tmp_path / "no.pt"), "no.pt", "No such file")


def test_a_web_page(call: Call, tmp_path: Path) -> None:
    (tmp_path / "page.pt").write_text("<!DOCTYPE html><html><body>Sign in</body></html>")
    complains(call("inspect", tmp_path / "page.pt"), "web page")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_cut_off_archive(call: Call, place: Place, tmp_path: Path, share: float) -> None:
    data = place.checkpoint.read_bytes()
    (tmp_path / "cut.pt").write_bytes(data[: int(len(data) * share)])
    complains(call("inspect", tmp_path / "cut.pt"), "needed:", "what to do:")


def test_a_pickle_that_would_run_code(call: Call, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"G_ema": Payload()}))
    complains(call("inspect", tmp_path / "evil.pkl"), "system")
    assert not (tmp_path / "ran").exists()


def test_a_state_dict_of_unknown_shape(call: Call, tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(10, 5), "fc.bias": torch.zeros(10)}, tmp_path / "classifier.pt")
    complains(call("inspect", tmp_path / "classifier.pt"), "fc.weight", "closest")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--image-quality", 90), ("90 with png", "needed: webp or jpeg", "--png-level")),
        (("--image-format", "webp", "--png-level", 1), ("1 with webp", "needed: png", "--image-quality")),
        (("--image-format", "jpeg", "--no-images"), ("--no-images with options of their format", "one of both")),
    ],
)
def test_options_that_do_not_fit_the_format(
    call: Call, place: Place, tmp_path: Path, options: tuple[object, ...], words: tuple[str, ...]
) -> None:
    complains(gate(call, place, tmp_path / "out", *options), *words)
    nothing_left(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(call: Call, tmp_path: Path, value: float) -> None:
    state = dcgan_state_dict()
    state["main.3.weight"][0, 0, 0, 0] = value
    torch.save(state, tmp_path / "diverged.pt")
    complains(call("inspect", tmp_path / "diverged.pt"), "not finite", "earlier snapshot")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rulez": []}, "rulez"),
        ({"rules": [{"id": "a", "score": "low_rate_0.3", "limit": {"quantile": 1.5}}]}, "less than 1"),
        ({"rules": [{"id": "a", "score": "low_rate_0.7", "limit": {"quantile": 0.5}}]}, "low_rate_0.7"),
        ({"rules": [{"id": "a", "score": "beauty", "limit": {"value": 1}}]}, "unknown score"),
        ({"batch": [{"id": "b", "metric": "yield", "min": 0.9, "max": 0.1}]}, "nothing can pass"),
    ],
)
def test_a_policy_that_cannot_be_used(call: Call, place: Place, tmp_path: Path, change: dict[str, object], words: str) -> None:
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump({**POLICY, **change}))
    complains(gate(call, place, tmp_path / "out", "--policy", tmp_path / "policy.yaml"), words)
    nothing_left(tmp_path, "policy.yaml")


def test_a_policy_that_needs_another_calibration(call: Call, place: Place, tmp_path: Path) -> None:
    other = {**POLICY, "detection": {"layers": [0, 1], "rates": [0.1, 0.2, 0.3]}}
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(other))
    complains(gate(call, place, tmp_path / "out", "--policy", tmp_path / "policy.yaml"), "R = 0.2", "calibrate again")


def test_a_profile_of_another_checkpoint(call: Call, place: Place, tmp_path: Path) -> None:
    torch.save(dcgan_state_dict(seed=1), tmp_path / "other.pt")
    done = call("gate", tmp_path / "other.pt", "--profile", place.profile, "--out", tmp_path / "out", "--ids", "20")
    complains(done, "another checkpoint", "other.pt", "model.pt")


@pytest.mark.parametrize("file", ["profile.json", "activation_counts.safetensors", "calibration.parquet", "policy.yaml", "suite.json"])
def test_a_damaged_profile(call: Call, place: Place, tmp_path: Path, file: str) -> None:
    shutil.copytree(place.profile, tmp_path / "p")
    (tmp_path / "p" / file).write_bytes((tmp_path / "p" / file).read_bytes()[:-20])
    done = call("gate", place.checkpoint, "--profile", tmp_path / "p", "--out", tmp_path / "out", "--ids", "20")
    complains(done)
    nothing_left(tmp_path, "p")


def test_the_seed_of_the_calibration(call: Call, place: Place, tmp_path: Path) -> None:
    complains(gate(call, place, tmp_path / "out", "--seed", 0), "seed 0", "--seed")


def test_a_folder_that_holds_another_run(call: Call, place: Place, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("keep me")
    complains(gate(call, place, tmp_path / "out"), "precious.txt", "another place")
    assert (tmp_path / "out" / "precious.txt").read_text() == "keep me"
    complains(call("calibrate", place.checkpoint, "--out", tmp_path / "out"), "precious.txt")


@pytest.mark.parametrize("ids", ["5:5", "7:3", "x", "-4", "1:2:3"])
def test_ids_that_are_none(call: Call, place: Place, tmp_path: Path, ids: str) -> None:
    done = call("gate", place.checkpoint, "--profile", place.profile, "--out", tmp_path / "out", f"--ids={ids}")
    complains(done, "0:1000")


def test_latents_that_do_not_fit(call: Call, place: Place, tmp_path: Path) -> None:
    import numpy as np

    np.savez(tmp_path / "own.npz", z=np.zeros((4, 9), np.float32))
    done = call("gate", place.checkpoint, "--profile", place.profile, "--out", tmp_path / "out", "--latents", tmp_path / "own.npz")
    complains(done, "(4, 9)", "(N, 8)")


def test_truncation_that_is_none(call: Call, place: Place, tmp_path: Path) -> None:
    complains(call("calibrate", place.checkpoint, "--out", tmp_path / "out", "--psi", "1.5"), "psi", "(0, 1]")


def test_a_device_that_is_not_there(call: Call, place: Place, tmp_path: Path) -> None:
    complains(gate(call, place, tmp_path / "out", "--device", "cuda:63"), "cuda:63")


def test_a_device_without_float64(call: Call, place: Place, tmp_path: Path) -> None:
    complains(call("calibrate", place.checkpoint, "--out", tmp_path / "out", "--device", "meta"), "meta", "float64")


def test_no_space_left(call: Call, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)  # what writes the images
    complains(gate(call, place, tmp_path / "out"), "No space left", "free some space", code=3)
    nothing_left(tmp_path)


def test_a_disk_that_is_really_full(place: Place, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", tmp_path / "small"], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        done = _process(
            ["gate", place.checkpoint, "--profile", place.profile, "--out", tmp_path / "small/out", "--ids", "200"]
        ).communicate()
        assert "No space left" in done[1]
        nothing_left(tmp_path / "small")
    finally:
        subprocess.run(["umount", tmp_path / "small"], check=True)


def test_misspelt_variables_and_options(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call("gate", "x", "--profil", "y").code == 2
    monkeypatch.setenv("QUALITYGATE_GATE_SEEED", "3")
    done = call("--version")
    assert done.code == 2
    assert "QUALITYGATE_GATE_SEEED" in done.stderr


def test_variables_set_options(call: Call, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUALITYGATE_GATE_SEED", "0")
    complains(gate(call, place, tmp_path / "out"), "seed 0")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_gate_leaves_nothing_behind(place: Place, tmp_path: Path, number: signal.Signals) -> None:
    process = _process(["gate", place.checkpoint, "--profile", place.profile, "--out", tmp_path / "out", "--ids", "2000000", "--no-track"])
    end = time.monotonic() + 60
    while not any(tmp_path.glob(".out.partial-*/images/*.png")) and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "interrupted" in stderr
    assert "no part was done yet: the same command begins anew" in stderr
    assert "is kept" not in stderr
    nothing_left(tmp_path)


def test_an_interrupted_gate_goes_on(call: Call, place: Place, tmp_path: Path) -> None:
    def arguments(out: str) -> list[object]:
        common = ["--ids", "1500", "--shard-size", 128, "--no-track"]
        return ["gate", place.checkpoint, "--profile", place.profile, "--out", tmp_path / out, *common]

    process, end = _process(arguments("out")), time.monotonic() + 60
    while not any(tmp_path.glob(".out.partial-*/manifest/*.json")) and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from there" in stderr
    (begun,) = tmp_path.iterdir()  # nothing under the name that was asked for
    shards = {path.name: path.stat().st_mtime_ns for path in (begun / "manifest").iterdir()}
    assert 0 < len(shards) < 12
    assert call(*arguments("out")).code == 0
    assert call(*arguments("whole")).code == 0
    nothing_left(tmp_path, "out", "whole")
    assert (tmp_path / "out" / "samples.parquet").read_bytes() == (tmp_path / "whole" / "samples.parquet").read_bytes()
    images = [{path.name: path.read_bytes() for path in (tmp_path / out / "images").iterdir()} for out in ("out", "whole")]
    assert images[0] == images[1]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}


def test_errors_survive_pickling() -> None:
    error = qualitygate.QualityGateError("what", "found", "needed", "remedy")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert json.dumps(again.found) == '"found"'


def _process(arguments: list[object]) -> subprocess.Popen[str]:
    call = [sys.executable, "-c", "from qualitygate.cli import main; main()", *map(str, arguments)]
    return subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
