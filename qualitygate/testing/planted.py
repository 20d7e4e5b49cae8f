"""Planted defects: a generator whose defective samples, units and pixels are known exactly, with no labels.

Take any generator, plant a defect in it, and see what a score, a unit ranking or a correction makes of it:

    >>> planted = plant(generator, Defect(layer="4x4", units=10, share=0.01, mark="stripes"), seed=1)
    >>> broken = planted.truth.defective(latents)     # bool (N,)
    >>> images = planted.generator(latents)           # with stripes where `broken`
    >>> repaired = planted.truth.repaired(latents)    # without

**How it is planted.** Existing units (the *hosts*) of one layer and of every layer above are rewired, whatever the family:

- in the first of these layers the hosts are a ramp of ``z·a``: active exactly in the defect's region of latent space, at the
  positions that the mark covers, and inactive anywhere else (or *busy*: below half of their full level, for half of all latents);
- in each layer above, the hosts are as active as those of the layer before (the mean over them, at the same place);
- the image is blended with the mark by as much as the hosts of the last layer are active.

No other unit reads a host: the rest of the chain runs as if the hosts were silent.

A wrapper does this to any chain, where edited weights could not: behind demodulation or pixel norms, for slabs, for a frame. Every step
reads the activation *as it stands*, after whatever edit was made: silence the hosts of any one layer and the mark is gone, weaken them and
it fades; nothing is painted from the latent directly. And the rest being blind to the hosts makes the true repair exact: the image of the
same latent with the hosts silent.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from qualitygate.checkpoints.load import load_generator
from qualitygate.errors import CheckpointError, InputError, LatentsError, LayerError
from qualitygate.generators.base import Generator, LayerLike, State, sample_latents
from qualitygate.generators.families import GENERATORS
from qualitygate.generators.passes import on_host
from qualitygate.latents import Latents, Purpose, normals, uniforms
from qualitygate.policy.model import problems

Shape = Literal["half_space", "slab"]


class Region(BaseModel):
    """A part of latent space, as a rule on linear forms ``x = z·a`` of unit vectors a.

    Under z ~ N(0, I) each x is standard normal, and those of orthogonal vectors are independent: the share is exact. A half space is
    ``x > t``. A slab is ``t < x < t'`` and starts at the median, so that its latents are as ordinary as latents can be. With several
    modes the region is the union over as many orthogonal vectors, each with an equal part.

    Attributes:
        share: of all latents.
        modes: number of vectors.
        rise: how far inside the region full level is reached, in units of its depth: half a slab's width; for a half space, the
            median distance of its latents. 1 is soft, near 0 is sharp.
        saturates: full level is also the most; otherwise the level keeps rising, as a ReLU of one linear form does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    shape: Shape = "half_space"
    share: float = Field(0.01, gt=0.0, lt=0.5)
    modes: int = Field(1, ge=1)
    rise: float = Field(0.05, gt=0.0)
    saturates: bool = True

    @property
    def bounds(self) -> tuple[float, float]:
        """t and t' of each mode; t' is infinite for a half space."""
        if self.shape == "half_space":
            return _quantile(1.0 - self._part), float("inf")
        return 0.0, _quantile(0.5 + self._part)

    @property
    def _part(self) -> float:
        """Share of one mode."""
        return 1.0 - (1.0 - self.share) ** (1.0 / self.modes)

    def level(self, z: Tensor, directions: Tensor) -> Tensor:
        """How much each latent lies inside, float32 (N,), positive exactly inside: the distance to the nearest border (of the best mode)
        over ``rise · depth``, at least -1 and, if it saturates, at most 1. Of z (N, D), and the modes' orthonormal vectors, float64
        (modes, D)."""
        low, high = self.bounds
        depth = (high - low) / 2.0 if self.shape == "slab" else _quantile(1.0 - self._part / 2.0) - low
        # products and sums of one row at a time, so that a latent's level does not depend on its batch
        x = (z.double()[:, None] * directions).sum(dim=2)
        inside = torch.minimum(x - low, high - x).amax(dim=1)
        return (inside / (self.rise * depth)).clamp(-1.0, 1.0 if self.saturates else None).float()


