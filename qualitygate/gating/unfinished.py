"""Long work that goes on where it was cut off: what it has found so far, kept in the cache until all of it is there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from qualitygate.storage import Arrays, array_cache

CACHE = array_cache("unfinished")
INTERVAL = 30.0
"""Seconds between two writes, and before the first: work that takes less writes nothing."""


class Unfinished:
    """What one stretch of work has found so far. A file that cannot be read or written costs a warning, and time after a cut.

    Args:
        kind: what it makes, e.g. ``"rates"``.
        identity: all that the numbers depend on; JSON values.
    """

    def __init__(self, kind: str, identity: Mapping[str, Any]) -> None:
        self._identity = {"kind": kind, **identity}
        self._next = time.monotonic() + INTERVAL

    def begun(self) -> Arrays | None:
        """What there is from a run that was cut off; None where there is nothing, or nothing that can be used."""
        return CACHE.find(self._identity)

    def keep(self, arrays: Callable[[], Arrays]) -> None:
        """Put down what is known by now, if it is time to."""
        if time.monotonic() >= self._next:
            CACHE.keep(self._identity, arrays())
            self._next = time.monotonic() + INTERVAL

    def remove(self) -> None:
        """Nothing is unfinished any more."""
        CACHE.remove(self._identity)
