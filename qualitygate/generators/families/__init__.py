"""The families of generators, in one table: where their networks are, and how checkpoints store them.

A package brings families of its own through an entry point of the group ``qualitygate.families`` that names a module, or any object
with some of these attributes, each a sequence: ``generators`` (subclasses of `Generator`), ``discriminators`` (of `Discriminator`) and
``layouts`` (`qualitygate.checkpoints.layout.Layout`). Its layouts are tried after ours, so that installing a package never changes how a
known file is read.
"""

from __future__ import annotations

from typing import NamedTuple

from qualitygate.generators.base import Discriminator, Generator
from qualitygate.plugins import Plugin, Table, plugins


class Family(NamedTuple):
    """Where a family's generator (which says presets and R), discriminator and layouts (strictest first) are, each as
    ``"module:attribute"``; and the name of the discriminator's own family, where that is another than the row's."""

    generator: str = ""
    discriminator: str = ""
    layouts: str = ""
    discriminator_name: str = ""


_HERE, _LAYOUTS = "qualitygate.generators.families", "qualitygate.checkpoints.layouts"

FAMILIES: dict[str, Family] = {
    "stylegan3": Family(f"{_HERE}.stylegan3:StyleGAN3", layouts=f"{_LAYOUTS}.stylegan3:LAYOUTS"),
    "stylegan2": Family(f"{_HERE}.stylegan2:StyleGAN2", f"{_HERE}.stylegan2:StyleGAN2Discriminator", f"{_LAYOUTS}.stylegan2:LAYOUTS"),
    "pggan": Family(f"{_HERE}.pggan:PGGAN", f"{_HERE}.pggan:PGGANDiscriminator", f"{_LAYOUTS}.pggan:LAYOUTS"),
    "biggan": Family(f"{_HERE}.biggan:BigGAN", f"{_HERE}.biggan:BigGANDiscriminator", f"{_LAYOUTS}.biggan:LAYOUTS", "biggan-discriminator"),
    # its generator is BigGAN's, and so stand its discriminator and layouts with BigGAN's
    "unetgan": Family(discriminator=f"{_HERE}.biggan:UNetDiscriminator", discriminator_name="unet-discriminator"),
    "biggan-deep": Family(f"{_HERE}.biggan_deep:BigGANDeep", layouts=f"{_LAYOUTS}.biggan_deep:LAYOUTS"),
    "dcgan": Family(f"{_HERE}.dcgan:DCGAN", f"{_HERE}.dcgan:DCGANDiscriminator", f"{_LAYOUTS}.dcgan:LAYOUTS"),
    "planted": Family("qualitygate.testing.planted:PlantedGenerator"),
}
"""Ours. Layouts are tried in this order: strictest first, as the first that fits a group of tensors is taken."""

GENERATORS: Table[type[Generator]] = Table(
    "families", {name: row.generator for name, row in FAMILIES.items() if row.generator}, Generator, named="family", listed="generators"
)
"""Every generator that is stored by its settings, by family."""

DISCRIMINATORS: Table[type[Discriminator]] = Table(
    "families",
    {row.discriminator_name or name: row.discriminator for name, row in FAMILIES.items() if row.discriminator},
    Discriminator,
    named="family",
    listed="discriminators",
)
"""Every discriminator that is stored by its settings, by its own family's name (see ``Generator.judged_by``)."""


def default_rate(family: str) -> float:
    """R of the low-rate score in a family's default policy; the papers' for a family that nobody knows."""
    return GENERATORS[family].rate if family in GENERATORS else Generator.rate


def family_plugins() -> tuple[Plugin, ...]:
    """What other packages bring. Raises `PluginError` if one cannot be imported, or offers nothing."""
    kinds = ("generators", "discriminators", "layouts")
    for plugin in plugins("families"):
        offered = plugin.load()
        if not any(hasattr(offered, kind) for kind in kinds):
            raise plugin.error(f"a {type(offered).__name__} without any of them", f"one of {', '.join(kinds)}")
    return plugins("families")
