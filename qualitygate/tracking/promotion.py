"""The registry after a check: the version carries the verdict, and an alias moves only after a pass that was read back.

Two checks at once do not both promote: the alias is moved only if it still stands where it stood when the check began, and from that
look to the move no other check moves it (see `tracking.claim`). A person who moves an alias by hand asks nobody; what was moved is
therefore read again.

The registry may be another MLflow than the one that runs are sent to: ``MLFLOW_REGISTRY_URI``, as everywhere in MLflow. Models,
versions and aliases are there; runs, records and the files of checkpoints stay here.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qualitygate import names
from qualitygate.checkpoints.sources import SUFFIXES
from qualitygate.errors import InputError, TrackingError, public
from qualitygate.mlflow_client import as_tracking_error, connect, sqlite_file, tracking_uri
from qualitygate.records.check import CheckRecord, RuleState
from qualitygate.storage import file_sha256
from qualitygate.tracking.claim import create_model, file_lock, sole_mover
from qualitygate.tracking.studies import CHECK_RECORD, read_check, verdict_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient

_MODEL = re.compile(r"models:/+([^/@]+)(?:/(\d+)|@([^/@]+?))((?:/.+?)?(?:#sha256=\w*)?)", re.IGNORECASE)


@dataclass(frozen=True)
class Version:
    """A version of a registered model."""

    name: str
    version: str

    def pinned(self, source: str) -> str:
        """The source that this is the version of, whatever its alias does meanwhile; a path in the version and ``#sha256=…`` stay."""
        found = _MODEL.fullmatch(source)
        return f"models:/{self.name}/{self.version}{found[4] if found else ''}"

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


def version_of(source: str, uri: str) -> Version | None:
    """The version that ``models:/name/3`` or ``models:/name@alias`` stands for now, with or without path and ``#sha256=…``; None for any
    other source."""
    if (found := _MODEL.fullmatch(source)) is None:
        return None
    name, version, alias, _ = found.groups()
    if version is None and (version := alias_version(name, alias, uri)) is None:
        remedy = "for the first checkpoint leave --baseline out"
        raise InputError(f"{name} has no version with the alias {alias}", "none", "an alias that was set", remedy)
    return Version(name, version)


def alias_version(name: str, alias: str, uri: str) -> str | None:
    """The version that an alias stands for; None if there is no such alias, or no such model."""
    with _registry(uri) as client:
        return _alias(client, name, alias)


def register(name: str, record: CheckRecord, model_id: str, file: Path, uri: str) -> Version:
    """The candidate's version of a registered model, which is created if it is new, found by its SHA-256; its file, as it was checked, is
    uploaded to the logged model and registered if it is new."""
    sha256 = record.candidate.checkpoint_sha256
    with _registry(uri) as client, file_lock(_address()):
        create_model(client, name)
        if (known := _registered(client, name, sha256)) is not None:
            return known
        # a check takes minutes, in which a training may have written its next checkpoint to the same place
        if (found := file_sha256(file) if file.exists() else "no file") != sha256:
            what = f"{file} is not registered: the file has changed since it was checked"
            raise TrackingError(what, found, f"SHA-256 {sha256}", "check it again, from a place that nothing writes to")
        # with the checkpoint under another name too, nobody could tell which one is meant
        if all(one.path == file.name or not one.path.endswith(SUFFIXES) for one in client.list_logged_model_artifacts(model_id)):
            client.log_model_artifact(model_id, str(file))
        ours = _address() == uri  # a registry of its own knows no logged models, only where their files are
        source = f"models:/{model_id}" if ours else client.get_logged_model(model_id).artifact_location
        tags = {names.TAG_CHECKPOINT: sha256}
        made = Version(name, str(client.create_model_version(name, source, model_id=model_id if ours else None, tags=tags).version))
        first = _registered(client, name, sha256) or made
        if first != made:  # a check of the same checkpoint was quicker, on another machine
            client.delete_model_version(name, made.version)
        return first


def tag_version(version: Version, record: CheckRecord, run_id: str, uri: str) -> None:
    """Write the verdict onto a version."""
    with _registry(uri) as client:
        for key, value in verdict_tags(record, run_id).items():
            client.set_model_version_tag(version.name, version.version, key, value)


def promote(version: Version, alias: str, expected: str | None, folder: Path, run_id: str, uri: str) -> None:
    """Move an alias to a version that passed, from the one that it stood for when the check began (None for none). It is left where it is
    if it has moved since, or if what MLflow holds as the run is not the record in the check's folder."""
    record, digest = read_check(folder)
    if record.verdict is not RuleState.PASSED:
        raise InputError("Only a pass is promoted", record.verdict.value, "passed")
    with _registry(uri) as client:
        _read_back(client, version, record, digest, run_id)
        with sole_mover(client, _address(), version.name, alias, run_id) as confirm:
            if (now := _alias(client, version.name, alias)) != expected:
                raise _moved(version, alias, now, expected)
            confirm()
            client.set_registered_model_alias(version.name, alias, version.version)
            if (now := _alias(client, version.name, alias)) != version.version:
                raise _moved(version, alias, now, version.version)


def _registered(client: MlflowClient, name: str, sha256: str) -> Version | None:
    """The oldest version with this checkpoint."""
    found = [int(one.version) for one in client.search_model_versions(f"name = '{name}'") if one.tags.get(names.TAG_CHECKPOINT) == sha256]
    return Version(name, str(min(found))) if found else None


def _read_back(client: MlflowClient, version: Version, record: CheckRecord, digest: str, run_id: str) -> None:
    """The record that MLflow keeps is the one of this pass, and the version says so."""
    with tempfile.TemporaryDirectory() as place:
        stored = Path(client.download_artifacts(run_id, CHECK_RECORD, place)).read_bytes()
    tags = client.get_model_version(version.name, version.version).tags
    wrong = [key for key, value in verdict_tags(record, run_id).items() if tags.get(key) != value]
    if hashlib.sha256(stored).hexdigest() != digest:
        wrong.insert(0, CHECK_RECORD)
    if wrong:
        what, needed = f"{version} is not promoted: MLflow does not hold this check", "the record of the pass, read back as it was written"
        raise TrackingError(what, f"other values of {', '.join(wrong)}", needed, "check again")


def _moved(version: Version, alias: str, now: str | None, expected: str | None) -> TrackingError:
    return TrackingError(
        f"{version} is not promoted: another check was quicker",
        f"{alias} is version {now or 'none'}",
        f"version {expected or 'none'}, which this check was about",
        "check against the new one",
    )


def _alias(client: MlflowClient, name: str, alias: str) -> str | None:
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_model_version_by_alias(name, alias).version)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


@contextmanager
def _registry(uri: str) -> Iterator[MlflowClient]:
    """A client of the registry that belongs to this MLflow.

    For the length of the block ``MLFLOW_TRACKING_URI`` is ``uri``: a local store looks for the logged model of a new version at the global
    address, whatever its client was made for. ``MLFLOW_REGISTRY_URI`` stays as it is, so a registry of its own keeps its address.
    """
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = uri
    what, remedy = f"The registry of MLflow at {public(_address())} refused", "the verdict stands; check the name and try again"
    try:
        with as_tracking_error(what, "a registry that takes it", remedy):
            if _address() != uri and sqlite_file(_address()) is not None:
                with connect(_address()):  # a new database is initialised by one process at a time
                    pass
            with connect(uri) as client:
                yield client
    finally:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


def _address() -> str:
    """Where the registry is, inside `_registry`."""
    import mlflow

    return tracking_uri(mlflow.get_registry_uri())
