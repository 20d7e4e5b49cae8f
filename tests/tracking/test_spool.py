from __future__ import annotations

import json
import time

import pytest

from qualitygate.errors import InputError
from qualitygate.tracking import spool
from qualitygate.tracking.spool import State, push, sync, tracking_state
from tests.tracking.gated_folder import pending, write_gated_folder

DOWN = "http://127.0.0.1:9"


@pytest.fixture
def folder(tmp_path):
    return write_gated_folder(tmp_path / "sets" / "one")


def contents(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_push_writes_where_the_set_went(client, database, experiment, folder, capfd):
    outcome = push(folder, database, experiment)
    assert outcome.state is State.SENT
    assert outcome.error is None
    assert json.loads((folder / "tracking.json").read_text()) == {
        "state": "sent",
        "uri": database,
        "experiment": experiment,
        "run_id": outcome.run_id,
        "model_id": outcome.model_id,
        "error": None,
    }
    assert client.get_run(outcome.run_id).info.status == "FINISHED"
    assert capfd.readouterr().out == ""


def test_server_that_is_down_leaves_the_set_pending(folder, capfd):
    before, start = contents(folder), time.monotonic()
    outcome = push(folder, DOWN)
    assert time.monotonic() - start < 10
    assert outcome.state is State.PENDING
    assert outcome.run_id is None
    assert "127.0.0.1:9 cannot be reached" in outcome.error
    assert tracking_state(folder) == outcome
    after = contents(folder)
    del after["tracking.json"]
    assert after == before
    assert pending(folder) == [folder]
    assert capfd.readouterr().out == ""


def test_killed_while_sending_leaves_the_set_pending(folder, database, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(spool, "send", killed)
    with pytest.raises(KeyboardInterrupt):
        push(folder, database)
    assert pending(folder) == [folder]


def test_passwords_are_not_written_down(folder):
    push(folder, "http://me:secret@127.0.0.1:9")
    assert "secret" not in (folder / "tracking.json").read_text()
    assert tracking_state(folder).uri == "http://***@127.0.0.1:9"


def test_sync_sends_what_is_pending_to_another_place(client, database, experiment, folder, tmp_path):
    push(folder, DOWN, experiment)
    two = write_gated_folder(tmp_path / "sets" / "deeper" / "two", seed=2)
    push(two, database, experiment)
    assert pending(tmp_path) == [folder]
    outcome = sync([tmp_path / "sets"], database)
    assert {path: tracking.state for path, tracking in outcome.items()} == {folder: State.SENT, two: State.SENT}
    assert pending(tmp_path) == []
    home = client.get_experiment_by_name(experiment).experiment_id
    assert len(client.search_runs([home])) == 2


def test_sync_sends_to_where_the_set_was_meant_to_go(database, experiment, folder, monkeypatch):
    spool._write(folder, spool.Tracking(state=State.PENDING, uri=database, experiment=experiment))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", DOWN)
    outcome = sync([folder])[folder]
    assert (outcome.state, outcome.uri, outcome.experiment) == (State.SENT, database, experiment)


def test_sync_without_the_password_asks_the_environment(database, experiment, folder, monkeypatch):
    unknown = "postgresql://me:***@host/db"
    spool._write(folder, spool.Tracking(state=State.PENDING, uri=unknown, experiment=experiment))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    assert sync([folder])[folder].uri == database


def test_what_fails_again_stays_pending(folder, tmp_path):
    push(folder, DOWN)
    outcome = sync([tmp_path])[folder]
    assert outcome.state is State.PENDING
    assert outcome.error


def test_sets_gated_with_tracking_off_are_sent_only_when_asked(database, experiment, folder):
    assert sync([folder], database, experiment)[folder].state is State.OFF
    assert not (folder / "tracking.json").exists()
    assert sync([folder], database, experiment, untracked=True)[folder].state is State.SENT


def test_sync_where_nothing_is(tmp_path):
    with pytest.raises(InputError, match="no gated set there or below"):
        sync([tmp_path])


def test_push_of_something_else_leaves_it_alone(tmp_path):
    with pytest.raises(InputError, match="is not a gated set"):
        push(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_tracking_file_that_cannot_be_read(folder):
    (folder / "tracking.json").write_text("{")
    with pytest.raises(InputError, match="delete the file"):
        pending(folder)
