"""The corrections that a policy can ask for: least correction, whatever the method.

Strengths are tried from the weakest to the strongest, the first that passes is kept, and a sample that none repairs is rejected. Every
strength costs one more pass over the early layers.

**What a corrected sample is judged on** is what its edit did not set: the counts of active low-rate neurons at ``judged_at``, in every
layer after the first edited one, each *before* that layer's own edit, up to the first layer that is not edited, each against its own
limit. That holds for every method: ablation sets the counts of the layers it edits, attenuation and masks scale activations there; the
next layer answers to them through its own weights. Nothing else is looked at: neither the score that condemned the sample nor the
score that chose the units, so CLA is never judged after a correction by CLA.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from functools import cache, reduce
from itertools import pairwise
from operator import or_
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf, SerializeAsAny, TypeAdapter, model_validator

from qualitygate import names
from qualitygate.errors import PolicyError
from qualitygate.plugins import Table, resolve

Rate = float
"""An activation rate R, in (0, 1]."""
Strengths = Annotated[tuple[float, ...], Field(min_length=1)]
Look = Literal["nothing", "pass", "walk"]
"""One more pass over the early layers, or a walk along all axes of the latent: some thousands of them."""
RANDOM_UNITS = "random"
"""In place of a unit score: units drawn at random, the same for all samples; the paper's baseline."""


class Part(BaseModel):
    """A part of a policy: unknown keys are errors, nothing changes after it was read."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Limit(Part):
    """A limit: a quantile of the calibration's scores, or an absolute value. Exactly one of the two."""

    quantile: float | None = Field(None, gt=0.0, lt=1.0, description="quantile of this score in the calibration, in (0, 1)")
    value: float | None = Field(None, allow_inf_nan=False, description="the limit itself")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.quantile is None) == (self.value is None):
            raise ValueError("a limit is either a quantile or a value, exactly one of them")
        return self

    def __str__(self) -> str:
        return f"quantile {self.quantile:g}" if self.quantile is not None else "absolute"


class Correction(Part, abc.ABC):
    """What all corrections have. A method is a subclass with a ``method`` of its own, ``Literal["name"] = "name"``.

    Attributes:
        name: the method.
        strength_field: the setting that holds the strengths, from the least to the most correction.
        falling: whether the strengths fall.
        made_by: function that makes the edits, as ``"module:name"``, imported when it is first needed; see `ready`.
    """

    method: str
    judged_at: Rate = Field(0.1, description="R of the counts that a corrected sample is judged on; one of detection.rates")
    limit: Limit = Limit(quantile=0.9)

    name: ClassVar[str]
    strength_field: ClassVar[str] = "rates"
    falling: ClassVar[bool] = False
    made_by: ClassVar[str]

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        cls.name = cls.model_fields["method"].default

    @property
    def strengths(self) -> tuple[float, ...]:
        """From the least to the most correction."""
        return tuple(map(float, getattr(self, self.strength_field)))

    @abc.abstractmethod
    def edited(self, preset: tuple[int, ...], stop: int | None) -> tuple[int, ...]:
        """Layers that are edited.

        Args:
            preset: the family's layers for low-rate neurons.
            stop: the family's stopping layer; None where that is not known.
        """

    def ready(self, generator: Any, profile: Any, layers: tuple[int, ...]) -> Any:
        """The correction ready to be used on a generator: a `qualitygate.corrections.method.Method`.

        Args:
            generator: the generator that it will be used on; it is never changed.
            profile: its `qualitygate.Profile`: ``rates``, and ``unit_scores(column, layers)``.
            layers: layers to edit.

        Raises:
            InputError: it would change nothing.
            ProfileError: the profile does not hold the scores that it needs.
        """
        return resolve(self.made_by)(self, generator, profile, layers)

    @property
    def edit(self) -> dict[str, Any]:
        """All that decides, with layers and a strength, what an edit does: two corrections that are equal in it have the same strengths."""
        return self.model_dump(exclude={"judged_at", "limit", "layers", "layer", "stop", "rates", "shares", "units", "weights"})

    @property
    def profile_score(self) -> str | None:
        """Column of the profile's table of units that the correction chooses units by."""
        return None

    @property
    def look(self) -> Look:
        """What it costs to look at a sample before it is corrected."""
        return "nothing"

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        check_strengths(getattr(self, self.strength_field), self.strength_field, falling=self.falling)
        return self


