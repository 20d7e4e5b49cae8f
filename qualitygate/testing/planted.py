"""Planted defects: a generator whose defective samples, units and pixels are known exactly, with no labels.

Take any generator, plant a defect in it, and see what a score, a unit ranking or a correction makes of it:

    >>> planted = plant(generator, Defect(layer="4x4", units=10, share=0.01, mark="stripes"), seed=1)
    >>> broken = planted.truth.defective(latents)     # bool (N,)
    >>> images = planted.generator(latents)           # with stripes where `broken`
    >>> repaired = planted.truth.repaired(latents)    # without
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from qualitygate.checkpoints.load import load_generator
from qualitygate.checkpoints.save import save_generator
from qualitygate.errors import CheckpointError, InputError
from qualitygate.generators.base import Generator, LayerLike, sample_latents
from qualitygate.generators.passes import scored_pass
from qualitygate.latents import Latents, Purpose, normals, uniforms
from qualitygate.testing.marks import MarkName, draw, numbers_needed
from qualitygate.testing.planted_generator import PlantedGenerator, Planting, Region, Shape

__all__ = ["Defect", "Planted", "PlantedGenerator", "Planting", "Region", "Truth", "load_planted", "plant", "save_planted"]


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
        return base.images(latents, edits)


_RISE = {"sharp": 0.05, "soft": 1.0, "linear": 1.0}
_PROBE = 128  # samples that show how active units are
_MOST = 8  # at most one in so many units of a layer becomes a host
_DIRECTIONS, _HOSTS, _MARK = (Purpose.PLANTING + 16 * choice for choice in range(3))


@dataclass(frozen=True)
class Defect:
    """What to plant.

    Attributes:
        layer: layer where it begins: index, name or resolution.
        units: units that fire, in that layer and, as far as an eighth of the layer goes, in each above; 0 plants nothing.
        share: share of latents in whose images it shows, in (0, 0.5).
        shape: ``half_space``, or a narrow ``slab``.
        modes: how many half spaces or slabs share the defect, each with an equal part.
        edge: ``sharp``: at full strength nearly everywhere in the region; ``soft``: rising from the border to full strength, which
            half of a half space reaches; ``linear``: as soft, but the first units go on rising, which makes each the ReLU of a
            linear form: all that the first layer of a DCGAN can do, whose own units have no curvature but the kink at 0.
        busy: the units also fire weakly, without harm, for half of all latents: nothing about them is rare but how strong they are.
        mark: what it paints; None for units that fire and paint nothing (a decoy).
    """

    layer: LayerLike = 0
    units: int = 1
    share: float = 0.01
    shape: Shape = "half_space"
    modes: int = 1
    edge: Literal["sharp", "soft", "linear"] = "sharp"
    busy: bool = False
    mark: MarkName | None = "blob"


@dataclass(frozen=True)
class Planted:
    """A generator with a defect in it, and what is known of that."""

    generator: PlantedGenerator
    truth: Truth = field(repr=False)


def plant(generator: Generator, defect: Defect, seed: int = 0) -> Planted:
    """Plant a defect. The same generator, defect and seed give the same result; the seed chooses direction, units, place and colour.

    Hosts are drawn from the half of each layer's units that is the least active, so that the images change little when these
    units lose what they did before. A host at full level is as active as the layer's active neurons are on average.

    Args:
        generator: any chain; it is not changed, and shared with the result.
        defect: what to plant.
        seed: in ``[0, 2**64)``.

    Raises:
        InputError: more units or modes than there is room for.
        LayerError: no such layer.
    """
    first = generator.layer(defect.layer).index
    region = Region(shape=defect.shape, share=defect.share, modes=defect.modes, rise=_RISE[defect.edge], saturates=defect.edge != "linear")
    reached = generator.layers[first:] if defect.mark else generator.layers[first : first + 1]
    layers = [layer.index for layer in reached] if defect.units else []
    _check(generator, defect, first)
    activity = _probe(generator, layers)
    planting = Planting(
        region=region,
        units={layer: _hosts(activity[layer], defect.units, layer == first, layer, seed) for layer in layers},
        full={layer: activity[layer].typical for layer in layers},
        slope=0.2 if any(one.negative for one in activity.values()) else 0.0,
        busy=defect.busy,
    )
    planted = PlantedGenerator(generator, planting)
    planted.directions.copy_(_orthonormal(generator.latent_size, region.modes + 1, seed))
    if defect.mark and defect.units:
        mark = draw(defect.mark, generator.image_shape, _uniforms(seed, _MARK, numbers_needed(generator.image_shape)))
        planted.opacity.copy_(mark.opacity)
        planted.colour.copy_(mark.colour)
    return Planted(planted.eval(), Truth(planted))


@dataclass(frozen=True)
class _Activity:
    """What a probe shows of a layer: mean positive activation of each unit, that of the active neurons, and whether any is negative."""

    units: Tensor
    typical: float
    negative: bool


def _probe(generator: Generator, layers: list[int]) -> dict[int, _Activity]:
    if not layers:
        return {}
    found = {}
    with scored_pass():
        latents = sample_latents(generator, range(_PROBE), 0)
        for state in generator.states(generator.start(latents), layers[-1]):
            if state.layer not in layers:
                continue
            activation, positive = state.activation, state.activation.clamp(min=0.0).double()
            active = positive[positive > 0]
            typical = float(active.mean()) if len(active) else 1.0
            found[state.layer] = _Activity(positive.mean(dim=(0, 2, 3)).cpu(), typical, bool((activation < 0).any()))
    return found


def _hosts(activity: _Activity, count: int, begins: bool, layer: int, seed: int) -> tuple[int, ...]:
    units = len(activity.units)
    count = count if begins else min(count, max(1, units // _MOST))
    quiet = activity.units.argsort(stable=True)[: max(count, units // 2)]
    order = _uniforms(seed, _HOSTS + 64 * layer, units)[: len(quiet)].argsort()
    return tuple(sorted(quiet[order[:count]].tolist()))


def _orthonormal(size: int, count: int, seed: int) -> Tensor:
    """Orthonormal rows, float64 (count, size), uniform over directions."""
    drawn = torch.from_numpy(normals(seed, _DIRECTIONS, np.arange(1), count * size).reshape(count, size))
    q, r = torch.linalg.qr(drawn.T)
    return (q * r.diagonal().sign()).T


def _uniforms(seed: int, purpose: int, count: int) -> Tensor:
    return torch.from_numpy(uniforms(seed, purpose, np.arange(1), count)[0])


def _check(generator: Generator, defect: Defect, first: int) -> None:
    units = generator.layers[first].units
    if not 0 <= defect.units <= units // 2:
        raise InputError("Not so many units can be rewired", str(defect.units), f"at most half of the layer's {units}")
    if not 1 <= defect.modes < generator.latent_size:
        raise InputError("Not so many modes fit", str(defect.modes), f"1 … {generator.latent_size - 1}, one less than axes")


def save_planted(generator: PlantedGenerator, path: str | Path) -> None:
    """Write a planted generator; the truth follows from it. See `save_generator`."""
    save_generator(generator, path)


def load_planted(path: str | Path, device: torch.device | str = "cpu") -> Planted:
    """A planted generator and what is known of it, from a file that `save_planted` wrote.

    Raises:
        CheckpointError: no such file, or not of a planted generator.
    """
    generator = load_generator(path, device)
    if not isinstance(generator, PlantedGenerator):
        raise CheckpointError(
            f"Nothing is planted in {path}", f"a {generator.family} without planted units", "a file written by save_planted"
        )
    return Planted(generator, Truth(generator))
