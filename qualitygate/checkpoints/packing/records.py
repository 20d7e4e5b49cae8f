"""What the pickle machine makes of a file: the instructions as data. None of these can be called, and none holds anything that can."""

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
    """An object the file wants made by calling ``function`` with ``args``; what it then wants put into the object is kept apart."""

    function: Any
    args: Any
    keywords: Any = None
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Persistent:
    """A reference to something beside the pickle: the storage of a tensor."""

    key: Any


@dataclass(frozen=True, slots=True)
class Opaque:
    """An object of a class that we do not know, in the finished tree: a name and nothing else."""

    name: str