class _OfLayers(Correction):
    layers: tuple[int, ...] | None = Field(None, description="layers that are edited; default: the family's preset")

    def edited(self, preset: tuple[int, ...], stop: int | None) -> tuple[int, ...]:
        return preset if self.layers is None else self.layers


class SequentialAblation(_OfLayers):
    """Active low-rate neurons are set to 0, layer after layer (Choi, Chang, Choi, IJCAI 2022, algorithm 1)."""

    made_by = "qualitygate.corrections.ablation:rate_ablation"

    method: Literal["sequential_ablation"] = "sequential_ablation"
    rates: Strengths = Field((0.1, 0.2, 0.3), description="strengths: values of R, rising")


class SingleAblation(Correction):
    """Active low-rate neurons of one layer are set to 0."""

    made_by = "qualitygate.corrections.ablation:rate_ablation"

    method: Literal["single_ablation"] = "single_ablation"
    layer: int | None = Field(None, description="the layer; default: the last of the family's preset")
    rates: Strengths = Field((0.1, 0.2, 0.3), description="strengths: values of R, rising")

    def edited(self, preset: tuple[int, ...], stop: int | None) -> tuple[int, ...]:
        return (max(preset) if self.layer is None else self.layer,)


class HighRateAblation(_OfLayers):
    """Active *high*-rate neurons are set to 0: the paper's counter-experiment, for comparison; it destroys images."""

    made_by = "qualitygate.corrections.ablation:rate_ablation"
    falling = True

    method: Literal["high_rate_ablation"] = "high_rate_ablation"
    rates: Strengths = Field((0.9, 0.8, 0.7), description="strengths: values of R, falling; the lower, the more neurons go")


class RandomAblation(_OfLayers):
    """A random share of each sample's active neurons is set to 0, drawn by sample id: the paper's baseline, for comparison."""

    made_by = "qualitygate.corrections.ablation:share_ablation"
    strength_field = "shares"

    method: Literal["random_ablation"] = "random_ablation"
    shares: Strengths = Field((0.3,), description="strengths: shares of the active neurons, rising, in (0, 1]; the paper's 0.3")
    seed: int = Field(0, ge=0, lt=2**64)


class _UpToStop(Correction):
    layers: tuple[int, ...] | None = Field(None, description="layers that are edited, instead of all up to the stopping layer")
    stop: int | None = Field(None, ge=0, description="stopping layer: layers 0 … stop are edited; default: the family's")

    def edited(self, preset: tuple[int, ...], stop: int | None) -> tuple[int, ...]:
        stop = stop if self.stop is None else self.stop
        if self.layers is not None:
            return self.layers
        if stop is None:
            found, remedy = "a profile that does not say the family's", "set correction.stop, or calibrate again"
            raise PolicyError("The correction has no stopping layer", found, "a stopping layer", remedy)
        return tuple(range(stop + 1))

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.layers is not None and self.stop is not None:
            raise ValueError("give layers or stop, not both")
        return self


