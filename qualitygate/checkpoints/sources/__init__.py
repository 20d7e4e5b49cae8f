"""Where a checkpoint is: a path, an address on the web, MLflow, the Hugging Face hub.

What is fetched is checked against its SHA-256 where one is given, and kept in a cache under it (see `cache`).
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from qualitygate.checkpoints.sources import cache, hub, mlflow_artifacts, web
from qualitygate.checkpoints.sources.progress import Progress, silent
from qualitygate.errors import InputError
from qualitygate.storage import file_sha256

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):/", re.IGNORECASE)
_FRAGMENT = re.compile(r"(.+)#sha256=(\w*)", re.DOTALL)
_HEX = re.compile(r"[0-9a-f]{64}")
_KNOWN = "a path, https://host/file#sha256=…, models:/name/version, models:/name@alias, runs:/run/path, hf://owner/name/file[@revision]"


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
    place, expected = _with_sha256(str(source), sha256)
    scheme = _SCHEME.match(place)
    match scheme and scheme[1].lower():
        case None:
            return _checked(Path(place), expected)
        case "http" | "https":
            return web.fetch(place, expected, progress)
        case "models" | "runs":
            return mlflow_artifacts.fetch(place, expected, tracking_uri)
        case "hf":
            return _checked(hub.fetch(place), expected)
    raise InputError("This is no place that a checkpoint can be read from", repr(place), _KNOWN, "download it first")


def shown(source: str | Path) -> str:
    """A source as it may be written into a record: without its hash, and without user, password, query and fragment of an address."""
    found = _FRAGMENT.fullmatch(str(source))
    place = found[1] if found else str(source)
    scheme = _SCHEME.match(place)
    if scheme is None or scheme[1].lower() not in ("http", "https"):
        return place
    return web.shown_address(urlsplit(place))


def _with_sha256(source: str, given: str | None) -> tuple[str, str | None]:
    """The source without its ``#sha256=…``, and the hash that it or the argument names."""
    found = _FRAGMENT.fullmatch(source)
    place, named = (found[1], found[2]) if found else (source, None)
    expected = {one.lower() for one in (named, given) if one is not None}
    if len(expected) > 1:
        raise InputError("The source names another SHA-256 than the one given", f"{named} and {given}", "one of them")
    if wrong := [one for one in expected if not _HEX.fullmatch(one)]:
        raise InputError("This is no SHA-256", repr(wrong[0]), "64 hexadecimal digits, as `sha256sum` prints them")
    return place, next(iter(expected), None)


def _checked(path: Path, expected: str | None) -> Path:
    """The path, its bytes having the expected hash; one that is not there is left for its reader to complain about."""
    if expected is not None and (path.is_file() or path.is_dir()) and (found := file_sha256(path)) != expected:
        raise cache.wrong_hash(str(path), found, expected, "take the right file, or the right hash")
    return path
