"""All layouts, strictest first: the first that fits a group of tensors is taken."""

from __future__ import annotations

from qualitygate.checkpoints.layout import Layout
from qualitygate.checkpoints.layouts import dcgan, native, stylegan2, stylegan3


def all_layouts() -> tuple[Layout, ...]:
    return (*native.LAYOUTS, *dcgan.LAYOUTS, *stylegan2.LAYOUTS, *stylegan3.LAYOUTS)
