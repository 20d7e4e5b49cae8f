"""All layouts, strictest first, those of plug-ins last: the first that fits a group of tensors is taken."""

from __future__ import annotations

from qualitygate.checkpoints import save
from qualitygate.checkpoints.layout import Layout
from qualitygate.generators.families import FAMILIES, family_plugins
from qualitygate.plugins import resolve


def all_layouts() -> list[Layout]:
    """Every layout that is known; raises `PluginError` where a plug-in is broken."""
    known = [*save.LAYOUTS, *(layout for family in FAMILIES.values() if family.layouts for layout in resolve(family.layouts))]
    for plugin in family_plugins():
        for layout in plugin.listed("layouts"):
            if not isinstance(layout, Layout) or not layout.required:
                raise plugin.error(f"{layout!r} in layouts", "Layout objects that require some names of tensors")
            known.append(layout)
    return known
