"""The families by name. Modules are imported when they are asked for."""

from __future__ import annotations

from qualitygate.generators.base import Generator


def generators() -> dict[str, type[Generator]]:
    """Every generator family that is stored by its settings."""
    from qualitygate.generators.biggan import BigGAN
    from qualitygate.generators.biggan_deep import BigGANDeep
    from qualitygate.generators.dcgan import DCGAN
    from qualitygate.generators.pggan import PGGAN
    from qualitygate.generators.stylegan2 import StyleGAN2
    from qualitygate.generators.stylegan3 import StyleGAN3

    return {family.family: family for family in (BigGAN, BigGANDeep, DCGAN, PGGAN, StyleGAN2, StyleGAN3)}
