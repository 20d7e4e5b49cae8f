"""A policy's correction as a method that is ready to be used on a generator, by what its profile knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qualitygate import names
from qualitygate.corrections import own
from qualitygate.corrections.ablation import high_rate_ablation, low_rate_ablation
from qualitygate.corrections.attenuation import UnitScores, random_units
from qualitygate.corrections.method import Method, OwnRegion, OwnUnits, RandomNeurons, SameForAll, same_units
from qualitygate.errors import ProfileError
from qualitygate.gating.profile import Profile
from qualitygate.generators.base import Generator
from qualitygate.latents import Latents
from qualitygate.policy.corrections import (
    RANDOM_UNITS,
    Correction,
    HighRateAblation,
    LocalRegion,
    RandomAblation,
    SequentialAblation,
    SequentialCorrection,
    SingleAblation,
    ZeroAblation,
)


def method_of(correction: Correction, generator: Generator, profile: Profile, layers: tuple[int, ...]) -> Method:
    """The method of a correction.

    Args:
        correction: the policy's.
        generator: the generator that it will be used on.
        profile: what calibration learned of it.
        layers: layers to edit.

    Raises:
        InputError: it would change nothing.
        ProfileError: the profile does not hold the scores that it needs.
    """
    rates, device = profile.rates, generator.device
    match correction:
        case SequentialAblation() | SingleAblation():
            return SameForAll({at: low_rate_ablation(rates, layers, at, device) for at in correction.rates})
        case HighRateAblation():
            return SameForAll({at: high_rate_ablation(rates, layers, at, device) for at in correction.rates})
        case RandomAblation():
            return RandomNeurons(layers, correction.seed)
        case LocalRegion():
            if correction.mask == "cla":
                return OwnRegion(lambda latents: own.own_local_activation_mask(generator, latents, layers), layers)
            at = correction.rate
            return OwnRegion(lambda latents: own.own_low_rate_mask(generator, latents, rates, at, layers), layers)
        case ZeroAblation() | SequentialCorrection():
            return _of_units(correction, generator, profile, layers)


def profile_scores(profile: Profile, column: str, layers: tuple[int, ...]) -> dict[int, Tensor]:
    """A column of the profile's table of units as scores, float64 (units,) by layer.

    Raises:
        ProfileError: there is no such column, or it does not know all of these layers.
    """
    table = profile.units
    scores = [name for name in table if name not in (names.UNIT_KEY, names.LAYER, names.UNIT)]
    wanted = f"{column} of the units of layers {list(layers)}"
    if column not in scores:
        raise ProfileError("The profile does not rank the units so", f"scores {', '.join(scores)}", wanted, _remedy(column))
    by_layer: dict[int, list[Any]] = {layer: [] for layer in layers}
    for layer, value in zip(table[names.LAYER], table[column], strict=True):
        if layer in by_layer:
            by_layer[layer].append(value)
    unknown = [layer for layer, values in by_layer.items() if not values or None in values]
    if unknown:
        raise ProfileError(f"The profile does not rank all units by {column}", f"no {column} at layers {unknown}", wanted, _remedy(column))
    return {layer: torch.tensor(values, dtype=torch.float64) for layer, values in by_layer.items()}


def _remedy(column: str) -> str:
    if column in (names.UNIT_CLA, names.UNIT_CLA_PLAIN):
        return (
            "set calibration.curvature_samples to some tens and this correction in the policy, and calibrate again; or rank "
            "by each sample's own CLA: ranking: sample"
        )
    return "choose one of those, or calibrate again with a policy that has this correction"


def _of_units(correction: ZeroAblation | SequentialCorrection, generator: Generator, profile: Profile, layers: tuple[int, ...]) -> Method:
    if correction.score == RANDOM_UNITS:
        scores = random_units(generator, layers)
    elif correction.ranking == "profile":
        scores = profile_scores(profile, correction.score, layers)
    else:
        look = _own_units(correction, generator, profile, layers)
        return OwnUnits(look, correction.at, in_shares=correction.in_shares, device=generator.device)
    scores = {layer: one.to(generator.device) for layer, one in scores.items()}
    return same_units(scores, correction.strengths, correction.at, in_shares=correction.in_shares)


def _own_units(
    correction: ZeroAblation | SequentialCorrection, generator: Generator, profile: Profile, layers: tuple[int, ...]
) -> Callable[[Latents], UnitScores]:
    if correction.score == names.UNIT_CLA:
        return lambda latents: own.own_local_activation(generator, latents, layers)
    return lambda latents: own.own_low_rate_activity(generator, latents, profile.rates, correction.rate, layers)
