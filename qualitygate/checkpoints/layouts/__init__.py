"""All layouts, strictest first: the first that fits a group of tensors is taken."""

from __future__ import annotations

from qualitygate.checkpoints.layout import Layout
from qualitygate.checkpoints.layouts import (
    biggan,
    biggan_deep,
    dcgan,
    native,
    pggan,
    stylegan2,
    stylegan3,
    unetgan,
)

_ROOMS = (native, stylegan3, stylegan2, pggan, biggan, unetgan, biggan_deep, dcgan)


def all_layouts() -> tuple[Layout, ...]:
    return tuple(layout for room in _ROOMS for layout in room.LAYOUTS)
