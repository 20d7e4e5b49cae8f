"""Planting: any generator in, generator and truth out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from qualitygate.errors import InputError
from qualitygate.generators.base import Generator, LayerLike, read_layers, sample_latents
from qualitygate.generators.latent_region import Region, Shape
from qualitygate.generators.passes import scored_pass
from qualitygate.generators.planted import PlantedGenerator, Planting
from qualitygate.latents import Purpose, normals, uniforms
from qualitygate.testing.planted.marks import MarkName, draw, numbers_needed
from qualitygate.testing.planted.truth import Truth

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
        for layer, activation in read_layers(generator, latents, layers):
            positive = activation.clamp(min=0.0).double()
            active = positive[positive > 0]
            typical = float(active.mean()) if len(active) else 1.0
            found[layer] = _Activity(positive.mean(dim=(0, 2, 3)).cpu(), typical, bool((activation < 0).any()))
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
