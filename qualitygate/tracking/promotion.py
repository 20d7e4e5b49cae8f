"""The registry after a check: the version carries the verdict, and an alias moves only after a pass that was read back.

Two checks at once do not both promote: the alias is moved only if it still stands where it stood when the check began. MLflow has no
compare-and-set, so against a server a moment remains between the last look and the move; what was moved is read again, and a loser of
that moment is told. A local SQLite store is held by a lock, and there nothing remains.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qualitygate.errors import InputError, QualityGateError, TrackingError
from qualitygate.records import CheckRecord, RuleState
from qualitygate.tracking.check import RECORD, read_check, verdict_tags
from qualitygate.tracking.describe import CHECKPOINT
from qualitygate.tracking.logging import Logged
from qualitygate.tracking.store import connect, public, sqlite_file

if TYPE_CHECKING:
    from mlflow import MlflowClient

_MODEL = re.compile(r"models:/+([^/@]+)(?:/(\d+)|@([^/@]+))(/.+)?", re.IGNORECASE)
_LOCK_TAKES_AT_MOST = 120.0  # seconds


@dataclass(frozen=True)
class Version:
    """A version of a registered model."""

    name: str
    version: str

    @property
    def source(self) -> str:
        """Where a checkpoint is loaded from, whatever aliases do meanwhile."""
        return f"models:/{self.name}/{self.version}"

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


def version_of(source: str, uri: str) -> Version | None:
    """The version that ``models:/name/3`` or ``models:/name@alias`` stands for now; None for any other source.

    Raises:
        InputError: no such alias.
        TrackingError: MLflow cannot be reached.
    """
    if (found := _MODEL.fullmatch(source)) is None:
        return None
    name, version, alias, _ = found.groups()
    if version is None and (version := alias_version(name, alias, uri)) is None:
        raise InputError(f"{name} has no version with the alias {alias}", "none", "an alias that was set",
                         "for the first checkpoint leave --baseline out")  # fmt: skip
    return Version(name, version)


def alias_version(name: str, alias: str, uri: str) -> str | None:
    """The version that an alias stands for; None if there is no such alias, or no such model."""
    with _registry(uri) as client:
        return _alias(client, name, alias)


def register(name: str, record: CheckRecord, logged: Logged, file: Path, uri: str) -> Version:
    """The candidate's version in the registry, found by its SHA-256; its file is uploaded and registered if it is new."""
    sha256 = record.candidate.checkpoint_sha256
    with _registry(uri) as client, _held(uri):
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
        for one in client.search_model_versions(f"name = '{name}'"):
            if one.tags.get(CHECKPOINT) == sha256:
                return Version(name, str(one.version))
        client.log_model_artifact(logged.model_id, str(file))
        made = client.create_model_version(
            name, f"models:/{logged.model_id}", model_id=logged.model_id, tags={CHECKPOINT: sha256}
        )
        return Version(name, str(made.version))


def tag_version(version: Version, record: CheckRecord, run_id: str, uri: str) -> None:
    """Write the verdict onto a version."""
    with _registry(uri) as client:
        for key, value in verdict_tags(record, run_id).items():
            client.set_model_version_tag(version.name, version.version, key, value)


def promote(version: Version, alias: str, expected: str | None, folder: Path, run_id: str, uri: str) -> None:
    """Move an alias to a version that passed.

    Args:
        version: the candidate's.
        alias: e.g. ``champion``.
        expected: version that the alias stood for when the check began; None for none.
        folder: of the check.
        run_id: where its record was sent.
        uri: of MLflow.

    Raises:
        InputError: the check did not pass.
        TrackingError: what MLflow holds is not the record of this pass, or the alias has moved since. It is left where it is.
    """
    record, digest = read_check(folder)
    if record.verdict is not RuleState.PASSED:
        raise InputError("Only a pass is promoted", record.verdict.value, "passed")
    with _registry(uri) as client, _held(uri):
        _read_back(client, version, record, digest, run_id)
        if (now := _alias(client, version.name, alias)) != expected:
            raise _moved(version, alias, now, expected)
        client.set_registered_model_alias(version.name, alias, version.version)
        if (now := _alias(client, version.name, alias)) != version.version:
            raise _moved(version, alias, now, version.version)


def _read_back(client: MlflowClient, version: Version, record: CheckRecord, digest: str, run_id: str) -> None:
    """The record that MLflow keeps is the one of this pass, and the version says so."""
    with tempfile.TemporaryDirectory() as place:
        stored = Path(client.download_artifacts(run_id, RECORD, place)).read_bytes()
    tags = client.get_model_version(version.name, version.version).tags
    wrong = [key for key, value in verdict_tags(record, run_id).items() if tags.get(key) != value]
    if hashlib.sha256(stored).hexdigest() != digest:
        wrong.insert(0, RECORD)
    if wrong:
        raise TrackingError(f"{version} is not promoted: MLflow does not hold this check", f"other values of {', '.join(wrong)}",
                            "the record of the pass, read back as it was written", "check again")  # fmt: skip


def _moved(version: Version, alias: str, now: str | None, expected: str | None) -> TrackingError:
    return TrackingError(f"{version} is not promoted: another check was quicker", f"{alias} is version {now or 'none'}",
                         f"version {expected or 'none'}, which this check was about", "check against the new one")  # fmt: skip


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
    """A client whose registry calls go to this MLflow: some of them ask the environment, whatever client makes them."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = uri
    try:
        with connect(uri) as client:
            yield client
    except QualityGateError:
        raise
    except Exception as error:  # registries raise their own clients' exceptions
        raise TrackingError(f"The registry of MLflow at {public(uri)} refused", public(f"{type(error).__name__}: {error}"),
                            "a registry that takes it", "the verdict stands; check the name and try again") from error  # fmt: skip
    finally:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


def _held(uri: str):  # type: ignore[no-untyped-def]
    """A lock beside a local store; nothing for a server, which other machines use as well."""
    from filelock import FileLock

    database = sqlite_file(uri)
    return nullcontext() if database is None else FileLock(f"{database}.promotion.lock", _LOCK_TAKES_AT_MOST)
