"""Files that were fetched, each in a folder named after its SHA-256. What has a name in there is whole and verified.

Whatever is still on its way has a hidden name; it is synced to disk and renamed when it is complete and has the right
hash. One process at a time works in a folder, others wait and then find what the first has fetched.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from qualitygate import storage
from qualitygate.errors import CheckpointError
from qualitygate.storage import file_sha256


@contextmanager
def place(sha256: str) -> Iterator[Path]:
    """The folder of the file with this hash, held against other processes.

    Raises:
        StorageError: it cannot be made or written to.
    """
    home = storage.cache_folder() / sha256
    with storage.explained(home):
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(home / ".lock"):
            yield home


@contextmanager
def workspace() -> Iterator[Path]:
    """A temporary folder on the cache's disk, for what is fetched before its hash is known."""
    with storage.explained(storage.cache_folder()):
        storage.cache_folder().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".incoming-", dir=storage.cache_folder()) as name:
            home = Path(name) / "model"
            home.mkdir()
            yield home


def kept(home: Path, sha256: str) -> Path | None:
    """The file (or folder) in the place of this hash; one that was changed since is removed."""
    for path in home.iterdir():
        if path.name.startswith("."):
            continue
        if file_sha256(path) == sha256:
            return path
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return None


def keep(fetched: Path, home: Path, name: str) -> Path:
    """Make a verified file or folder visible under its name."""
    for path in (*(fetched.iterdir() if fetched.is_dir() else ()), fetched):
        storage.sync(path)
    final = fetched.rename(home / _plain(name))
    storage.sync(home)
    return final


def wrong_hash(what: str, found: str, expected: str, remedy: str) -> CheckpointError:
    """The error for bytes that are not the ones meant."""
    return CheckpointError(f"{what} is another file than the one meant", f"SHA-256 {found}", f"SHA-256 {expected}", remedy)


def _plain(name: str) -> str:
    """A name that is visible, and no path."""
    return Path(name).name.lstrip(".") or "checkpoint"
