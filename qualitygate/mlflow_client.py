"""MLflow's client alone: where MLflow is, and how to reach it quickly, quietly, and without two processes breaking one new database.

MLflow takes its manners from environment variables, read at every call. Ours hold only while we talk to it.
"""

from __future__ import annotations

import os
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qualitygate.errors import InputError, QualityGateError, TrackingError, public

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

INITIALISING_TAKES_AT_MOST = 120.0  # seconds; a new database takes a few

MANNERS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_TRUNCATE_LONG_VALUES": "false",  # a value that is too long is an error, never cut in silence
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",  # asynchronous logging loses errors
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # by default a server that is down blocks every call for minutes
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
FIRST_CONTACT = MANNERS | {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}  # a server that is there answers a small question at once
TRANSFER = MANNERS | {"MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}  # an upload is answered when the server has stored it

_NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")
_SQLITE = "sqlite:///"
_holders: Counter[str] = Counter()
_lock = threading.Lock()


def tracking_uri(given: str | None = None) -> str:
    """Where MLflow is: ``given``, else ``MLFLOW_TRACKING_URI``, else the SQLite file ``mlflow.db`` in the current folder.

    The path of a SQLite file is made absolute, so that the address means the same in another folder and to another process.
    """
    uri = given or os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}mlflow.db"
    database, (_, mark, options) = sqlite_file(uri), uri.partition("?")
    return uri if database is None else f"{_SQLITE}{database}{mark}{options}"


def sqlite_file(uri: str) -> Path | None:
    """Absolute path of the SQLite file behind an address, or None where MLflow is something else."""
    name = uri.removeprefix(_SQLITE).split("?")[0] if uri.startswith(_SQLITE) else ""
    return Path(name).absolute() if name not in ("", ":memory:") else None


@contextmanager
def connect(uri: str) -> Iterator[MlflowClient]:
    """A client of the MLflow at ``uri``, for the length of the ``with`` block; it may be used in several threads. Where there is none, that
    is known within seconds.

    Inside the block retries are short, stdout stays empty and nothing is cut. A new SQLite database is initialised here, by one process
    at a time: two at once would destroy it.
    """
    from filelock import FileLock

    what, needed = f"MLflow at {public(uri)} cannot be reached", "a tracking server that answers, or a database that can be written"
    remedy = "start it, or name another with --tracking-uri; `qualitygate sync FOLDER` sends later what is pending"
    with environment(FIRST_CONTACT), as_tracking_error(what, needed, remedy):
        from mlflow import MlflowClient

        if (database := sqlite_file(uri)) is not None:
            database.parent.mkdir(parents=True, exist_ok=True)
        with nullcontext() if database is None else FileLock(f"{database}.lock", INITIALISING_TAKES_AT_MOST):
            client = MlflowClient(uri)
        client.search_experiments(max_results=1)
    with environment(TRANSFER):
        yield client


@contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables that nobody set, and take them back in the end.

    What the user set stays as it is. Threads may overlap: a variable goes when its last holder leaves.
    """
    with _lock:
        held = [name for name in settings if name in _holders or name not in os.environ]
        os.environ.update({name: settings[name] for name in held if name not in _holders})
        _holders.update(held)
    try:
        yield
    finally:
        with _lock:
            for name in held:
                _holders[name] -= 1
                if not _holders[name]:
                    del _holders[name]
                    os.environ.pop(name, None)


def experiment_id(client: MlflowClient, uri: str, name: str) -> str:
    """The experiment's id; it is created if it is new.

    Without a server MLflow would keep the artifacts below whatever folder is current at that moment. Ours lie beside the SQLite
    file, in ``mlartifacts``.
    """
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        database = sqlite_file(uri)
        place = None if database is None else (database.parent / "mlartifacts" / re.sub(r"[^\w-]", "_", name)).as_uri()
        try:
            return client.create_experiment(name, artifact_location=place)
        except MlflowException:
            experiment = client.get_experiment_by_name(name)  # another process may have been quicker
            if experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":
        what, remedy = f"Nothing can be sent to the experiment {name!r}", "restore it in MLflow, or give another name"
        raise TrackingError(what, "an experiment that was deleted", "one that exists, or a new name", remedy)
    return experiment.experiment_id


@dataclass(frozen=True)
class Artifacts:
    """The files that MLflow keeps for a registered model or a run, to be read."""

    _repository: ArtifactRepository

    def files(self, below: str = "") -> Iterator[str]:
        """Paths of all files below a folder; nothing if it is a file, or not there."""
        for one in self._repository.list_artifacts(below or None):
            if one.is_dir:
                yield from self.files(one.path)
            else:
                yield one.path

    def download(self, path: str, folder: Path) -> Path:
        """Copy a file or folder of them into ``folder``; an empty path stands for all."""
        return Path(self._repository.download_artifacts(path, str(folder)))


@contextmanager
def artifacts(uri: str, *, model: str = "", version: str | None = None, alias: str | None = None, run_id: str = "") -> Iterator[Artifacts]:
    """The files of a version of a registered model (by number or alias), or of a run, for the length of the ``with`` block."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with reading(uri) as client:
        if alias is not None:
            version = client.get_model_version_by_alias(model, alias).version
        place = client.get_model_version_download_uri(model, str(version)) if model else f"runs:/{client.get_run(run_id).info.run_id}"
        yield Artifacts(get_artifact_repository(place, tracking_uri=uri, registry_uri=uri))


@contextmanager
def reading(uri: str) -> Iterator[MlflowClient]:
    """A client that reads, and makes no database where there is none. What is not there is an `InputError`; that there is no MLflow, or
    that it breaks off, a `TrackingError`."""
    database = sqlite_file(uri)
    if database is not None and not database.exists():  # to connect would make an empty one
        raise TrackingError("There is no MLflow to read from", f"no {database}", "the MLflow that has the files", "set MLFLOW_TRACKING_URI")
    what, remedy = f"MLflow at {public(uri)} did not give the file", "try again; see the log of the tracking server"
    with connect(uri) as client, as_tracking_error(what, "an artifact that can be downloaded", remedy):
        try:
            yield client
        except Exception as error:
            if not isinstance(error, FileNotFoundError) and getattr(error, "error_code", "") not in _NOT_THERE:
                raise
            what, needed = f"MLflow at {public(uri)} has nothing of that name", "a model version, alias, run or file that exists"
            remedy = "check the name; set MLFLOW_TRACKING_URI if it is elsewhere"
            raise InputError(what, public(str(error)), needed, remedy) from error


@contextmanager
def as_tracking_error(what: str, needed: str, remedy: str) -> Iterator[None]:
    """Whatever goes wrong with MLflow in the ``with`` block is a `TrackingError`: every kind of store has exceptions of its own."""
    try:
        yield
    except QualityGateError:
        raise
    except Exception as error:
        raise TrackingError(what, public(f"{type(error).__name__}: {error}"), needed, remedy) from error