class _OfUnits(_UpToStop):
    """The units of each layer that score highest, by the profile's ranking or the sample's own."""

    made_by = "qualitygate.corrections.attenuation:unit_correction"
    strength_field = "sizes"

    score: str = Field(
        names.UNIT_LOW_RATE,
        description="score that ranks the units: a column of the profile's units.parquet (low_rate_activity; cla, with "
        "calibration.curvature_samples), or random",
    )
    ranking: Literal["profile", "sample"] = Field(
        "sample", description="whose score: the profile's, or the sample's own (low_rate_activity; cla, which costs a walk along all axes)"
    )
    rate: Rate = Field(0.1, gt=0.0, le=1.0, description="R of the sample's own low_rate_activity")
    units: tuple[int, ...] | None = Field(None, min_length=1, description="units of each layer, rising")
    shares: tuple[float, ...] | None = Field(None, min_length=1, description="the same as a share of the layer's units")

    default_shares: ClassVar[tuple[float, ...]] = (0.02, 0.05, 0.1)

    @property
    def sizes(self) -> tuple[float, ...]:
        """How many units of each layer: whole numbers, or shares if `in_shares`."""
        return self.units or self.shares or self.default_shares

    @property
    def in_shares(self) -> bool:
        return self.units is None

    @property
    def edit(self) -> dict[str, Any]:
        return {**super().edit, "in_shares": self.in_shares}

    @property
    def profile_score(self) -> str | None:
        return self.score if self.ranking == "profile" and self.score != RANDOM_UNITS else None

    @property
    def look(self) -> Look:
        if self.ranking == "profile" or self.score == RANDOM_UNITS:
            return "nothing"
        return "walk" if self.score == names.UNIT_CLA else "pass"

    def at(self, strength: float) -> tuple[float, float]:
        """Size and λ at a strength."""
        return strength, 0.0

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.units is not None and self.shares is not None:
            raise ValueError("give units or shares, not both")
        if self.units is not None and min(self.units) < 1:
            raise ValueError("units: at least one of each layer")
        check_strengths(self.sizes, "shares" if self.in_shares else "units", most=1.0 if self.in_shares else None)
        own = (names.UNIT_LOW_RATE, names.UNIT_CLA)  # what a sample has without labels
        if self.ranking == "sample" and self.score not in (*own, RANDOM_UNITS):
            raise ValueError(f"a sample has no {self.score} of its own, only {', '.join(own)}; use ranking: profile")
        return self


class ZeroAblation(_OfUnits):
    """The units that score highest in each layer are set to 0.

    The default begins small: of planted defects that low-rate neurons see at all, the top 2 % by the sample's own low-rate activity at
    R = 0.05 repair nine of ten samples; 10 % repair between none and nine of ten (docs/corrections.md).
    """

    method: Literal["zero_ablation"] = "zero_ablation"
    rate: Rate = Field(0.05, gt=0.0, le=1.0, description="R of the sample's own low_rate_activity")


class SequentialCorrection(_OfUnits):
    """``h_u ← λ·(1 − DS_u)·h_u`` for the units that score highest in each layer up to the stopping layer, layer after layer, DS being the
    score over the layer's maximum (Tousi et al., CVPR 2021, algorithm 1)."""

    method: Literal["sequential_correction"] = "sequential_correction"
    lambdas: Strengths = Field((0.9,), description="λ in [0, 1], the paper's 0.9; several, falling, are the strengths")

    default_shares: ClassVar[tuple[float, ...]] = (0.1, 0.2, 0.4)

    @property
    def sizes(self) -> tuple[float, ...]:
        return self.units or self.shares or ((0.2,) if len(self.lambdas) > 1 else self.default_shares)

    @property
    def strengths(self) -> tuple[float, ...]:
        return self.lambdas if len(self.lambdas) > 1 else super().strengths

    @property
    def edit(self) -> dict[str, Any]:
        several = len(self.lambdas) > 1
        return {**super().edit, "lambdas": "strengths" if several else self.lambdas, "sizes": self.sizes if several else None}

    def at(self, strength: float) -> tuple[float, float]:
        return (float(self.sizes[0]), strength) if len(self.lambdas) > 1 else (strength, self.lambdas[0])

    @model_validator(mode="after")
    def _one_strength(self) -> Self:
        if not all(0.0 <= one <= 1.0 for one in self.lambdas):
            raise ValueError("every λ must lie in [0, 1]")
        check_strengths(self.lambdas, "lambdas", most=None, falling=True)
        if len(self.lambdas) > 1 and len(self.sizes) > 1:
            raise ValueError("give several lambdas or several sizes, not both: one of them is the strength")
        return self


