"""Files of the Hugging Face hub, through its own library (extra ``hub``), which downloads, resumes and caches."""

from __future__ import annotations

import re
from pathlib import Path

from qualitygate.errors import InputError, MissingExtraError, StorageError

_SOURCE = re.compile(r"hf://([^/@]+/[^/@]+)/([^@]+?)(?:@([^@]+))?", re.IGNORECASE)


def fetch(source: str) -> Path:
    """The file that ``hf://owner/name/file@revision`` names, in the library's cache.

    Raises:
        InputError: no such form, repository, revision or file, or it needs a login.
        MissingExtraError: the library is not installed.
        StorageError: the hub cannot be reached.
    """
    if (parts := _SOURCE.fullmatch(source)) is None:
        raise InputError("This is no file on the hub", repr(source), "hf://owner/name/file, with @revision if need be")
    try:
        from huggingface_hub import errors, hf_hub_download
    except ImportError as error:
        raise MissingExtraError(
            f"{source} needs the library of the Hugging Face hub", str(error), "huggingface_hub", "pip install huggingface_hub"
        ) from error
    repository, name, revision = parts.groups()
    try:
        return Path(hf_hub_download(repository, name, revision=revision))
    except errors.LocalEntryNotFoundError as error:  # the hub was not asked, or did not answer
        raise _unreachable(source, error) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError, errors.HFValidationError) as error:
        raise InputError(
            f"{source} cannot be downloaded",
            _first_line(error),
            "a file that the hub has, and may give",
            "check owner, name, file and revision; `hf auth login` for what is not public",
        ) from error
    except OSError as error:  # what the library and its connections raise
        raise _unreachable(source, error) from error


def _unreachable(source: str, error: Exception) -> StorageError:
    return StorageError(
        f"{source} could not be downloaded",
        _first_line(error),
        "a connection to the hub",
        "check the network and run it again; what has come is continued",
    )


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]
