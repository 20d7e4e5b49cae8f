"""`qualitygate check` from end to end on a small checkpoint."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch
import yaml
from cli.conftest import POLICY, Call, Place, dcgan_state_dict

CHECK = {
    "samples": 64,
    "budget": {"samples": 128},
    "rules": [
        {"id": "yield", "metric": "yield", "min": 0.05},
        {"id": "tail", "metric": "low_rate_0.3/q0.9", "worse_by": {"relative": 0.2}, "optional": True},
        {"id": "rejected", "metric": "rejected_share", "worse_by": {"absolute": 0.1}, "optional": True},
        {"id": "dead", "metric": "dead_units", "worse_by": {"absolute": 0.0}, "optional": True},
        {"id": "precision", "metric": "precision", "min": 0.1, "optional": True},
    ],
}


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("QUALITYGATE_CACHE", str(tmp_path_factory.getbasetemp() / "check-cache"))


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("check") / "policy.yaml"
    path.write_text(yaml.safe_dump({**POLICY, "check": CHECK}), encoding="utf8")
    return path


@pytest.fixture(scope="module")
def worse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Biases lowered: neurons that fired often fire rarely."""
    path, state = tmp_path_factory.mktemp("worse") / "worse.pt", dcgan_state_dict()
    for name in ("main.1", "main.4"):
        state[f"{name}.bias"] = state[f"{name}.bias"] + torch.linspace(-2.0, 2.0, len(state[f"{name}.bias"]))
    torch.save({"netG": state}, path)
    return path


def test_the_same_file_passes_and_writes_every_report(call: Call, place: Place, policy: Path, tmp_path: Path) -> None:
    out = tmp_path / "c"
    done = call("check", place.checkpoint, "--baseline", place.checkpoint, "--policy", policy, "--no-track", "--out", out)
    assert done.code == 0, done.stderr
    assert "PASSED" in done.stdout
    record = json.loads((out / "check.json").read_text())
    states = {one["id"]: one["state"] for one in record["rules"]}
    assert states == {"yield": "passed", "tail": "passed", "rejected": "passed", "dead": "passed", "precision": "left_out"}
    assert record["paired"]
    assert record["samples"] == 64
    cases = ET.parse(out / "junit.xml").getroot().findall(".//testcase")
    assert len(cases) == 6
    page = (out / "report.html").read_text()
    assert "<script" not in page
    assert "default-src" in page, "it is not allowed to load anything"
    assert (out / "profile" / "profile.json").is_file()


