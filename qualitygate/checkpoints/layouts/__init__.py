"""All layouts, strictest first: the first that fits a group of tensors is taken."""

from __future__ import annotations

from qualitygate.checkpoints.layout import Layout
from qualitygate.checkpoints.layouts import biggan, biggan_deep, dcgan, native, unetgan


def all_layouts() -> tuple[Layout, ...]:
    return (*native.LAYOUTS, *biggan.LAYOUTS, *unetgan.LAYOUTS, *biggan_deep.LAYOUTS, *dcgan.LAYOUTS)
