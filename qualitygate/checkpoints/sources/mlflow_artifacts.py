"""Checkpoints that MLflow keeps: of a registered model, or among the artifacts of a run.

MLflow knows no hashes, and artifacts may be overwritten: without a SHA-256 they are fetched anew every time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from qualitygate.checkpoints.reader import WEIGHTS_IN_FOLDER
from qualitygate.checkpoints.sources import cache
from qualitygate.errors import InputError
from qualitygate.mlflow_client import Artifacts, artifacts
from qualitygate.mlflow_client import tracking_uri as resolved
from qualitygate.storage import file_sha256

_MODEL = re.compile(r"models:/+([^/@]+)(?:/(\d+)|@([^/@]+))(?:/(.+))?", re.IGNORECASE)
_RUN = re.compile(r"runs:/+(\w+)(?:/(.+))?", re.IGNORECASE)
SUFFIXES = (".safetensors", ".pt", ".pth", ".pkl", ".bin", ".ckpt", ".tar")
_LISTED = 8


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
        fetched = _download(source, folder, resolved(tracking_uri))
        digest = file_sha256(fetched)
        if sha256 not in (None, digest):
            raise cache.wrong_hash(source, digest, sha256, "check hash and source: the artifact may have been overwritten")
        with cache.place(digest) as home:
            return cache.kept(home, digest) or cache.keep(fetched, home, fetched.name)


def _download(source: str, folder: Path, uri: str) -> Path:
    with _opened(source, uri) as (artifacts, below):
        return artifacts.download(_choose(source, sorted(artifacts.files(below)) or [below]), folder)


@contextmanager
def _opened(source: str, uri: str) -> Iterator[tuple[Artifacts, str]]:
    """Where the artifacts are, and the path that the source names in there."""
    if found := _MODEL.fullmatch(source):
        model, version, alias, below = found.groups()
        place = artifacts(uri, model=model, version=version, alias=alias)
    elif found := _RUN.fullmatch(source):
        run_id, below = found.groups()
        place = artifacts(uri, run_id=run_id)
    else:
        raise InputError("This is no place in MLflow", repr(source), "models:/name/version, models:/name@alias or runs:/run_id/path")
    with place as opened:
        yield opened, below or ""


def _choose(source: str, files: list[str]) -> str:
    """The checkpoint among the files: a file, or the folder of a Hugging Face model."""
    found = [file for file in files if file.endswith(SUFFIXES)] if len(files) > 1 else files
    if len(found) != 1 or not found[0]:
        have = found or [file for file in files if file] or ["nothing"]
        more = f" and {len(have) - _LISTED} more" if len(have) > _LISTED else ""
        raise InputError(
            f"{source} is not one checkpoint",
            ", ".join(have[:_LISTED]) + more,
            "one file with weights",
            "name the one that is meant: append /path",
        )
    path = PurePosixPath(found[0])
    is_folder = path.name in WEIGHTS_IN_FOLDER and str(path.with_name("config.json")) in files
    chosen = path.parent if is_folder else path
    return str(chosen) if chosen.name else ""  # the folder may be the whole place
