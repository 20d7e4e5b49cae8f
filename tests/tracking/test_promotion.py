"""The alias moves once, after a pass that was read back; and the registry tells who checked what."""

from __future__ import annotations

import shutil

import pytest
from mlflow import MlflowClient

from qualitygate import names
from qualitygate.checkpoints.sources import resolve
from qualitygate.errors import InputError, TrackingError
from qualitygate.mlflow_client import connect
from qualitygate.records.check import RuleState
from qualitygate.tracking import promotion, sending
from qualitygate.tracking.promotion import Version, alias_version, promote, register, version_of
from qualitygate.tracking.studies import CHECK_RECORD, check_parcel, read_check
from tests.tracking.checked import Sent, send, write_check
from tests.tracking.held_back import appears, start


def move(one: Sent, expected: str | None, uri: str) -> None:
    promote(one.version, "champion", expected, one.folder, one.run_id, uri)


def test_a_pass_is_promoted_and_a_failure_is_not(client, database, experiment, tmp_path) -> None:
    assert alias_version(experiment, "champion", database) is None
    first = send(tmp_path / "a", "a", experiment, database)
    move(first, None, database)
    failed = send(tmp_path / "b", "b", experiment, database, RuleState.FAILED)
    with pytest.raises(InputError, match="Only a pass"):
        move(failed, "1", database)
    assert version_of(f"models:/{experiment}@champion", database) == first.version == Version(experiment, "1")
    tags = client.get_model_version(experiment, failed.version.version).tags
    assert (tags[names.TAG_CHECK_VERDICT], tags[names.TAG_CHECK_RUN]) == ("failed", failed.run_id)


@pytest.mark.parametrize("form", ["models:/{}@champion", "models:/{}/1"])
@pytest.mark.parametrize("rest", ["", "/sub/g.pt", f"#sha256={'a' * 64}", f"/sub/g#1@2.pt#sha256={'a' * 64}"])
def test_a_source_is_pinned_with_its_path_and_hash(monkeypatch, form, rest) -> None:
    asked = []
    monkeypatch.setattr(promotion, "alias_version", lambda name, alias, _: asked.append((name, alias)) or "1")
    source = f"{form.format('faces')}{rest}"
    version = version_of(source, "no MLflow")
    assert version == Version("faces", "1")
    assert version.pinned(source) == f"models:/faces/1{rest}"
    assert asked == ([("faces", "champion")] if "champion" in source else [])


def test_only_what_was_read_back_is_promoted(client, database, experiment, tmp_path) -> None:
    one = send(tmp_path / "a", "a", experiment, database)
    client.set_model_version_tag(experiment, "1", names.TAG_CHECK_VERDICT, "failed")
    other = tmp_path / CHECK_RECORD
    other.write_text("{}")
    client.log_artifact(one.run_id, str(other))
    with pytest.raises(TrackingError, match=f"{CHECK_RECORD}, {names.TAG_CHECK_VERDICT}"):
        move(one, None, database)
    assert alias_version(experiment, "champion", database) is None


def test_a_checkpoint_is_registered_once(client, database, experiment, tmp_path, monkeypatch) -> None:
    one = send(tmp_path / "a", "a", experiment, database)
    again = (experiment, one.record, one.model_id, tmp_path / "a/a.pt", database)
    assert register(*again) == one.version
    search, looks = MlflowClient.search_model_versions, []

    def late(*arguments):
        """As it was before another process registered the checkpoint, the first time."""
        looks.append(arguments)
        return search(*arguments) if len(looks) > 1 else []

    monkeypatch.setattr(MlflowClient, "search_registered_models", lambda *_: [])
    monkeypatch.setattr(MlflowClient, "search_model_versions", late)
    assert register(*again) == one.version
    assert [int(found.version) for found in client.search_model_versions(f"name = '{experiment}'")] == [1]