def _quantile(probability: float) -> float:
    return float(torch.special.ndtri(torch.tensor(probability, dtype=torch.float64)))


_Index = Annotated[int, Field(ge=0)]


class Planting(BaseModel):
    """What is planted, in plain values; its tensors are the generator's.

    Attributes:
        units: rewired units by layer, the layer where the defect begins first; none if nothing is planted, one layer alone for
            units that paint nothing.
        full: activation of a host at full level, by layer.
        slope: of the activation function below 0.
        busy: the units have other, harmless work: a rule of one more direction has them active up to half of full level for half
            of all latents, at all positions, and only what goes beyond half is passed on. Their neurons are then not low-rate.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    region: Region
    units: dict[_Index, Annotated[tuple[_Index, ...], Field(min_length=1)]]
    full: dict[_Index, Annotated[float, Field(gt=0.0, allow_inf_nan=False)]]
    slope: float = Field(ge=0.0, le=1.0)
    busy: bool = False

    @model_validator(mode="after")
    def _a_chain(self) -> Self:
        layers = sorted(self.units)
        if any(above != below + 1 for below, above in pairwise(layers)):
            raise ValueError(f"units of layers {layers}, which do not follow one another")
        if sorted(self.full) != layers:
            raise ValueError(f"units of layers {layers}, but full levels of layers {sorted(self.full)}")
        if any(len(set(units)) < len(units) for units in self.units.values()):
            raise ValueError("a unit is named twice in one layer")
        return self


class _Carry(NamedTuple):
    """The base's own carry, how far each sample drives the first hosts, and their level where nothing does: (N, 1, 1, 1)."""

    base: Any
    drive: Tensor
    rest: Tensor


