"""Checkpoints that MLflow keeps: of a registered model, or among the artifacts of a run.

MLflow knows no hashes, and artifacts may be overwritten: without a SHA-256 they are fetched anew every time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from qualitygate.checkpoints.digest import file_sha256
from qualitygate.checkpoints.packing import WEIGHTS_IN_FOLDER
from qualitygate.checkpoints.sources import cache
from qualitygate.errors import InputError, TrackingError
from qualitygate.tracking import store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

_MODEL = re.compile(r"models:/+([^/@]+)(?:/(\d+)|@([^/@]+))(?:/(.+))?", re.IGNORECASE)
_RUN = re.compile(r"runs:/+(\w+)(?:/(.+))?", re.IGNORECASE)
_SUFFIXES = (".safetensors", ".pt", ".pth", ".pkl", ".bin", ".ckpt", ".tar")
_LISTED = 8
_NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")


def fetch(source: str, sha256: str | None, tracking_uri: str | None) -> Path:
    """The checkpoint that ``models:/…`` or ``runs:/…`` stands for: the file it names, or the only one below.

    Raises:
        InputError: no such form, model, run or artifact, or several checkpoints.
        CheckpointError: it has another SHA-256.
        TrackingError: MLflow cannot be reached.
    """
    if sha256 is not None:
        with cache.place(sha256) as home:
            if (found := cache.kept(home, sha256)) is not None:
                return found
    with cache.workspace() as folder:
        fetched = _download(source, folder, store.tracking_uri(tracking_uri))
        digest = file_sha256(fetched)
        if sha256 not in (None, digest):
            raise cache.wrong_hash(
                source, digest, sha256, "check hash and source: the artifact may have been overwritten"
            )
        with cache.place(digest) as home:
            return cache.kept(home, digest) or cache.keep(fetched, home, fetched.name)


def _download(source: str, folder: Path, uri: str) -> Path:
    import requests
    from mlflow.exceptions import MlflowException

    database = store.sqlite_file(uri)
    if database is not None and not database.exists():  # to connect would make an empty one
        raise TrackingError(
            f"{source} needs MLflow", f"no {database}", "the MLflow that has it", "set MLFLOW_TRACKING_URI"
        )
    with store.connect(uri) as client:
        try:
            artifacts, below = _repository(source, client, uri)
            chosen = _choose(source, sorted(_files(artifacts, below)) or [below])
            return Path(artifacts.download_artifacts(chosen, str(folder)))
        except MlflowException as error:
            raise _explained(source, uri, error) from error
        except requests.RequestException as error:
            raise _explained(source, uri, error) from error
        except FileNotFoundError as error:  # an artifact store that is a folder
            raise InputError(
                f"MLflow has no {source}", str(error), "an artifact of that path", "check the path"
            ) from error


def _repository(source: str, client: MlflowClient, uri: str) -> tuple[ArtifactRepository, str]:
    """Where the artifacts are, and the path that the source names below it."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    if found := _MODEL.fullmatch(source):
        name, version, alias, below = found.groups()
        if alias is not None:
            version = client.get_model_version_by_alias(name, alias).version
        place = client.get_model_version_download_uri(name, version)
    elif found := _RUN.fullmatch(source):
        run, below = found.groups()
        place = f"runs:/{client.get_run(run).info.run_id}"
    else:
        raise InputError(
            "This is no place in MLflow", repr(source), "models:/name/version, models:/name@alias or runs:/run_id/path"
        )
    return get_artifact_repository(place, tracking_uri=uri, registry_uri=uri), below or ""


def _files(artifacts: ArtifactRepository, below: str) -> Iterator[str]:
    """Paths of all files below a folder; nothing if it is a file."""
    for one in artifacts.list_artifacts(below or None):
        if one.is_dir:
            yield from _files(artifacts, one.path)
        else:
            yield one.path


def _choose(source: str, files: list[str]) -> str:
    """The checkpoint among the files: a file, or the folder of a Hugging Face model."""
    found = [file for file in files if file.endswith(_SUFFIXES)] if len(files) > 1 else files
    if len(found) != 1 or not found[0]:
        have = found or [file for file in files if file] or ["nothing"]
        more = f" and {len(have) - _LISTED} more" if len(have) > _LISTED else ""
        raise InputError(f"{source} is not one checkpoint", ", ".join(have[:_LISTED]) + more, "one file with weights",
                         "name the one that is meant: append /path")  # fmt: skip
    path = PurePosixPath(found[0])
    is_folder = path.name in WEIGHTS_IN_FOLDER and str(path.with_name("config.json")) in files
    chosen = path.parent if is_folder else path
    return str(chosen) if chosen.name else ""  # the folder may be the whole place


def _explained(source: str, uri: str, error: Exception) -> InputError | TrackingError:
    reason = store.public(str(error))
    if getattr(error, "error_code", "") in _NOT_THERE:
        return InputError(f"MLflow at {store.public(uri)} has no {source}", reason, "a model version, alias or run that exists",
                          "check the name; set MLFLOW_TRACKING_URI if it is elsewhere")  # fmt: skip
    return TrackingError(f"MLflow at {store.public(uri)} did not give {source}", reason, "an artifact that can be downloaded",
                         "try again; see the log of the tracking server")  # fmt: skip
