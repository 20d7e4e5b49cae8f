"""Where the time goes: parts of the work name themselves, and whoever wants to know collects them. Nobody asking costs nothing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

EARLY, LATE = "early", "late"
"""Passes up to where samples are scored (corrections among them), and what comes after. Each ends with a transfer from the device."""
WAIT = "wait"
"""Generation held up by encoding and writing."""

_collector: ContextVar[Counter[str] | None] = ContextVar("collector", default=None)


@contextmanager
def collect() -> Iterator[Counter[str]]:
    """Seconds by part, of everything that this thread does within the block."""
    seconds: Counter[str] = Counter()
    token = _collector.set(seconds)
    try:
        yield seconds
    finally:
        _collector.reset(token)


@contextmanager
def part(name: str) -> Iterator[None]:
    """Counts the block's seconds under this name. Parts do not hold one another."""
    seconds = _collector.get()
    if seconds is None:
        yield
        return
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] += time.perf_counter() - start  # type: ignore[assignment]
