"""A generator with a defect in it: some of its own units fire by a known rule, and what they do reaches the image through units above.

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

from functools import partial
from itertools import pairwise
from typing import Annotated, Any, Literal, NamedTuple, Self, cast

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from qualitygate.errors import InputError, LatentsError, LayerError
from qualitygate.generators.base import Edit, Generator, State
from qualitygate.generators.families import GENERATORS
from qualitygate.latents import Latents
from qualitygate.policy.model import problems

Shape = Literal["half_space", "slab"]


class Region(BaseModel):
    """A part of latent space, as a rule on linear forms ``x = z·a`` of unit vectors a.

    Under z ~ N(0, I) each x is standard normal, and those of orthogonal vectors are independent: the share is exact. A half space is
    ``x > t``. A slab is ``t < x < t'`` and starts at the median, so that its latents are as ordinary as latents can be. With several
    modes the region is the union over as many orthogonal vectors, each with an equal part.

    Attributes:
        shape: half space or slab.
        share: share of all latents, in (0, 0.5).
        modes: number of vectors.
        rise: how far inside the region full level is reached, in units of its depth (see `level`): 1 is soft, near 0 is sharp.
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
    def depth(self) -> float:
        """How far inside a mode's typical latents are: half a slab's width; for a half space, the median distance of its latents."""
        low, high = self.bounds
        return (high - low) / 2.0 if self.shape == "slab" else _quantile(1.0 - self._part / 2.0) - low

    @property
    def _part(self) -> float:
        """Share of one mode."""
        return 1.0 - (1.0 - self.share) ** (1.0 / self.modes)

    def level(self, z: Tensor, directions: Tensor) -> Tensor:
        """How much each latent lies inside, float32 (N,), positive exactly inside: the distance to the nearest border (of the best mode)
        over ``rise · depth``, at least -1 and, if it saturates, at most 1.

        Args:
            z: latents (N, D).
            directions: the modes' orthonormal vectors, float64 (modes, D).
        """
        low, high = self.bounds
        # products and sums of one row at a time, so that a latent's level does not depend on its batch
        x = (z.double()[:, None] * directions).sum(dim=2)
        inside = torch.minimum(x - low, high - x).amax(dim=1)
        return (inside / (self.rise * self.depth)).clamp(-1.0, 1.0 if self.saturates else None).float()


def _quantile(probability: float) -> float:
    return float(torch.special.ndtri(torch.tensor(probability, dtype=torch.float64)))


_Index = Annotated[int, Field(ge=0)]


class Planting(BaseModel):
    """What is planted, in plain values; its tensors are the generator's.

    Attributes:
        region: when the units fire.
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
    """A generator around another one, made by `plant` or read from a file like any other.

    It counts as of its base's family: rules, presets and comparisons that hold for the base hold for it. Only files and fingerprints
    say ``planted``.

    Tensors of its own: ``directions`` float64 (modes + 1, D), the last that of other work; ``opacity`` float32 (height, width) and
    ``colour`` float32 (channels, height, width) of the mark, where an opacity of 0 paints nothing.

    Args:
        base: the generator; it is not changed.
        planting: what is planted.

    Raises:
        LayerError, InputError: the base has no such layers or units, or too few latent axes.
    """

    family = "planted"
    directions: Tensor
    opacity: Tensor
    colour: Tensor

    def __init__(self, base: Generator, planting: Planting) -> None:
        super().__init__()
        _check_fits(planting, base)
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

    def silencing(self) -> dict[int, Edit]:
        """Edits of the *base* that make it the unplanted generator: every host set to 0."""
        return {layer: partial(_silenced, units=units) for layer, units in self.planting.units.items()}

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


def _check_fits(planting: Planting, base: Generator) -> None:
    for layer, units in planting.units.items():
        if layer >= len(base.layers):
            raise LayerError("Planted units are of a layer that the base does not have", str(layer), f"0 … {len(base.layers) - 1}")
        if max(units) >= base.layers[layer].units:
            raise InputError(f"Layer {layer} of the base has no such unit", str(max(units)), f"0 … {base.layers[layer].units - 1}")
    if planting.region.modes >= base.latent_size:
        raise InputError("Not so many modes fit", str(planting.region.modes), f"1 … {base.latent_size - 1}, one less than axes")
