"""What is known of a planted defect: which samples, which units, which pixels, and the true repair."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qualitygate.generators.passes import micro_batches, scored_pass
from qualitygate.generators.planted import PlantedGenerator
from qualitygate.latents import Latents


@dataclass(frozen=True)
class Truth:
    """The truth about a planted generator. It follows from the generator alone, so it survives saving and loading.

    Attributes:
        generator: the planted generator.
    """

    generator: PlantedGenerator

    @property
    def units(self) -> dict[int, tuple[int, ...]]:
        """The planted units by layer, in order of synthesis."""
        return self.generator.planting.units

    @property
    def layer(self) -> int | None:
        """The layer where the defect begins; None if nothing is planted."""
        return min(self.units, default=None)

    @property
    def paints(self) -> bool:
        """Whether the units do harm: there is a mark."""
        return bool((self.generator.opacity > 0).any())

    @property
    def pixels(self) -> Tensor:
        """The pixels that the mark touches: bool (height, width)."""
        return self.generator.opacity.cpu() > 0

    def level(self, latents: Latents) -> Tensor:
        """How far each sample's planted units are driven, float32 (N,); positive is inside the region, 1 is full."""
        return self.generator.planting.region.level(latents.z.cpu(), self.generator.directions[:-1].cpu())

    def fires(self, latents: Latents) -> Tensor:
        """The samples inside the region, for which the planted units are active (busy ones: beyond half): bool (N,)."""
        return self.level(latents) > 0 if self.units else torch.zeros(len(latents), dtype=torch.bool)

    def defective(self, latents: Latents) -> Tensor:
        """The samples whose image has the mark, if faintly: bool (N,)."""
        return self.fires(latents) & self.paints

    def repaired(self, latents: Latents) -> Tensor:
        """The true repair: images (N, channels, height, width) of the unplanted generator for the same latents.

        The unplanted generator is the base with the hosts silent, run by itself.
        """
        base, edits = self.generator.base, self.generator.silencing()
        with scored_pass():
            return torch.cat([base(batch, edits)[: rows.stop - rows.start].cpu() for rows, batch in micro_batches(latents)])
