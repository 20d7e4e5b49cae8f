"""Long work that goes on where it was cut off: what it has found so far, kept in the cache until all of it is there.

It stands in ``unfinished`` in the cache folder (see `checkpoints.sources.cache`), under a hash of all that the numbers depend on.
Work that takes less than `INTERVAL` writes nothing.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from qualitygate import storage
from qualitygate.checkpoints.sources import cache
from qualitygate.errors import StorageError
from qualitygate.records import canonical_hash

INTERVAL = 30.0
"""Seconds between two writes, and before the first."""
_FORMAT = 1
_KEY = "work"

Arrays = Mapping[str, np.ndarray]


class Unfinished:
    """What one stretch of work has found so far.

    Args:
        kind: what it makes, e.g. ``"rates"``.
        identity: all that the numbers depend on; JSON values.
    """

    def __init__(self, kind: str, identity: Mapping[str, Any]) -> None:
        self._kind, self._key = kind, canonical_hash([_FORMAT, kind, dict(identity)])
        self._path = cache.folder() / "unfinished" / f"{kind}-{self._key[:32]}.safetensors"
        self._next = time.monotonic() + INTERVAL

    def begun(self) -> Arrays | None:
        """What there is from a run that was cut off; None where there is nothing, or nothing that can be used.

        Warns:
            UserWarning: a file is there that is damaged, or of other work.
        """
        try:
            if not self._path.exists():
                return None
            arrays, metadata = storage.read_arrays(self._path)
            if metadata.get(_KEY) != self._key:
                raise StorageError(f"Cannot go on from {self._path}", "the beginning of other work", "of this one")
        except (StorageError, OSError) as error:
            warnings.warn(f"The {self._kind} are computed from their beginning: {error}", stacklevel=2)
            return None
        return arrays

    def keep(self, arrays: Callable[[], Arrays]) -> None:
        """Put down what is known by now, if it is time to.

        Warns:
            UserWarning: it cannot be written. The work goes on; only a run that is cut off loses by it.
        """
        if time.monotonic() < self._next:
            return
        try:
            with storage.explained(self._path):
                self._path.parent.mkdir(parents=True, exist_ok=True)
            storage.write_arrays(self._path, arrays(), {_KEY: self._key})
        except StorageError as error:
            warnings.warn(f"The {self._kind} are not kept while they are made: {error}", stacklevel=2)
        self._next = time.monotonic() + INTERVAL

    def remove(self) -> None:
        """Nothing is unfinished any more. A file that cannot be removed does no harm."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
