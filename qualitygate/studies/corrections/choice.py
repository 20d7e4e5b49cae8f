"""Which corrections a study compares: methods × sources of units × layers × strengths, by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.policy.corrections import (
    RANDOM_UNITS,
    Correction,
    HighRateAblation,
    LocalRegion,
    SequentialAblation,
    SequentialCorrection,
    SingleAblation,
    ZeroAblation,
)
from qualitygate.policy.corrections import methods as known_methods
from qualitygate.policy.model import Policy


def study_corrections(
    policy: Policy,
    methods: Collection[str],
    *,
    own_cla: bool = False,
    unit_scores: Sequence[str] = (),
    strengths: Mapping[str, tuple[float, ...]] | None = None,
    layers: Sequence[tuple[int, ...]] = (),
) -> dict[str, Correction]:
    """Corrections worth comparing, by name: the policy's own, and every other method as it is by default, judged like the policy's own.

    Units are ranked by each sample's own low-rate activity, by the profile's low-rate activity and CLA, by further columns, and at random.

    Args:
        policy: the policy.
        methods: those of `policy.corrections.methods` to take.
        own_cla: also rank and mask by each sample's own CLA.
        unit_scores: further columns of the profile's table of units to rank by, see `Profile.with_unit_scores`.
        strengths: by method, in place of its default strengths.
        layers: sets of layers to edit, each with every method, in place of the defaults; single ablation takes those of one layer.

    Raises:
        InputError: strengths that a method cannot have.
    """
    own = policy.correction
    judged = {"judged_at": policy.headline_rate} if own is None else {"judged_at": own.judged_at, "limit": own.limit}
    found: dict[str, Correction] = {}
    for method in (method for method in known_methods() if method in methods):
        if own is not None and own.method == method:
            found[f"{method}, the policy's"] = own
        common = {**judged, **_strengths(method, (strengths or {}).get(method))}
        for name, where in _places(method, layers).items():
            others = _variants(method, {**common, **where}, own_cla, unit_scores)
            found |= {f"{one}{name}": made for one, made in others.items() if made != own}
    return found


def rate_grid(policy: Policy, layers: Sequence[int], rates: Sequence[float]) -> dict[str, Correction]:
    """Low-rate beside high-rate ablation at every rate: of each layer alone, and of all of them (IJCAI 2022, figure 5 and table 1)."""
    judged_at = policy.headline_rate if policy.correction is None else policy.correction.judged_at
    sets = [(layer,) for layer in layers] + ([tuple(layers)] if len(layers) > 1 else [])
    return {
        f"{kind}, layers {_listed(chosen)}, R = {rate:g}": made(layers=chosen, rates=(rate,), judged_at=judged_at)
        for chosen in sets
        for rate in rates
        for kind, made in (("low-rate", SequentialAblation), ("high-rate", HighRateAblation))
    }


def _strengths(method: str, given: tuple[float, ...] | None) -> dict[str, Any]:
    if given is None:
        return {}
    field = _field(known_methods()[method])
    chosen = {field: given}
    try:
        known_methods()[method](**chosen)
    except ValueError as error:
        raise InputError(
            f"{method} cannot have these strengths",
            ", ".join(f"{one:g}" for one in given),
            f"{field} from the least to the most correction, each in (0, 1]",
        ) from error
    return chosen


def _field(made: type[Correction]) -> str:
    """Setting that holds a method's strengths; of units it is given as shares."""
    return "shares" if made.strength_field == "sizes" else made.strength_field


def _places(method: str, layers: Sequence[tuple[int, ...]]) -> dict[str, dict[str, Any]]:
    """Settings of the layers by what is added to the name."""
    if not layers:
        return {"": {}}
    if known_methods()[method] is SingleAblation:
        return {f", layer {one[0]}": {"layer": one[0]} for one in layers if len(one) == 1}
    return {f", layers {_listed(one)}": {"layers": one} for one in layers}


def _variants(method: str, settings: Mapping[str, Any], own_cla: bool, unit_scores: Sequence[str]) -> dict[str, Correction]:
    """A method by name, one for each source of units or masks."""
    made = known_methods()[method]
    if issubclass(made, ZeroAblation | SequentialCorrection):
        sources = {
            "own low-rate activity": ("sample", names.UNIT_LOW_RATE),
            "low-rate activity": ("profile", names.UNIT_LOW_RATE),
            "CLA": ("profile", names.UNIT_CLA),
            **{one: ("profile", one) for one in unit_scores},
            "random units": ("profile", RANDOM_UNITS),
        }
        sources |= {"own CLA": ("sample", names.UNIT_CLA)} if own_cla else {}
        return {f"{method}, {of}": made(**settings, ranking=ranking, score=score) for of, (ranking, score) in sources.items()}
    if issubclass(made, LocalRegion):
        masks = {"low-rate neurons": "low_rate", **({"own CLA": "cla"} if own_cla else {})}
        return {f"{method}, {of}": made(**settings, mask=mask) for of, mask in masks.items()}
    return {method: made(**settings)}


def _listed(layers: Sequence[int]) -> str:
    return ",".join(map(str, layers))
