"""What the pickle machine makes of a file: its instructions as data. None of these can be called."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class Damaged(Exception):  # noqa: N818 - a finding while reading, turned into a CheckpointError at the door
    """The bytes do not follow the format they begin with."""


@dataclass(slots=True, eq=False)
class Global:
    """The name of a class or function. Only the name: it is never looked up."""

    name: str


@dataclass(slots=True, eq=False)
class Call:
    """An object that the file wants made by calling ``function``; what it wants put into the object is kept apart."""

    function: Any
    args: Any
    keywords: Any = None
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of the function; ``"?"`` where the file has something else in its place."""
        return self.function.name if isinstance(self.function, Global) else "?"


@dataclass(slots=True, eq=False)
class Persistent:
    """A reference to something beside the pickle: the storage of a tensor."""

    key: Any


@dataclass(frozen=True, slots=True)
class Opaque:
    """In the finished tree: a class, or an object of a class without a meaning to us. A name and nothing else."""

    name: str
