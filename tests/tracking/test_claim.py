"""What holds against a server: the claim, here made in a local store."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest
from mlflow import MlflowClient

from qualitygate import names
from qualitygate.errors import TrackingError
from qualitygate.tracking import claim
from qualitygate.tracking.promotion import alias_version, promote
from tests.tracking.checked import send

PROCESS = """
import os, pathlib, sys, time
from qualitygate.mlflow_client import connect
from qualitygate.tracking import claim
uri, name, place, what = sys.argv[1:]
claim._EVERY = 0.1
with connect(uri) as client:
    for turn in range(1 if what == "dies" else 4):
        with claim.claimed(client, name, what) as confirm:
            if what == "dies":
                os._exit(9)
            confirm()
            with open(pathlib.Path(place) / "alone", "x"):  # fails if it is there
                time.sleep(0.05)
            (pathlib.Path(place) / "alone").unlink()
"""


@pytest.fixture
def name(experiment) -> str:
    return claim.claim_name(experiment, "champion")


@pytest.fixture
def claimed(client, name):
    """Takes the claim as a check against a server does."""
    return lambda run_id: claim.claimed(client, name, run_id)


@pytest.fixture
def standing(client, name):
    """The names of the claims that stand."""
    return lambda: [one.name for one in client.search_registered_models() if one.name.startswith(name)]


def grow_old(database, name) -> None:
    """By the server's clock a claim is an hour older than it is."""
    with closing(sqlite3.connect(database.removeprefix("sqlite:///"))) as store, store:
        store.execute("UPDATE registered_models SET creation_time = creation_time - 3600000 WHERE name = ?", (name,))


def start(database, name, place, what) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROCESS, database, name, str(place), what]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_a_claim_keeps_others_out_and_is_given_back(client, claimed, standing, monkeypatch) -> None:
    monkeypatch.setattr(claim, "PATIENCE", 0.0)
    with claimed("one") as confirm:
        confirm()
        with pytest.raises(TrackingError, match="its claim ends by itself 300 seconds after") as raised, claimed("two"):
            pass
        assert "made by run one" in str(raised.value)
        (mine,) = standing()
        assert client.get_registered_model(mine).tags[names.TAG_CLAIMED_BY] == "one"
        confirm()
    with pytest.raises(RuntimeError), claimed("three"):
        raise RuntimeError
    assert standing() == []


def test_claims_to_other_aliases_are_no_business_of_ours(client, experiment, claimed) -> None:
    with claimed("one"), claim.claimed(client, claim.claim_name(experiment, "challenger"), "two"):
        pass


def test_a_claim_that_was_asked_for_twice_is_ours(claimed, monkeypatch) -> None:
    """A client sends a request again when the answer is lost."""
    create = MlflowClient.create_registered_model

    def twice(*arguments: object) -> None:
        create(*arguments)
        create(*arguments)

    monkeypatch.setattr(MlflowClient, "create_registered_model", twice)
    with claimed("one") as confirm:
        confirm()


def test_a_claim_that_stays_is_told(claimed, monkeypatch) -> None:
    def gone(*_: object) -> None:
        raise ConnectionError("gone")

    monkeypatch.setattr(MlflowClient, "delete_registered_model", gone)
    with pytest.warns(UserWarning, match="blocks promotions for a while: gone"), claimed("one"):
        pass


def test_what_a_killed_process_left_ends_by_itself(database, client, name, claimed, standing, tmp_path, monkeypatch) -> None:
    """Nobody deletes anything by hand, not even a claim under the one name that all had once."""
    process = start(database, name, tmp_path, "dies")
    process.communicate(timeout=120)
    assert process.returncode == 9
    (dead,) = standing()
    client.create_registered_model(name, {names.TAG_CLAIM: "as it was called once"})
    monkeypatch.setattr(claim, "PATIENCE", 0.0)
    with pytest.raises(TrackingError, match="Another check holds the alias"), claimed("two"):
        pass
    assert sorted(standing()) == sorted([dead, name]), "young enough to be a living one's"
    for one in (dead, name):
        grow_old(database, one)
    with claimed("three") as confirm:
        confirm()
        assert len(standing()) == 1
        assert dead not in standing()
    assert standing() == []


def test_of_many_that_find_a_dead_claim_one_at_a_time_holds_it(database, client, name, standing, tmp_path) -> None:
    """Processes that try again and again, none of which ever finds another inside."""
    processes = [start(database, name, tmp_path, str(place)) for place in range(2)]
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert standing() == []


def test_two_that_take_over_at_once(database, client, name, claimed, standing, monkeypatch) -> None:
    """Each has made its claim before either looks: both see the dead claim and each other."""
    client.create_registered_model(f"{name}_dead", {names.TAG_CLAIM: "dead"})
    grow_old(database, f"{name}_dead")
    monkeypatch.setattr(claim, "_EVERY", 0.1)
    both, look, asked = threading.Barrier(2), claim._living_others, threading.local()
    inside: list[str] = []
    most: list[int] = []

    def together(*arguments: object) -> object:
        if not hasattr(asked, "once"):
            asked.once = both.wait(60)
        return look(*arguments)

    def take(which: str) -> None:
        with claimed(which) as confirm:
            inside.append(which)
            confirm()
            time.sleep(0.05)
            most.append(len(inside))
            inside.remove(which)

    monkeypatch.setattr(claim, "_living_others", together)
    threads = [threading.Thread(target=take, args=(which,)) for which in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert most == [1, 1]
    assert standing() == []


@pytest.mark.parametrize("how", ["deleted", "too old"])
def test_a_claim_that_was_lost_moves_nothing(client, database, experiment, tmp_path, monkeypatch, how) -> None:
    one = send(tmp_path / "a", "a", experiment, database)
    monkeypatch.setattr(claim, "sqlite_file", lambda _: None)  # as against a server
    look = claim._living_others

    def and_lose(client, name, mine):
        found = look(client, name, mine)
        client.delete_registered_model(mine) if how == "deleted" else monkeypatch.setattr(claim, "HOLD", -1.0)
        return found

    monkeypatch.setattr(claim, "_living_others", and_lose)
    with pytest.raises(TrackingError, match="the claim to it was lost"):
        promote(one.version, "champion", None, one.folder, one.run_id, database)
    assert alias_version(experiment, "champion", database) is None
