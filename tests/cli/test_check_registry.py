"""`qualitygate check` and the registry: against a real tracking server, and what a user is told when the registry is not as it was."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from cli.conftest import POLICY, Call, Place, dcgan_state_dict

from qualitygate import names
from qualitygate.cli.check import Registry
from qualitygate.mlflow_client import connect
from qualitygate.studies.check import CheckRequest
from qualitygate.tracking.promotion import alias_version
from qualitygate.tracking.studies import CHECK_FILES, CHECK_RECORD, read_check
from tests.tracking import held_back
from tests.tracking.checked import write_check

CHECK = {
    "samples": 64,
    "budget": {"samples": 64},
    "rules": [
        {"id": "yield", "metric": "yield", "min": 0.05},
        {"id": "dead", "metric": "dead_units", "worse_by": {"absolute": 0.1}, "optional": True},
    ],
}


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("QUALITYGATE_CACHE", str(tmp_path_factory.getbasetemp() / "registry-cache"))


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("check") / "policy.yaml"
    path.write_text(yaml.safe_dump({**POLICY, "check": CHECK}), encoding="utf8")
    return path


Candidate = Callable[..., Path]


@pytest.fixture
def candidate(tmp_path: Path) -> Candidate:
    """Makes candidates: the small checkpoint, its biases a little moved, some units of the first layer dead."""

    def make(name: str, moved: float, dead: int = 0) -> Path:
        state = dcgan_state_dict()
        state["main.1.bias"] = state["main.1.bias"] + moved
        state["main.1.bias"][:dead] = -100.0
        path = tmp_path / f"{name}.pt"
        torch.save({"netG": state}, path)
        return path

    return make


@pytest.fixture
def mine(policy: Path, server: str, request: pytest.FixtureRequest) -> tuple[object, ...]:
    """Options of a check against the server; its registered model is called as the test."""
    return ("--policy", policy, "--tracking-uri", server, "--experiment", request.node.name, "--model", request.node.name)


@pytest.mark.slow
def test_what_a_registry_holds_after_checks(
    call: Call, place: Place, candidate: Candidate, mine: tuple[object, ...], server: str, tmp_path: Path
) -> None:
    model = str(mine[-1])
    champion = ("--baseline", f"models:/{model}@champion")
    good, tagged, bad = candidate("good", 1e-4), candidate("tagged", 2e-4), candidate("bad", 0.0, dead=6)
    runs = [
        (place.checkpoint, ("--promote", "champion"), 0, "1"),
        (good, (*champion, "--promote", "champion"), 0, "2"),
        (tagged, (*champion, "--tag-only"), 0, "2"),
        (bad, (*champion, "--promote", "champion"), 1, "2"),
    ]
    with connect(server) as client:
        for number, (file, own, code, standing) in enumerate(runs, 1):
            out = tmp_path / str(number)
            done = call("check", file, *mine, *own, "--out", out)
            assert done.code == code, done.stderr
            assert alias_version(model, "champion", server) == standing
            record, digest = read_check(out)
            version = client.get_model_version(model, str(number))
            kept = client.get_logged_model(str(version.source).removeprefix("models:/"))
            for tags in (version.tags, kept.tags):
                assert tags[names.TAG_CHECK_VERDICT] == record.verdict.value == ("failed" if code else "passed")
                assert tags[names.TAG_POLICY] == record.policy_hash
                assert tags[names.TAG_CHECKPOINT] == hashlib.sha256(file.read_bytes()).hexdigest()
            run = client.get_run(version.tags[names.TAG_CHECK_RUN])
            assert run.info.status == "FINISHED"
            assert [one.model_id for one in run.outputs.model_outputs] == [kept.model_id]
            for name in set(CHECK_FILES) & {path.name for path in out.iterdir()}:
                stored = Path(client.download_artifacts(run.info.run_id, name, str(tmp_path))).read_bytes()
                assert stored == (out / name).read_bytes()
                assert name != CHECK_RECORD or hashlib.sha256(stored).hexdigest() == digest
            assert {CHECK_RECORD, "report.html"} <= {one.path for one in client.list_artifacts(run.info.run_id)}
        assert "is not promoted: failed" in done.stderr
        assert [one.name for one in client.search_registered_models() if one.name.startswith(model)] == [model]
        again = call("check", f"models:/{model}/3", *mine[:-2], *champion, "--promote", "champion")
        assert again.code == 0, again.stderr
        assert alias_version(model, "champion", server) == "3", "the file comes back out of the registry"


@pytest.mark.slow
def test_two_checks_at_once_against_a_server(
    call: Call, place: Place, candidate: Candidate, mine: tuple[object, ...], server: str, tmp_path: Path
) -> None:
    model = str(mine[-1])
    assert call("check", place.checkpoint, *mine, "--promote", "champion").code == 0
    own = (*mine, "--baseline", f"models:/{model}@champion", "--promote", "champion")
    processes = {
        name: held_back.start(tmp_path, name, "check", candidate(name, moved), *own, "--out", tmp_path / f"{name}-out")
        for name, moved in (("b", 1e-4), ("c", 2e-4))
    }
    ahead = held_back.appears(tmp_path, "b-between", "c-between", process=processes["b"])[0]
    behind = "c" if ahead == "b" else "b"
    assert held_back.appears(tmp_path, f"{behind}-waits", f"{behind}-between", process=processes[behind]) == f"{behind}-waits"
    (tmp_path / "go").touch()
    said = {name: process.communicate(timeout=300) for name, process in processes.items()}
    assert processes[ahead].returncode == 0, said[ahead]
    assert processes[behind].returncode == 3, said[behind]
    assert "another check was quicker" in said[behind][1]
    assert "PASSED" in said[behind][0], "its verdict stands"
    with connect(server) as client:
        winner = client.get_model_version_by_alias(model, "champion")
        assert winner.tags[names.TAG_CHECKPOINT] == read_check(tmp_path / f"{ahead}-out")[0].candidate.checkpoint_sha256
        record, digest = read_check(tmp_path / f"{behind}-out")
        (loser,) = [
            one
            for one in client.search_model_versions(f"name = '{model}'")
            if one.tags[names.TAG_CHECKPOINT] == record.candidate.checkpoint_sha256
        ]
        assert loser.tags[names.TAG_CHECK_VERDICT] == "passed"
        stored = Path(client.download_artifacts(loser.tags[names.TAG_CHECK_RUN], CHECK_RECORD, str(tmp_path))).read_bytes()
        assert hashlib.sha256(stored).hexdigest() == digest
        assert [one.name for one in client.search_registered_models() if one.name.startswith(model)] == [model]


def test_options_that_contradict_each_other(call: Call, place: Place, policy: Path) -> None:
    for options, said in (
        (("--model", "faces"), "--promote or --tag-only"),
        (("--model", "faces", "--promote", "champion", "--tag-only"), "contradict"),
        (("--promote", "champion"), "no registered model to act on"),
    ):
        done = call("check", place.checkpoint, "--policy", policy, *options)
        assert done.code == 2
        assert said in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("g.pt", "--set", "conv_clamp=256"), "--set conv_clamp=256"),
        (("g.pt", "--family", "dcgan"), "--family dcgan"),
        (("module:mine:make", "--layers", "a", "--latent-size", 8), "module:mine:make, which is a function"),
    ],
)
def test_what_a_file_alone_does_not_stand_for_is_not_registered(call: Call, options: tuple[object, ...], said: str) -> None:
    """Before anything is read: there is no such file."""
    for own in (("--promote", "champion"), ("--tag-only",)):
        done = call("check", *options, "--model", "faces", *own)
        assert done.code == 2
        assert said in done.stderr
        assert "check it without --model" in done.stderr


@pytest.mark.parametrize("kept", [True, False])
def test_only_what_is_kept_can_be_sent_later(tmp_path: Path, capfd: pytest.CaptureFixture[str], kept: bool) -> None:
    folder = write_check(tmp_path / "a", "a")
    request = CheckRequest(checkpoint="a.pt", experiment="checks", out=folder if kept else None)
    Registry(request, "http://127.0.0.1:9").send(folder, read_check(folder)[0], good=True)
    said = capfd.readouterr().err
    assert "127.0.0.1:9 cannot be reached" in said
    assert ("qualitygate sync" in said) == kept
    assert ("give --out" in said) != kept


def test_what_could_not_be_promoted_is_kept_to_be_sent(
    call: Call, place: Place, policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qualitygate.tracking import promotion
    from qualitygate.tracking.spool import State, tracking_state

    monkeypatch.setattr(promotion, "alias_version", lambda *_: None)  # MLflow goes away after the first look
    out = tmp_path / "c"
    done = call(
        "check",
        place.checkpoint,
        "--policy",
        policy,
        "--out",
        out,
        "--tracking-uri",
        "http://127.0.0.1:9",
        "--model",
        "faces",
        "--promote",
        "champion",
    )
    assert done.code == 3
    assert "PASSED" in done.stdout
    assert "nothing was written to the registry" in done.stderr
    assert tracking_state(out).state is State.PENDING
