"""Files from the web: whole or not at all, and continued where a download broke off; and where what was fetched is kept.

Each stands in a folder of the cache named after its SHA-256. What has a name in there is whole and verified. Whatever is still on its way
has a hidden name; it is synced to disk and renamed when it is complete and has the right hash. One process at a time works in a folder,
others wait and then find what the first has fetched. Unlike what was computed (`storage.ContentCache`), it is checked against the hash of
its own bytes, and what cannot be kept is an error.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from filelock import FileLock

from qualitygate import storage
from qualitygate.errors import CheckpointError, InputError, StorageError
from qualitygate.storage import file_sha256

ATTEMPTS = 4
PAUSE = 1.0  # seconds before the second attempt, doubled before each further one
_TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two pieces
_PART, _VERSION = ".part", ".part.version"  # a download on its way, and of which version of the file it is: ETag or date
_PIECE = 2**16  # bytes; what has come of a piece is lost when the connection breaks
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
_NOT_SATISFIABLE = 416  # the part is as long as the file

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there, and with how many there will be if the server said."""


def silent(done: int, total: int | None) -> None:
    """A `Progress` that shows nothing."""


def fetch(url: str, sha256: str | None, progress: Progress) -> Path:
    """The file at an address, from the cache if it is there. Where the connection breaks too often, the next call continues."""
    address = _checked(url)
    shown = shown_address(address)
    if sha256 is None:
        raise InputError(
            f"{shown} could be any file",
            "an address without a SHA-256",
            "https://host/file#sha256=… or --sha256",
            "take the hash from where the file is published, or from a download that you trust",
        )
    name = unquote(address.path.rpartition("/")[2]) or "checkpoint"
    with place(sha256) as (home, found):
        if found is not None:
            return found
        _download(url, shown, home, progress)
        if (digest := file_sha256(home / _PART)) != sha256:
            _discard(home)
            raise wrong_hash(shown, digest, sha256, "check hash and address; the download was thrown away")
        final = keep(home / _PART, home, name)
        _discard(home)
        return final


def _resumable(home: Path) -> tuple[int, str]:
    """Bytes that are there, and of which version of the file they are. Without a version they cannot be continued: 0 bytes."""
    part, note = home / _PART, home / _VERSION
    version = note.read_text() if note.exists() else ""
    return (part.stat().st_size if version and part.exists() else 0), version


def _discard(home: Path) -> None:
    for name in (_PART, _VERSION):
        (home / name).unlink(missing_ok=True)


def _download(url: str, shown: str, home: Path, progress: Progress) -> None:
    """All of the file into the part, in several attempts if the connection breaks."""
    import requests

    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE * 2 ** (attempt - 1))
        try:
            return _attempt(url, shown, home, progress)
        except requests.RequestException as error:
            failure = error
    raise StorageError(
        f"{shown} could not be downloaded",
        f"{type(failure).__name__}: {failure}",
        "a connection that holds",
        f"check the network and run it again: {_resumable(home)[0]:,} bytes are there and will be continued",
    ) from failure


def _attempt(url: str, shown: str, home: Path, progress: Progress) -> None:
    import requests

    def check_redirection(response: Any, **_: Any) -> None:  # called before the next request is sent
        if response.is_redirect:
            _checked(urljoin(response.url, response.headers["Location"]))

    start, version = _resumable(home)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-", "If-Range": version} if start else {})
    hooks = {"response": check_redirection}
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT, hooks=hooks) as response:
        if start and response.status_code == _NOT_SATISFIABLE:
            return
        if 400 <= response.status_code < 500 and response.status_code not in (408, 429):  # no better next time
            found = f"{response.status_code} {response.reason}"
            raise InputError(f"{shown} cannot be downloaded", found, "an address that can be read without a login", "check the address")
        response.raise_for_status()
        if response.status_code != requests.codes.partial:
            start = 0
            _discard(home)
            tag = response.headers.get("ETag", "")
            # a weak ETag does not tell whether the file is still the same
            (home / _VERSION).write_text(tag if tag.startswith('"') else response.headers.get("Last-Modified", ""))
        total = _total(response.headers, start)
        done = start
        with (home / _PART).open("ab") as file:
            for piece in response.iter_content(_PIECE):
                file.write(piece)
                done += len(piece)
                progress(done, total)
    if total is not None and done != total:
        raise requests.ConnectionError(f"it broke off after {done:,} of {total:,} bytes")


def _total(headers: Mapping[str, str], start: int) -> int | None:
    """Length of the whole file; None if the server does not say, or compresses although it was asked not to."""
    import requests

    if (given := headers.get("Content-Range")) is not None and start:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", given)
        if found is None or int(found[1]) != start:
            raise requests.ConnectionError(f"asked for the bytes from {start:,} on, the server sent {given}")
        return int(found[2])
    length = headers.get("Content-Length", "")
    return start + int(length) if length.isdigit() and "Content-Encoding" not in headers else None


def _checked(url: str) -> SplitResult:
    """The parts of an address over which nobody can read along; plain http is for servers on this machine."""
    try:
        address = urlsplit(url)
        host, _ = address.hostname, address.port
    except ValueError as error:
        raise InputError("This is no address", str(error), "https://host/file") from error
    if not host or (address.scheme.lower() == "http" and host not in _THIS_MACHINE):
        raise InputError(
            f"{shown_address(address)} is not downloaded", "an address without https" if host else "no host", "https://host/file"
        )
    return address


def shown_address(address: SplitResult) -> str:
    """The address without what may be secret: user, password, signature."""
    return f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path}"


@contextmanager
def place(sha256: str) -> Iterator[tuple[Path, Path | None]]:
    """The folder of the file (or folder) with this hash, held against other processes, and the file, if it is there.

    What was changed since it was kept is removed. Raises `StorageError` where the folder cannot be written to.
    """
    home = storage.cache_folder() / sha256
    with storage.explained(home):
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(home / ".lock"):
            found = None
            for path in home.iterdir():
                if path.name.startswith("."):
                    continue
                if file_sha256(path) == sha256:
                    found = path
                else:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            yield home, found


@contextmanager
def workspace() -> Iterator[Path]:
    """A temporary folder on the cache's disk, for what is fetched before its hash is known."""
    with storage.explained(storage.cache_folder()):
        storage.cache_folder().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".incoming-", dir=storage.cache_folder()) as name:
            home = Path(name) / "model"
            home.mkdir()
            yield home


def keep(fetched: Path, home: Path, name: str) -> Path:
    """Make a verified file or folder visible under its name, which is made one that is no path."""
    for path in (*(fetched.iterdir() if fetched.is_dir() else ()), fetched):
        storage.sync(path)
    final = fetched.rename(home / (Path(name).name.lstrip(".") or "checkpoint"))
    storage.sync(home)
    return final


def wrong_hash(what: str, found: str, expected: str, remedy: str) -> CheckpointError:
    return CheckpointError(f"{what} is another file than the one meant", f"SHA-256 {found}", f"SHA-256 {expected}", remedy)
