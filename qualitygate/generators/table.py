"""The families by name, those of plug-ins included. Modules are imported when they are asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from qualitygate.generators.base import Discriminator, Generator
from qualitygate.generators.plugins import plugins

Network = TypeVar("Network", bound=Generator | Discriminator)


def generators() -> dict[str, type[Generator]]:
    """Every generator family that is stored by its settings.

    Raises:
        PluginError: a plug-in is broken, or brings a family that is there already.
    """
    from qualitygate.generators.families.biggan.deep import BigGANDeep
    from qualitygate.generators.families.biggan.generator import BigGAN
    from qualitygate.generators.families.dcgan.generator import DCGAN
    from qualitygate.generators.families.pggan.generator import PGGAN
    from qualitygate.generators.families.stylegan2.generator import StyleGAN2
    from qualitygate.generators.families.stylegan3.generator import StyleGAN3
    from qualitygate.generators.planted import PlantedGenerator

    ours: list[type[Generator]] = [BigGAN, BigGANDeep, DCGAN, PGGAN, PlantedGenerator, StyleGAN2, StyleGAN3]
    return _by_family(ours, "generators", Generator)  # type: ignore[type-abstract]


def discriminators() -> dict[str, type[Discriminator]]:
    """Every discriminator that is stored by its settings, under its own family's name (see ``Generator.judged_by``).

    Raises:
        PluginError: as for `generators`.
    """
    from qualitygate.generators.families.biggan.discriminator import BigGANDiscriminator
    from qualitygate.generators.families.dcgan.discriminator import DCGANDiscriminator
    from qualitygate.generators.families.pggan.discriminator import PGGANDiscriminator
    from qualitygate.generators.families.stylegan2.discriminator import StyleGAN2Discriminator
    from qualitygate.generators.families.unetgan.discriminator import UNetDiscriminator

    ours: list[type[Discriminator]] = [
        BigGANDiscriminator,
        DCGANDiscriminator,
        PGGANDiscriminator,
        StyleGAN2Discriminator,
        UNetDiscriminator,
    ]
    return _by_family(ours, "discriminators", Discriminator)  # type: ignore[type-abstract]


def _by_family(ours: Iterable[type[Network]], kind: str, base: type[Network]) -> dict[str, type[Network]]:
    found = {network.family: network for network in ours}
    for plugin in plugins():
        for network in plugin.offers(kind):
            if not (isinstance(network, type) and issubclass(network, base)):
                raise plugin.error(f"{network!r} in {kind}", f"subclasses of {base.__name__}")
            if network.family in found:
                raise plugin.error(f"family {network.family!r}, which there is already", "a family of another name")
            found[network.family] = network
    return found