class LocalRegion(_UpToStop):
    """``h ← (1 − w·mask)·h`` in every layer up to the stopping layer, the sample's own mask brought to the layer's size: only the
    masked region changes (Tousi et al., CVPR 2021, section 4.2, with Grad-CAM in place of this mask)."""

    made_by = "qualitygate.corrections.local_region:region_correction"
    strength_field = "weights"

    method: Literal["local_region"] = "local_region"
    mask: Literal["low_rate", "cla"] = Field(
        "low_rate", description="the sample's own mask: where its low-rate neurons fire, or its CLA, which costs a walk"
    )
    rate: Rate = Field(0.1, gt=0.0, le=1.0, description="R of the low-rate neurons of the mask")
    weights: Strengths = Field((0.5, 1.0), description="strengths: weight of the mask, rising, in (0, 1]; the paper's 1")

    @property
    def look(self) -> Look:
        return "walk" if self.mask == "cla" else "pass"


_OURS: tuple[type[Correction], ...] = (
    *(SequentialAblation, SingleAblation, HighRateAblation, RandomAblation),
    *(ZeroAblation, SequentialCorrection, LocalRegion),
)
METHODS: Table[type[Correction]] = Table("corrections", {one.name: f"{__name__}:{one.__name__}" for one in _OURS}, Correction)
"""Every correction by its method, those of plug-ins included."""


@cache
def _any_correction() -> TypeAdapter[Correction]:
    union: Any = reduce(or_, METHODS.values())
    return TypeAdapter(Annotated[union, Field(discriminator="method")])


def _chosen(document: Any) -> Any:
    """The correction that the ``method`` names; sequential ablation is what a document without one means."""
    defaulted = {"method": "sequential_ablation"}
    return _any_correction().validate_python({**defaulted, **document}) if isinstance(document, dict) else document


class _SchemaOfAll:
    @staticmethod
    def __get_pydantic_json_schema__(schema: Any, handler: Any) -> Any:
        return handler(_any_correction().core_schema)


AnyCorrection = Annotated[SerializeAsAny[InstanceOf[Correction]], BeforeValidator(_chosen), _SchemaOfAll]
"""One of `METHODS`, told by its ``method``, and written with all of its own settings."""


def check_strengths(values: Sequence[float], what: str, *, most: float | None = 1.0, falling: bool = False) -> None:
    """Raises `ValueError` unless strengths, or rates, go from the least to the most, each with a short name of its own, and lie in
    (0, ``most``] where there is such a limit. ``what`` they are, in words."""
    if most is not None and not all(0.0 < value <= most for value in values):
        raise ValueError(f"{what} must lie in (0, {most:g}]")
    in_order = values[::-1] if falling else values
    if any(after <= before for before, after in pairwise(in_order)):
        raise ValueError(f"{what} must {'fall' if falling else 'rise'}, each once")
    for value in values:
        if names.number(names.rate(value)) != value:  # two of them would share one column
            raise ValueError(f"{value!r} has no short name: use at most 6 digits, and at least 0.0001")


def recheck_layers(edited: tuple[int, ...], last: int) -> tuple[int, ...]:
    """Layers that a corrected sample is judged on: after the first edited one, up to the first that is not edited; ``last`` is the
    generator's last. A `PolicyError` where none is left to judge by."""
    judged = tuple(range(min(edited) + 1, min(max(edited) + 1, last) + 1))
    if not judged:
        found, needed = f"only the last layer {last} is edited", "an earlier layer among the edited ones"
        raise PolicyError("The correction leaves nothing to judge by", found, needed, "name the layers to edit in the correction")
    return judged