class PlantedGenerator(Generator):
    """A generator around another one, which is not changed; made by `plant` or read from a file like any other.

    It counts as of its base's family: rules, presets and comparisons that hold for the base hold for it. Only files and fingerprints
    say ``planted``.

    Tensors of its own: ``directions`` float64 (modes + 1, D), the last that of other work; ``opacity`` float32 (height, width) and
    ``colour`` float32 (channels, height, width) of the mark, where an opacity of 0 paints nothing.

    Raises:
        LayerError, InputError: the base has no such layers or units, or too few latent axes.
    """

    family = "planted"
    directions: Tensor
    opacity: Tensor
    colour: Tensor

    def __init__(self, base: Generator, planting: Planting) -> None:
        super().__init__()
        for layer, units in planting.units.items():
            if layer >= len(base.layers):
                raise LayerError("Planted units are of a layer that the base does not have", str(layer), f"0 … {len(base.layers) - 1}")
            if max(units) >= base.layers[layer].units:
                raise InputError(f"Layer {layer} of the base has no such unit", str(max(units)), f"0 … {base.layers[layer].units - 1}")
        _check_modes(planting.region.modes, base)
        self.base, self.planting = base, planting
        self.settings = {"family": base.stored_as, "settings": base.settings, "planting": planting.model_dump(mode="json")}
        self.latent_size, self.label_size, self.image_shape = base.latent_size, base.label_size, base.image_shape
        self.layers, self.operations, self.presets = base.layers, base.operations, base.presets
        # constants of the class, but for a wrapper
        self.family, self.judged_by, self.truncates, self.rate = base.family, base.judged_by, base.truncates, base.rate  # type: ignore[misc]
        directions = torch.zeros(planting.region.modes + 1, base.latent_size, dtype=torch.float64, device=base.device)
        self.register_buffer("directions", directions)
        self.register_buffer("opacity", torch.zeros(base.image_shape[1:], device=base.device))
        self.register_buffer("colour", torch.zeros(base.image_shape, device=base.device))

    @classmethod
    def from_settings(cls, *, family: str, settings: dict[str, Any], planting: Any) -> Self:  # type: ignore[override]
        """Around a base of that family and settings. Raises `InputError` if there is no such family, or nothing can be planted so."""
        if family not in GENERATORS:
            raise InputError("The base is of no family we know", repr(family), f"one of {', '.join(sorted(GENERATORS))}")
        try:
            planted = Planting.model_validate(planting)
        except ValidationError as error:
            raise InputError("This is no planting", problems(error, "planting"), "what save_generator writes") from error
        return cls(GENERATORS[family].from_settings(**settings), planted)

    @property
    def wrapped(self) -> Generator:
        return self.base

    def begin(self, latents: Latents) -> State:
        if latents.space != "z":
            raise LatentsError("Planted units are a rule on z", f"latents in {latents.space}", "latents in z")
        state = self.base.begin(latents)
        drive = self.planting.region.level(latents.z, self.directions[:-1])[:, None, None, None]
        rest = torch.full_like(drive, -1.0)
        if self.planting.busy:
            rest = (0.5 * (latents.z.double() @ self.directions[-1]).clamp(-1.0, 1.0)).float().view_as(drive)
        return State(-1, state.activation, _Carry(state.carry, drive, rest))

    def advance(self, state: State) -> State:
        after = self.base.advance(self._silent(state))
        activation, index = after.activation, after.layer
        if index in self.planting.units:
            activation = activation.clone()
            activation[:, self.planting.units[index]] = self._hosts(state, index)
        return State(index, activation, cast(_Carry, state.carry)._replace(base=after.carry))

    def finish(self, state: State) -> Tensor:
        image = self.base.finish(self._silent(state)).clamp(-1.0, 1.0)
        if state.layer not in self.planting.units:
            return image
        strength = self._strength(state, *image.shape[2:]).clamp(max=1.0)
        return torch.lerp(image, self.colour.expand_as(image), (strength * self.opacity).expand_as(image))

    def footprint(self, height: int, width: int) -> Tensor:
        """Positions of a layer that the mark touches: bool (height, width). Where there is no mark, a ninth of the layer in its middle."""
        marked = self.opacity > 0
        if not marked.any():
            tall, wide = marked.shape[0] // 3, marked.shape[1] // 3
            marked = torch.zeros_like(marked)
            marked[tall:-tall, wide:-wide] = True
        return F.adaptive_max_pool2d(marked.float()[None], (height, width))[0] > 0

    def _hosts(self, state: State, index: int) -> Tensor:
        """Activation (N, 1, height, width) of the hosts of layer ``index``, from the state before it."""
        layer, carry = self.layers[index], cast(_Carry, state.carry)
        begun = state.layer in self.planting.units
        drive = self._strength(state, layer.height, layer.width) if begun else carry.drive
        driven = (drive > 0) & self.footprint(layer.height, layer.width)
        level = torch.where(driven, 0.5 + 0.5 * drive if self.planting.busy else drive, carry.rest)
        return F.leaky_relu(level, self.planting.slope) * self.planting.full[index]

    def _strength(self, state: State, height: int, width: int) -> Tensor:
        """What the hosts pass on as they are now, 1 at full level and at least 0: (N, 1, height, width), each position from those it
        lies over."""
        hosts = state.activation[:, self.planting.units[state.layer]].clamp(min=0.0).mean(dim=1, keepdim=True)
        level = hosts / self.planting.full[state.layer]
        if self.planting.busy:
            level = (2.0 * level - 1.0).clamp(min=0.0)
        return F.adaptive_max_pool2d(level, (height, width))

    def _silent(self, state: State) -> State:
        """The state as the base's own units see it."""
        return State(state.layer, _silenced(state.activation, self.planting.units.get(state.layer, ())), state.carry.base)


def _silenced(activation: Tensor, units: tuple[int, ...]) -> Tensor:
    return activation.index_fill(1, torch.tensor(units, dtype=torch.int64, device=activation.device), 0.0) if units else activation


def _check_modes(modes: int, base: Generator) -> None:
    if not 1 <= modes < base.latent_size:
        raise InputError("Not so many modes fit", str(modes), f"1 … {base.latent_size - 1}, one less than axes")


