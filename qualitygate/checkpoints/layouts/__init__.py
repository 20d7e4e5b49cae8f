"""All layouts, strictest first, those of plug-ins last: the first that fits a group of tensors is taken."""

from __future__ import annotations

from collections.abc import Iterator

from qualitygate.checkpoints.layout import Layout
from qualitygate.checkpoints.layouts import biggan, biggan_deep, dcgan, native, pggan, stylegan2, stylegan3, unetgan
from qualitygate.generators.plugins import plugins

_ROOMS = (native, stylegan3, stylegan2, pggan, biggan, unetgan, biggan_deep, dcgan)


def all_layouts() -> tuple[Layout, ...]:
    """Every layout that is known.

    Raises:
        PluginError: a plug-in is broken.
    """
    return tuple(layout for room in _ROOMS for layout in room.LAYOUTS) + tuple(_of_plugins())


def _of_plugins() -> Iterator[Layout]:
    for plugin in plugins():
        for layout in plugin.offers("layouts"):
            if not isinstance(layout, Layout) or not layout.required:
                raise plugin.error(f"{layout!r} in layouts", "Layout objects that require some names of tensors")
            yield layout
