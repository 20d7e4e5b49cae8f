from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from qualitygate.errors import TrackingError, public
from qualitygate.mlflow_client import connect, environment, tracking_uri


def test_default_is_a_file_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"


def test_given_comes_before_the_environment(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:5000")
    assert tracking_uri() == "http://elsewhere:5000"
    assert tracking_uri("http://here:5000") == "http://here:5000"


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("sqlite:///runs/m.db", "sqlite:///{here}/runs/m.db"),
        ("sqlite:///runs/m.db?timeout=5", "sqlite:///{here}/runs/m.db?timeout=5"),
        ("sqlite:////data/m.db", "sqlite:////data/m.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("postgresql://me:secret@host/db", "postgresql://me:secret@host/db"),
    ],
)
def test_relative_files_become_absolute(tmp_path, monkeypatch, given, made):
    monkeypatch.chdir(tmp_path)
    assert tracking_uri(given) == made.format(here=tmp_path)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://me:secret@host/db", "postgresql://***@host/db"),
        ("API request to https://me:se:cret@host:5000/api failed", "API request to https://***@host:5000/api failed"),
        ("https://me:p@ss@host/f?user=a@b", "https://***@host/f?user=a@b"),
        ("https://token@host/f", "https://***@host/f"),
        ("s3://key:secret@bucket/x", "s3://***@bucket/x"),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
        ("sqlite:////data/m.db", "sqlite:////data/m.db"),
    ],
)
def test_passwords_are_not_shown(uri, shown):
    assert public(uri) == shown


def test_server_that_is_down_fails_fast():
    start = time.monotonic()
    with pytest.raises(TrackingError, match=r"127\.0\.0\.1:9 cannot be reached") as raised, connect("http://127.0.0.1:9"):
        pass
    assert time.monotonic() - start < 10
    assert "qualitygate sync" in str(raised.value)


def test_file_that_is_no_database(tmp_path):
    (tmp_path / "mlflow.db").write_text("something else")
    with pytest.raises(TrackingError, match="cannot be reached"), connect(f"sqlite:///{tmp_path}/mlflow.db"):
        pass


def test_settings_hold_only_inside(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    before = dict(os.environ)
    with connect(f"sqlite:///{tmp_path}/mlflow.db"):
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "2"
        assert os.environ["MLFLOW_TRUNCATE_LONG_VALUES"] == "false"
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7"
    assert dict(os.environ) == before


def test_settings_of_overlapping_threads(monkeypatch):
    monkeypatch.delenv("QUALITYGATE_TEST", raising=False)
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with environment({"QUALITYGATE_TEST": "other"}):
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with environment({"QUALITYGATE_TEST": "ours"}):
        thread.start()
        assert entered.wait(10)
    assert os.environ["QUALITYGATE_TEST"] == "ours"  # the other thread still talks
    leave.set()
    thread.join()
    assert "QUALITYGATE_TEST" not in os.environ


INITIALISE = """
import sys, time
from qualitygate.mlflow_client import connect, experiment_id
time.sleep(max(0.0, float(sys.argv[2]) - time.time()))
with connect(sys.argv[1]) as client:
    client.create_run(experiment_id(client, sys.argv[1], "both"))
"""


def test_two_processes_initialise_one_new_database(tmp_path):
    uri = f"sqlite:///{tmp_path}/new/mlflow.db"
    command = [sys.executable, "-c", INITIALISE, uri, str(time.time() + 1)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ends = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert [out for out, _ in ends] == ["", ""]
    with connect(uri) as client:
        experiment = client.get_experiment_by_name("both")
        assert len(client.search_runs([experiment.experiment_id])) == 2