@dataclass(frozen=True)
class Truth:
    """The truth about a planted generator. It follows from the generator alone, so it survives saving and loading."""

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
        return on_host(self.generator.opacity) > 0

    def level(self, latents: Latents) -> Tensor:
        """How far each sample's planted units are driven, float32 (N,); positive is inside the region, 1 is full."""
        return self.generator.planting.region.level(on_host(latents.z), on_host(self.generator.directions[:-1]))

    def fires(self, latents: Latents) -> Tensor:
        """The samples inside the region, for which the planted units are active (busy ones: beyond half): bool (N,)."""
        return self.level(latents) > 0 if self.units else torch.zeros(len(latents), dtype=torch.bool)

    def defective(self, latents: Latents) -> Tensor:
        """The samples whose image has the mark, if faintly: bool (N,)."""
        return self.fires(latents) & self.paints

    def repaired(self, latents: Latents) -> Tensor:
        """The true repair: images (N, channels, height, width) of the unplanted generator, which is the base with the hosts silent."""
        return self.generator.base.images(latents, {layer: partial(_silenced, units=units) for layer, units in self.units.items()})


MarkName = Literal["blob", "stripes", "texture", "cast", "frame"]
_RISE = {"sharp": 0.05, "soft": 1.0, "linear": 1.0}
_DIRECTIONS, _HOSTS, _MARK = (Purpose.PLANTING + 16 * choice for choice in range(3))


@dataclass(frozen=True)
class Defect:
    """What to plant.

    Attributes:
        layer: where it begins.
        units: that fire, in that layer and, as far as an eighth of the layer goes, in each above; 0 plants nothing.
        share: of the latents in whose images it shows, in (0, 0.5).
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

    @property
    def truth(self) -> Truth:
        return Truth(self.generator)


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
    most = generator.layers[first].units
    if not 0 <= defect.units <= most // 2:
        raise InputError("Not so many units can be rewired", str(defect.units), f"at most half of the layer's {most}")
    _check_modes(defect.modes, generator)
    last = len(generator.layers) - 1 if defect.mark else first
    units, full, slope = {}, {}, 0.0
    with generator.scored_pass():
        start = generator.run(generator.start(sample_latents(generator, range(128), 0)), first - 1)
        for state in generator.states(start, last if defect.units else -1):
            layer, positive = state.layer, state.activation.clamp(min=0.0).double()
            active = positive[positive > 0]
            units[layer] = _hosts(on_host(positive.mean(dim=(0, 2, 3))), defect.units, layer == first, layer, seed)
            full[layer] = float(active.mean()) if len(active) else 1.0
            slope = 0.2 if bool((state.activation < 0).any()) else slope
    planted = PlantedGenerator(generator, Planting(region=region, units=units, full=full, slope=slope, busy=defect.busy))
    planted.directions.copy_(_orthonormal(generator.latent_size, region.modes + 1, seed))
    if defect.mark and defect.units:
        opacity, colour = _mark(defect.mark, generator.image_shape, seed)
        planted.opacity.copy_(opacity)
        planted.colour.copy_(colour)
    return Planted(planted.eval())


def _hosts(activity: Tensor, count: int, begins: bool, layer: int, seed: int) -> tuple[int, ...]:
    """So many of a layer's quieter half, given each unit's activity (units,); above where the defect begins, at most an eighth."""
    units = len(activity)
    count = count if begins else min(count, max(1, units // 8))
    quiet = activity.argsort(stable=True)[: max(count, units // 2)]
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


def load_planted(path: str | Path, device: torch.device | str = "cpu") -> Planted:
    """A planted generator and what is known of it, from a file that `save_generator` wrote of one. Else raises `CheckpointError`."""
    generator = load_generator(path, device)
    if not isinstance(generator, PlantedGenerator):
        found = f"a {generator.family} without planted units"
        raise CheckpointError(f"Nothing is planted in {path}", found, "a file that save_generator wrote of a planted generator")
    return Planted(generator)
