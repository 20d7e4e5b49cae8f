"""Families from other packages.

A package brings families through an entry point of the group ``qualitygate.families`` that names a module, or any object
with some of these attributes, each a sequence: ``generators`` (subclasses of `Generator`), ``discriminators`` (of
`Discriminator`) and ``layouts`` (`qualitygate.checkpoints.layout.Layout`). In its ``pyproject.toml``::

    [project.entry-points."qualitygate.families"]
    rings = "qualitygate_rings"

Its layouts are tried after ours, so that installing a package never changes how a known file is read.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from qualitygate.errors import PluginError

GROUP = "qualitygate.families"
_KINDS = ("generators", "discriminators", "layouts")


@dataclass(frozen=True)
class Plugin:
    """What one entry point gives."""

    entry: EntryPoint
    offered: Any

    def offers(self, kind: str) -> Sequence[Any]:
        """Its ``generators``, ``discriminators`` or ``layouts``."""
        given = getattr(self.offered, kind, ())
        if not isinstance(given, Sequence):
            raise self.error(f"{kind} that are a {type(given).__name__}", "a tuple or a list")
        return given

    def error(self, found: str, needed: str) -> PluginError:
        """The error that names this plug-in."""
        distribution = f" of {self.entry.dist.name} {self.entry.dist.version}" if self.entry.dist is not None else ""
        return PluginError(
            f"The plug-in {self.entry.name}{distribution} ({self.entry.value}) is broken", found, needed, "repair it, or uninstall it"
        )


@functools.cache
def plugins() -> tuple[Plugin, ...]:
    """All plug-ins that are installed, imported.

    Raises:
        PluginError: one cannot be imported, or offers nothing.
    """
    return tuple(_loaded(entry) for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name))


def _loaded(entry: EntryPoint) -> Plugin:
    try:
        plugin = Plugin(entry, entry.load())
    except Exception as error:  # whatever someone else's module may raise
        raise Plugin(entry, None).error(f"{type(error).__name__}: {error}", "a module that can be imported") from error
    if not any(hasattr(plugin.offered, kind) for kind in _KINDS):
        raise plugin.error(f"a {type(plugin.offered).__name__} without any of them", f"one of {', '.join(_KINDS)}")
    return plugin