def test_secrets_in_an_address_are_not_kept(
    call: Call, place: Place, policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qualitygate.checkpoints.sources.web.fetch", lambda *_: place.checkpoint)
    source, out = f"https://me:secret@example.org/g.pt?X-Amz-Signature=secret#sha256={'0' * 64}", tmp_path / "c"
    done = call("check", source, "--baseline", source, "--policy", policy, "--no-track", "--out", out)
    assert done.code == 0, done.stderr
    record = json.loads((out / "check.json").read_text())
    assert [record[one]["source"] for one in ("candidate", "baseline")] == ["https://example.org/g.pt"] * 2
    assert "secret" not in done.stdout + done.stderr
    assert not [path for path in out.rglob("*") if path.is_file() and b"secret" in path.read_bytes()]


def test_a_profile_is_a_baseline_too(call: Call, place: Place, worse: Path, policy: Path) -> None:
    done = call("check", worse, "--baseline", place.profile, "--policy", policy, "--no-track", "--json")
    assert done.json["paired"]
    states = {one["id"]: one["state"] for one in done.json["rules"]}
    assert states["rejected"] == "left_out"  # a profile holds no corrections
    assert done.code in (1, 4)


def test_a_worse_checkpoint_fails(
    call: Call, place: Place, worse: Path, policy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    done = call("check", worse, "--baseline", place.checkpoint, "--policy", policy, "--no-track", "--json")
    assert done.code == 1, done.stdout
    assert "::error title=" in done.stderr
    assert summary.read_text().startswith("## FAILED")
    assert call("check", worse, "--baseline", place.checkpoint, "--policy", policy, "--no-track", "--exit-zero").code == 0


@pytest.mark.parametrize(("extractor", "state"), [("random-vgg16-32", "failed"), ("inception", "left_out")])
def test_without_real_images_those_of_the_baseline_serve(
    call: Call, place: Place, worse: Path, tmp_path: Path, extractor: str, state: str
) -> None:
    policy = tmp_path / "policy.yaml"
    alike = {"worse_by": {"absolute": 0.1}, "severity": "warning", "optional": True}
    rules = [{"id": "yield", "metric": "yield", "min": 0.0}, {"id": "alike", "metric": "coverage_to_baseline", **alike}]
    check = {"samples": 64, "budget": {"samples": 64}, "rules": rules, "extractor": extractor}
    policy.write_text(yaml.safe_dump({**POLICY, "check": check}), encoding="utf8")
    done = call("check", worse, "--baseline", place.checkpoint, "--policy", policy, "--no-track", "--out", tmp_path / "c")
    record = json.loads((tmp_path / "c" / "check.json").read_text())
    assert {one["id"]: one["state"] for one in record["rules"]}["alike"] == state
    assert done.code == 0, done.stderr  # it is a warning: nobody knows whether it is for the better
    assert ("PASSED WITH WARNINGS" in done.stdout) == (state == "failed")
    assert ("No rule looked at a real image" if state == "failed" else "No rule looked at an image") in done.stdout


def test_hand_written_expectations_count(call: Call, place: Place, policy: Path, tmp_path: Path) -> None:
    suite = tmp_path / "suite.json"
    wish = {"type": "expect_column_max_to_be_between", "kwargs": {"column": "yield", "max_value": -1}}
    suite.write_text(json.dumps({"format": 1, "samples": [], "summary": [wish]}))
    done = call("check", place.checkpoint, "--policy", policy, "--suite", suite, "--no-track")
    assert done.code == 1, done.stderr
    assert "custom-1" in done.stdout


def test_real_images_that_no_rule_looks_at_are_refused(call: Call, place: Place, tmp_path: Path) -> None:
    (path := tmp_path / "policy.yaml").write_text(yaml.safe_dump({**POLICY, "check": {**CHECK, "rules": [CHECK["rules"][0]]}}))
    done = call("check", place.checkpoint, "--policy", path, "--real", "digits", "--no-track")
    assert done.code == 2
    assert "No rule of the policy looks at real images" in done.stderr


def test_a_dry_run_shows_the_rules_and_stops(call: Call, place: Place, policy: Path) -> None:
    done = call("check", place.checkpoint, "--policy", policy, "--dry-run", "--json")
    assert done.code == 0, done.stderr
    assert [one["id"] for one in done.json["rules"]] == ["yield", "tail", "rejected", "dead", "precision"]


def test_extractor_and_distance_are_given_in_place_of_the_policys(call: Call, place: Place, policy: Path) -> None:
    options = ("--extractor", "module:mine:net@8", "--distance", "lpips")
    done = call("check", place.checkpoint, "--policy", policy, "--dry-run", "--json", *options)
    assert (done.json["extractor"], done.json["distance"]) == ("module:mine:net@8", "lpips")


def test_a_summary_that_cannot_be_written_keeps_no_verdict(
    call: Call, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = [{"id": "yield", "metric": "yield", "min": 0.05}]
    policy = tmp_path / "policy.yaml"
    policy.write_text(yaml.safe_dump({**POLICY, "check": {"samples": 64, "budget": {"samples": 64}, "rules": rules}}), encoding="utf8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "nowhere" / "summary.md"))
    done = call("check", place.checkpoint, "--policy", policy, "--no-track")
    assert done.code == 0, done.stderr
    assert "nothing was added to GITHUB_STEP_SUMMARY" in done.stderr


def test_a_truncated_file_is_bad_input(call: Call, place: Place, policy: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.pt"
    cut.write_bytes(place.checkpoint.read_bytes()[:2000])
    assert call("check", cut, "--baseline", place.checkpoint, "--policy", policy, "--no-track").code == 2


def test_a_pass_is_promoted_and_nothing_else(call: Call, place: Place, worse: Path, policy: Path, tmp_path: Path) -> None:
    from qualitygate.tracking.promotion import alias_version

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    own = ("--policy", policy, "--tracking-uri", uri, "--model", "faces", "--promote", "champion")
    first = call("check", place.checkpoint, *own)
    assert first.code == 0, first.stderr
    assert alias_version("faces", "champion", uri) == "1"
    refused = call("check", worse, *own)
    assert refused.code == 2
    assert "models:/faces@champion" in refused.stderr
    failed = call("check", worse, "--baseline", "models:/faces@champion", *own)
    assert failed.code == 1, failed.stderr
    assert alias_version("faces", "champion", uri) == "1"


def test_where_warnings_count_they_keep_a_pass_from_being_promoted(call: Call, place: Place, tmp_path: Path) -> None:
    from qualitygate.tracking.promotion import alias_version

    warns = {"id": "impossible", "metric": "yield", "min": 2.0, "severity": "warning"}
    (path := tmp_path / "policy.yaml").write_text(yaml.safe_dump({**POLICY, "check": {**CHECK, "rules": [CHECK["rules"][0], warns]}}))
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    own = ("check", place.checkpoint, "--policy", path, "--tracking-uri", uri, "--model", "faces", "--promote", "champion")
    strict = call(*own, "--error-on-warning")
    assert strict.code == 1, strict.stderr
    assert "faces/1 is not promoted: passed with warnings" in strict.stderr
    assert alias_version("faces", "champion", uri) is None
    assert call(*own).code == 0
    assert alias_version("faces", "champion", uri) == "1"


def test_what_mlflow_did_not_hear_of_is_sent_by_sync(call: Call, place: Place, policy: Path, tmp_path: Path) -> None:
    out, uri = tmp_path / "c", f"sqlite:///{tmp_path / 'mlflow.db'}"
    down = call("check", place.checkpoint, "--policy", policy, "--out", out, "--tracking-uri", "http://127.0.0.1:9")
    assert down.code == 0, "an outage never changes a verdict"
    assert "qualitygate sync" in down.stderr
    sent = call("sync", out, "--tracking-uri", uri)
    assert sent.code == 0, sent.stderr
    assert json.loads((out / "tracking.json").read_text())["state"] == "sent"
