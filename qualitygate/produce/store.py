"""Where a set is kept: a local folder, or ``s3://…``, ``gs://…`` and whatever else pyarrow can write to, with nothing to configure but what
the store's own clients read (``AWS_ENDPOINT_URL``, …). What is written has a temporary name until it is whole."""

from __future__ import annotations

import abc
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from pyarrow import ArrowInvalid, ArrowNotImplementedError
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem, copy_files

from qualitygate import storage
from qualitygate.errors import InputError, StorageError, public

_PARTIAL = ".partial"
_WAITS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # seconds between attempts at a store over the network: half a minute in which it may come back
_CHUNK = 2**23
_AT_ONCE = 16  # files on their way to a store over the network

_T = TypeVar("_T")


class Store(abc.ABC):
    """A place for the files of one set. Names are relative and use slashes."""

    @abc.abstractmethod
    def read(self, name: str) -> bytes | None:
        """Contents of a file; None if there is none."""

    @abc.abstractmethod
    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """A local path of a file or folder that is there: its own, or a copy, which is gone afterwards."""

    def names(self, folder: str) -> list[str]:
        """Names of what lies directly in a folder, sorted; none if there is no such folder."""
        return sorted(name for name, _ in self.entries(folder))

    @abc.abstractmethod
    def entries(self, folder: str) -> Iterator[tuple[str, int]]:
        """Name and bytes of everything that lies directly in a folder."""

    def put(self, name: str, data: bytes) -> None:
        """Write a file, over an older one."""
        with self.workplace() as place, storage.explained(place):
            (place / "file").write_bytes(data)
            self.adopt(place / "file", name)

    @abc.abstractmethod
    def create(self, name: str, data: bytes) -> bool:
        """Write a file unless there is one; says whether it was written."""

    @abc.abstractmethod
    def adopt(self, path: Path, name: str) -> None:
        """Move a finished local file or folder to its name here. A folder that is there already has the same contents, and stays."""

    @abc.abstractmethod
    def adopt_files(self, path: Path, folder: str) -> None:
        """Move the files of a finished local folder into a folder here, over those of the same names. They are not synced one by one."""

    @abc.abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file or folder, if it is there."""

    @abc.abstractmethod
    @contextmanager
    def workplace(self) -> Iterator[Path]:
        """An empty local folder to make things in; gone afterwards."""

    def sweep(self) -> None:
        """Remove what writers that were killed left behind. Only when nobody writes."""
        self.remove(_PARTIAL)


def local_path(place: str | Path) -> Path | None:
    """The absolute path of a place on a disk; None for one in a store."""
    scheme, found, path = str(place).partition("://")
    return None if found and scheme != "file" else Path(path if found else place).absolute()


def open_store(place: str | Path) -> Store:
    """The store at a local path or a URI. Raises `InputError` if there is no such kind of store."""
    if (folder := local_path(place)) is not None:
        return LocalStore(folder)
    try:
        files, path = FileSystem.from_uri(str(place))
    except (ArrowInvalid, ArrowNotImplementedError, OSError) as error:
        raise InputError(
            f"Cannot use the store {public(str(place))}", public(str(error)), "a local folder, s3://bucket/path, gs://bucket/path"
        ) from error
    return RemoteStore(files, path.rstrip("/"), public(str(place)))


class LocalStore(Store):
    """A folder, created when it is first written to. Files are synced before they are renamed."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __str__(self) -> str:
        return str(self.root)

    def read(self, name: str) -> bytes | None:
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError:
            return None

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        yield self.root / name

    def entries(self, folder: str) -> Iterator[tuple[str, int]]:
        if (self.root / folder).is_dir():
            with os.scandir(self.root / folder) as found:
                for one in found:
                    with suppress(FileNotFoundError):  # another writer's, gone by now
                        yield one.name, one.stat().st_size

    def create(self, name: str, data: bytes) -> bool:
        target = self.root / name
        with self.workplace() as place, storage.explained(target):
            (place / "file").write_bytes(data)
            storage.sync(place / "file")
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(place / "file", target)  # unlike a rename, never over another
            except FileExistsError:
                return False
            storage.sync(target.parent)
        return True

    def adopt(self, path: Path, name: str) -> None:
        target = self.root / name
        with storage.explained(target):
            for one in [*(path.iterdir() if path.is_dir() else ()), path]:
                storage.sync(one)
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.is_dir():
                path.replace(target)
            storage.sync(target.parent)

    def adopt_files(self, path: Path, folder: str) -> None:
        target = self.root / folder
        with storage.explained(target):
            target.mkdir(parents=True, exist_ok=True)
            for one in path.iterdir():
                one.replace(target / one.name)
            storage.sync(target)

    def remove(self, name: str) -> None:
        target = self.root / name
        with storage.explained(target):
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)

    @contextmanager
    def workplace(self) -> Iterator[Path]:
        place = self.root / _PARTIAL / uuid.uuid4().hex
        with storage.explained(place):
            place.mkdir(parents=True)
            try:
                yield place
            finally:
                shutil.rmtree(place, ignore_errors=True)  # its parent stays: others may be about to work in it


