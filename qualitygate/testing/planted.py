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
from qualitygate.errors import CheckpointError, InputError
from qualitygate.generators.base import Generator, LayerLike, sample_latents
from qualitygate.generators.passes import scored_pass
from qualitygate.latents import Latents, Purpose, normals, uniforms
from qualitygate.testing.planted_generator import PlantedGenerator, Planting, Region, Shape

__all__ = ["Defect", "Planted", "PlantedGenerator", "Planting", "Region", "Truth", "load_planted", "plant"]


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
        """The true repair: images (N, channels, height, width) of the unplanted generator, which is the base with the hosts silent."""
        return self.generator.base.images(latents, self.generator.silencing())


MarkName = Literal["blob", "stripes", "texture", "cast", "frame"]
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
        mark: what it paints: ``blob``: a disc with a soft edge; ``stripes`` and ``texture``: a square of black and white bars, or of noise;
            ``cast``: the whole image tinted; ``frame``: black edges; None for units that fire and paint nothing (a decoy).
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
        opacity, colour = _mark(defect.mark, generator.image_shape, seed)
        planted.opacity.copy_(opacity)
        planted.colour.copy_(colour)
    return Planted(planted.eval(), Truth(planted))


@dataclass(frozen=True)
class _Activity:
    """What a probe shows of a layer: mean positive activation of each unit, that of the active neurons, and whether any is negative."""

    units: Tensor
    typical: float
    negative: bool


def _probe(generator: Generator, layers: list[int]) -> dict[int, _Activity]:
    found = {}
    with scored_pass():
        latents = sample_latents(generator, range(_PROBE), 0)
        for state in generator.states(generator.start(latents), max(layers, default=-1)):
            if state.layer in layers:
                positive = state.activation.clamp(min=0.0).double()
                active = positive[positive > 0]
                typical = float(active.mean()) if len(active) else 1.0
                found[state.layer] = _Activity(positive.mean(dim=(0, 2, 3)).cpu(), typical, bool((state.activation < 0).any()))
    return found


def _hosts(activity: _Activity, count: int, begins: bool, layer: int, seed: int) -> tuple[int, ...]:
    units = len(activity.units)
    count = count if begins else min(count, max(1, units // _MOST))
    quiet = activity.units.argsort(stable=True)[: max(count, units // 2)]
    order = _uniforms(seed, _HOSTS + 64 * layer, units)[: len(quiet)].argsort()
    return tuple(sorted(quiet[order[:count]].tolist()))


def _mark(name: MarkName, image_shape: tuple[int, int, int], seed: int) -> tuple[Tensor, Tensor]:
    """A mark at full strength: opacity float32 (height, width) in [0, 1], positive where it is; colour float32 (channels, height, width) in
    [-1, 1]. Place, colour and grain follow from the seed."""
    channels, height, width = image_shape
    parts = [2, channels, channels * height * width]
    place, hue, grain = _uniforms(seed, _MARK, sum(parts)).float().split(parts)
    plain = torch.where(hue > 0.5, 0.9, -0.9)[:, None, None]  # each channel at one of its ends
    if name == "blob":
        radius = max(1.5, min(height, width) / 6)
        top, left = (radius + at * (side - 1 - 2 * radius) for at, side in zip(place, (height, width), strict=True))
        distance = torch.hypot(torch.arange(height)[:, None] - top, torch.arange(width) - left)
        opacity, colour = ((radius - distance) / (0.3 * radius)).clamp(0.0, 1.0), plain
    elif name == "cast":
        opacity, colour = torch.full((height, width), 0.35), plain
    elif name == "frame":
        opacity, colour = torch.ones(height, width), torch.tensor(-1.0)
        tall, wide = max(1, height // 10), max(1, width // 10)
        opacity[tall:-tall, wide:-wide] = 0.0
    else:  # a square of a third of the side, anywhere inside the image
        opacity = torch.zeros(height, width)
        tall, wide = max(1, height // 3), max(1, width // 3)
        top, left = int(place[0] * (height - tall + 1)), int(place[1] * (width - wide + 1))
        opacity[top : top + tall, left : left + wide] = 1.0
        colour = torch.arange(width) // 2 % 2 * 2.0 - 1.0 if name == "stripes" else grain.view(image_shape) * 2.0 - 1.0
    return opacity, colour.expand(image_shape)


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


def load_planted(path: str | Path, device: torch.device | str = "cpu") -> Planted:
    """A planted generator and what is known of it, from a file that `save_generator` wrote of one.

    Raises:
        CheckpointError: no such file, or not of a planted generator.
    """
    generator = load_generator(path, device)
    if not isinstance(generator, PlantedGenerator):
        found = f"a {generator.family} without planted units"
        raise CheckpointError(f"Nothing is planted in {path}", found, "a file that save_generator wrote of a planted generator")
    return Planted(generator, Truth(generator))
