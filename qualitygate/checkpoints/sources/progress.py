"""How far a download is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there, and with how many there will be if the server said."""


def silent(done: int, total: int | None) -> None:
    """A `Progress` that shows nothing."""