class RemoteStore(Store):
    """An object store. Things are made locally, sent under a temporary name, looked at there, and then moved to their own.

    A refusal is waited out for about half a minute. `create` looks before it writes: of two writers at the very same moment the last one
    stays, which is as good, since each wrote what it names. ``files`` is pyarrow's file system, ``base`` a path in it.
    """

    def __init__(self, files: Any, base: str, name: str) -> None:
        self._files, self._base, self._name = files, base, name

    def __str__(self) -> str:
        return self._name

    def read(self, name: str) -> bytes | None:
        def once() -> bytes | None:
            try:
                with self._files.open_input_file(self._path(name)) as file:
                    data: bytes = file.read()
                    return data
            except FileNotFoundError:
                return None

        return self._persist(once)

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        with self.workplace() as place:
            path = place / Path(name).name
            self._persist(lambda: copy_files(self._path(name), str(path), self._files, LocalFileSystem()))
            yield path

    def entries(self, folder: str) -> Iterator[tuple[str, int]]:
        selector = FileSelector(self._path(folder), allow_not_found=True)
        yield from ((one.base_name, one.size or 0) for one in self._persist(lambda: self._files.get_file_info(selector)))

    def create(self, name: str, data: bytes) -> bool:
        if self.read(name) is not None:
            return False
        self.put(name, data)
        return True

    def adopt(self, path: Path, name: str) -> None:
        if path.is_dir():  # there is no renaming a folder here: nobody looks at it before its row is in the manifest
            self.adopt_files(path, name)
            return
        partial, target, size = self._path(f"{_PARTIAL}/{uuid.uuid4().hex}"), self._path(name), path.stat().st_size

        def once() -> None:
            if self._files.type_name not in ("s3", "gcs", "abfs"):
                self._files.create_dir(self._path(_PARTIAL))
                self._files.create_dir(target.rpartition("/")[0])
            with path.open("rb") as source, self._files.open_output_stream(partial) as file:
                shutil.copyfileobj(source, file, _CHUNK)
            there = self._files.get_file_info(partial)
            if there.type != FileType.File or there.size != size:  # a stream that broke off is closed like any other
                raise OSError(f"{there.size} of {size} bytes arrived")
            self._files.move(partial, target)

        self._persist(once)

    def adopt_files(self, path: Path, folder: str) -> None:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda one: self.adopt(one, f"{folder}/{one.name}"), sorted(path.iterdir())))

    def remove(self, name: str) -> None:
        def once() -> None:
            found = self._files.get_file_info(self._path(name)).type
            if found == FileType.Directory:
                self._files.delete_dir(self._path(name))
            elif found == FileType.File:
                self._files.delete_file(self._path(name))

        self._persist(once)

    @contextmanager
    def workplace(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="qualitygate-") as place:
            yield Path(place)

    def _path(self, name: str) -> str:
        return f"{self._base}/{name}".rstrip("/")

    def _persist(self, once: Callable[[], _T]) -> _T:
        for wait in (*_WAITS, None):
            try:
                return once()
            except OSError as error:
                if wait is None:
                    raise StorageError(
                        f"{self} does not take or give anything",
                        public(" ".join(str(error).split()))[:400],
                        "a store that answers",
                        "start the same command again when it does: it goes on where it stopped",
                    ) from error
                time.sleep(wait)
        raise AssertionError("unreachable")
