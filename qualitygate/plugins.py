"""What other packages bring, and ours beside it: one table of names for each kind of thing that there may be more of.

Ours stand in a table of strings, ``name -> "module:attribute"``; those of other packages come by entry points, in a group for each kind.
One of ``qualitygate.families`` names a module with ``generators``, ``discriminators`` and ``layouts``, one of any other group has the name
of the thing and names the thing itself, exactly as a row of ours; see ``docs/extending.md``. Nothing is imported before it is asked for.
"""

from __future__ import annotations

import functools
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, Literal, TypeVar

from qualitygate.errors import PluginError

Kind = Literal["families", "scores", "metrics", "unit_scores", "corrections"]
"""The group of a kind is ``qualitygate.`` and this."""

T = TypeVar("T")


@dataclass(frozen=True)
class Plugin:
    entry: EntryPoint

    def load(self) -> Any:
        """What it names. Raises `PluginError` if it cannot be imported."""
        try:
            return self.entry.load()
        except Exception as error:  # whatever someone else's module may raise
            raise self.error(f"{type(error).__name__}: {error}", "a module that can be imported") from error

    def listed(self, attribute: str) -> Sequence[Any]:
        """The things in an attribute of what it names; none where it has no such attribute. Raises `PluginError` if this is no sequence."""
        given = getattr(self.load(), attribute, ())
        if not isinstance(given, Sequence):
            raise self.error(f"{attribute} that are a {type(given).__name__}", "a tuple or a list")
        return given

    def error(self, found: str, needed: str) -> PluginError:
        distribution = f" of {self.entry.dist.name} {self.entry.dist.version}" if self.entry.dist is not None else ""
        return PluginError(
            f"The plug-in {self.entry.name}{distribution} ({self.entry.value}) is broken", found, needed, "repair it, or uninstall it"
        )


@functools.cache
def plugins(kind: Kind) -> tuple[Plugin, ...]:
    """All plug-ins of a kind that are installed, in order of name."""
    return tuple(Plugin(entry) for entry in sorted(entry_points(group=f"qualitygate.{kind}"), key=lambda entry: entry.name))


def resolve(place: str) -> Any:
    """What ``"module:attribute"`` names."""
    return pkgutil.resolve_name(place)


class Table(Mapping[str, T], Generic[T]):
    """Things of one kind by name: ours in the order of their table, then those of plug-ins; each imported when it is asked for.

    Any use raises `PluginError` where a plug-in is broken or brings a name that there is already.

    Args:
        kind: says the group of entry points.
        ours: ``"module:attribute"`` by name.
        base: class that a thing is an instance or a subclass of.
        named: attribute in which a thing has its name.
        listed: attribute of an entry point's module that lists the things; by default an entry point names one thing, and has its name.
    """

    def __init__(self, kind: Kind, ours: Mapping[str, str], base: type[Any], *, named: str = "name", listed: str = "") -> None:
        self.ours = dict(ours)
        self._kind, self._base, self._named, self._listed = kind, base, named, listed

    def __getitem__(self, name: str) -> T:
        if name in self.ours:
            found: T = resolve(self.ours[name])
            return found
        plugin, thing = self._brought()[name]
        return self._checked(plugin, plugin.load(), name) if thing is None else thing

    def __iter__(self) -> Iterator[str]:
        return iter([*self.ours, *self._brought()])

    def __len__(self) -> int:
        return len(self.ours) + len(self._brought())

    def __contains__(self, name: object) -> bool:
        return name in self.ours or name in self._brought()

    def _brought(self) -> dict[str, tuple[Plugin, T | None]]:
        """By name the plug-in that brings it, and where it had to be imported for its name, the thing."""
        found: dict[str, tuple[Plugin, T | None]] = {}
        for plugin in plugins(self._kind):
            things: list[T | None] = [self._checked(plugin, one) for one in plugin.listed(self._listed)] if self._listed else [None]
            for thing in things:
                name = plugin.entry.name if thing is None else getattr(thing, self._named)
                if name in self.ours or name in found:
                    raise plugin.error(f"{self._named} {name!r}, which there is already", "another name")
                found[name] = (plugin, thing)
        return found

    def _checked(self, plugin: Plugin, thing: Any, name: str | None = None) -> T:
        if not isinstance(thing, self._base) and not (isinstance(thing, type) and issubclass(thing, self._base)):
            raise plugin.error(f"{thing!r} in {self._listed or self._kind}", f"{self._base.__name__} or subclasses of it")
        if name is not None and getattr(thing, self._named) != name:
            raise plugin.error(f"{self._named} {getattr(thing, self._named)!r} under the name {name!r}", "one name for both")
        found: T = thing
        return found