def test_a_model_takes_a_checkpoint_under_one_name(database, experiment, tmp_path, monkeypatch) -> None:
    """The same bytes in another file, for another registered model: the version can still be loaded."""
    monkeypatch.setenv("QUALITYGATE_CACHE", str(tmp_path / "cache"))
    one = send(tmp_path / "a", "a", experiment, database)
    copy = shutil.copy(tmp_path / "a/a.pt", tmp_path / "copy.safetensors")
    other = register(f"{experiment}-2", one.record, one.model_id, copy, database)
    for version in (one.version, other):
        assert resolve(f"models:/{version}", tracking_uri=database).read_bytes() == b"a"


@pytest.mark.parametrize("now", [b"the next checkpoint", None])
def test_a_file_that_changed_since_its_check_is_not_registered(client, database, experiment, tmp_path, now) -> None:
    file = write_check(tmp_path / "a", "a") / "a.pt"
    logged = sending.send(check_parcel(tmp_path / "a"), database, experiment)
    file.unlink() if now is None else file.write_bytes(now)
    with pytest.raises(TrackingError, match="the file has changed since it was checked"):
        register(experiment, read_check(tmp_path / "a")[0], logged.model_id, file, database)
    assert client.search_model_versions(f"name = '{experiment}'") == []
    assert file.name not in [one.path for one in client.list_logged_model_artifacts(logged.model_id)]


def test_two_processes_at_one_store(client, database, experiment, tmp_path) -> None:
    champion, *others = (send(tmp_path / name, name, experiment, database) for name in ("a", "b", "c"))
    move(champion, None, database)
    checks = {one.record.candidate.source: one for one in others}
    processes = {
        name: start(tmp_path, name, "promote", experiment, one.version.version, "champion", "1", one.folder, one.run_id, database)
        for name, one in checks.items()
    }
    ahead = appears(tmp_path, "b-between", "c-between", process=processes["b"])[0]
    behind = "c" if ahead == "b" else "b"
    assert appears(tmp_path, f"{behind}-waits", f"{behind}-between", process=processes[behind]) == f"{behind}-waits"
    (tmp_path / "go").touch()
    said = {name: process.communicate(timeout=120)[1] for name, process in processes.items()}
    assert processes[ahead].returncode == 0, said[ahead]
    assert processes[behind].returncode == TrackingError.exit_code == 3, said[behind]
    winner, loser = checks[ahead], checks[behind]
    assert f"{loser.version} is not promoted: another check was quicker" in said[behind]
    assert f"champion is version {winner.version.version}" in said[behind]
    assert alias_version(experiment, "champion", database) == winner.version.version
    assert not (tmp_path / f"{behind}-moved").exists()
    tags = client.get_model_version(experiment, loser.version.version).tags
    assert (tags[names.TAG_CHECK_VERDICT], tags[names.TAG_CHECK_RUN]) == ("passed", loser.run_id)
    assert client.get_run(loser.run_id).info.status == "FINISHED"


def test_a_registry_of_its_own(database, experiment, tmp_path, monkeypatch) -> None:
    registry = f"sqlite:///{tmp_path}/registry.db"
    shutil.copy(database.removeprefix("sqlite:///"), tmp_path / "registry.db")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", registry)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("QUALITYGATE_CACHE", str(tmp_path / "cache"))
    one = send(tmp_path / "a", "a", experiment, database)
    move(one, None, database)
    assert alias_version(experiment, "champion", database) == "1"
    assert resolve(f"models:/{experiment}@champion", tracking_uri=database).read_bytes() == b"a"
    monkeypatch.delenv("MLFLOW_REGISTRY_URI")
    assert alias_version(experiment, "champion", database) is None, "the registry is elsewhere"
    assert alias_version(experiment, "champion", registry) == "1"
    with connect(registry) as client:
        version = client.get_model_version_by_alias(experiment, "champion")
    assert version.tags[names.TAG_CHECKPOINT] == one.record.candidate.checkpoint_sha256
