"""Where a checkpoint is: a path, an address on the web, MLflow, the Hugging Face hub.

What is fetched is checked against its SHA-256 where one is given, and kept in a cache under it (see `web`).
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from qualitygate.checkpoints.reader import WEIGHTS_IN_FOLDER
from qualitygate.checkpoints.sources import web
from qualitygate.checkpoints.sources.web import Progress, silent
from qualitygate.errors import InputError, MissingExtraError, StorageError
from qualitygate.mlflow_client import artifacts
from qualitygate.mlflow_client import tracking_uri as resolved
from qualitygate.storage import file_sha256

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):/", re.IGNORECASE)
_FRAGMENT = re.compile(r"(.+)#sha256=(\w*)", re.DOTALL)
_KNOWN = "a path, https://host/file#sha256=…, models:/name/version, models:/name@alias, runs:/run/path, hf://owner/name/file[@revision]"
_HUB_FILE = re.compile(r"hf://([^/@]+/[^/@]+)/([^@]+?)(?:@([^@]+))?", re.IGNORECASE)
_MODEL = re.compile(r"models:/+([^/@]+)(?:/(\d+)|@([^/@]+))(?:/(.+))?", re.IGNORECASE)
_RUN = re.compile(r"runs:/+(\w+)(?:/(.+))?", re.IGNORECASE)
SUFFIXES = (".safetensors", ".pt", ".pth", ".pkl", ".bin", ".ckpt", ".tar")
_LISTED = 8


def resolve(source: str | Path, sha256: str | None = None, *, tracking_uri: str | None = None, progress: Progress = silent) -> Path:
    """The local file (or Hugging Face folder) that a source stands for, fetched if need be.

    Args:
        source: a path; ``https://host/file`` (``http`` on this machine only); ``models:/name/version`` or
            ``models:/name@alias``, ``/path`` in it where it holds several checkpoints; ``runs:/run_id/path``;
            ``hf://owner/name/file@revision``. Any of them may end in ``#sha256=…``.
        sha256: of the file's bytes, in hexadecimal; required for the web, where nothing else says what is meant.
        tracking_uri: the MLflow to ask; default as in `qualitygate.mlflow_client.tracking_uri`.
        progress: called while a file comes from the web.

    Raises:
        InputError: no source of a known kind, no SHA-256 where one is needed, or nothing is there.
        CheckpointError: the bytes have another SHA-256.
        StorageError: the download broke off, or the cache cannot be written. What has come is kept and continued.
        TrackingError: MLflow cannot be reached.
        MissingExtraError: ``hf://`` without the extra ``hub``.
    """
    place, named, scheme = _parts(source)
    expected = _agreed(named, sha256)
    match scheme:
        case "":
            return _checked(Path(place), expected)
        case "http" | "https":
            return web.fetch(place, expected, progress)
        case "models" | "runs":
            return _from_mlflow(place, expected, tracking_uri)
        case "hf":
            return _checked(_from_hub(place), expected)
    raise InputError("This is no place that a checkpoint can be read from", repr(place), _KNOWN, "download it first")


def shown(source: str | Path) -> str:
    """A source as it may be written into a record: without its hash, and without user, password, query and fragment of an address."""
    place, _, scheme = _parts(source)
    return web.shown_address(urlsplit(place)) if scheme in ("http", "https") else place


def _parts(source: str | Path) -> tuple[str, str | None, str]:
    """The source without its ``#sha256=…``, the hash that this names, and the scheme."""
    found = _FRAGMENT.fullmatch(str(source))
    place, named = (found[1], found[2]) if found else (str(source), None)
    scheme = _SCHEME.match(place)
    return place, named, scheme[1].lower() if scheme else ""


def _agreed(named: str | None, given: str | None) -> str | None:
    """The hash that the source or the argument names."""
    expected = {one.lower() for one in (named, given) if one is not None}
    if len(expected) > 1:
        raise InputError("The source names another SHA-256 than the one given", f"{named} and {given}", "one of them")
    if wrong := [one for one in expected if not re.fullmatch(r"[0-9a-f]{64}", one)]:
        raise InputError("This is no SHA-256", repr(wrong[0]), "64 hexadecimal digits, as `sha256sum` prints them")
    return next(iter(expected), None)


def _checked(path: Path, expected: str | None) -> Path:
    """The path, its bytes having the expected hash; one that is not there is left for its reader to complain about."""
    if expected is not None and (path.is_file() or path.is_dir()) and (found := file_sha256(path)) != expected:
        raise web.wrong_hash(str(path), found, expected, "take the right file, or the right hash")
    return path


# MLflow knows no hashes, and artifacts may be overwritten: without a SHA-256 they are fetched anew every time.


def _from_mlflow(source: str, sha256: str | None, tracking_uri: str | None) -> Path:
    """The checkpoint that ``models:/…`` or ``runs:/…`` stands for: the file it names, or the only one below."""
    if sha256 is not None:
        with web.place(sha256) as (_, found):
            if found is not None:
                return found
    uri = resolved(tracking_uri)
    if parts := _MODEL.fullmatch(source):
        model, version, alias, below = parts.groups(default="")
        place = artifacts(uri, model=model, version=version or None, alias=alias or None)
    elif parts := _RUN.fullmatch(source):
        run_id, below = parts.groups(default="")
        place = artifacts(uri, run_id=run_id)
    else:
        raise InputError("This is no place in MLflow", repr(source), "models:/name/version, models:/name@alias or runs:/run_id/path")
    with web.workspace() as folder:
        with place as opened:
            fetched = opened.download(_choose(source, sorted(opened.files(below)) or [below]), folder)
        digest = file_sha256(fetched)
        if sha256 not in (None, digest):
            raise web.wrong_hash(source, digest, sha256, "check hash and source: the artifact may have been overwritten")
        with web.place(digest) as (home, found):
            return found or web.keep(fetched, home, fetched.name)


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


def _from_hub(source: str) -> Path:
    """The file that ``hf://owner/name/file@revision`` names, in the library's cache."""
    if (parts := _HUB_FILE.fullmatch(source)) is None:
        raise InputError("This is no file on the hub", repr(source), "hf://owner/name/file, with @revision if need be")
    try:
        from huggingface_hub import errors, hf_hub_download
    except ImportError as error:
        raise MissingExtraError(
            f"{source} needs the library of the Hugging Face hub", str(error), "huggingface_hub", "pip install huggingface_hub"
        ) from error
    repository, name, revision = parts.groups()
    answers = (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError, errors.HFValidationError)
    try:
        return Path(hf_hub_download(repository, name, revision=revision))
    except (OSError, *answers) as error:
        said = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        # a local entry is not found where the hub was not asked, or did not answer
        if isinstance(error, answers) and not isinstance(error, errors.LocalEntryNotFoundError):
            raise InputError(
                f"{source} cannot be downloaded",
                said,
                "a file that the hub has, and may give",
                "check owner, name, file and revision; `hf auth login` for what is not public",
            ) from error
        remedy = "check the network and run it again; what has come is continued"
        raise StorageError(f"{source} could not be downloaded", said, "a connection to the hub", remedy) from error
