"""Corrections: each a function of a scene and latents that gives images, and says which samples it touched or refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from planted_rows.scene import SEED, Scene
from planted_rows.units import UNIT_SCORES
from planted_rows.words import ORACLE
from qualitygate.corrections.ablation import sequential_ablation
from qualitygate.corrections.attenuation import unit_attenuation
from qualitygate.corrections.local_region import own_region
from qualitygate.corrections.method import Method, corrected_images, same_for_all
from qualitygate.gating.stage import GateStage
from qualitygate.latents import Latents
from qualitygate.policy.corrections import Correction as CorrectionModel
from qualitygate.policy.corrections import HighRateAblation, LocalRegion, RandomAblation, SequentialCorrection, SingleAblation, ZeroAblation


@dataclass(frozen=True)
class Corrected:
    """What became of N samples.

    Attributes:
        images: float32 (N, channels, height, width), NaN for a rejected sample.
        verdict: `Verdict` values (N,); None for a correction that judges nothing and touches every sample.
    """

    images: Tensor
    verdict: np.ndarray | None = None


Correction = Callable[[Scene, Latents], Corrected]


def ablation(rate: float, scene: Scene, latents: Latents) -> Corrected:
    """Sequential ablation of every sample."""
    return Corrected(sequential_ablation(scene.generator, latents, scene.profile.rates, rate, scene.layers))


def gate(scene: Scene, latents: Latents) -> Corrected:
    """Least correction, as the gate does it with the family's default policy: only what it finds is touched."""
    stage = GateStage(scene.generator, scene.profile, scene.policy, seed=SEED)
    block = stage.block(latents)
    images = torch.full((len(latents), *scene.generator.image_shape), torch.nan)
    for row, image in block.images.items():
        images[row] = torch.from_numpy(image)
    return Corrected(images, block.decisions.verdict)


def by_method(make: Callable[[Scene], Method], strength: float, scene: Scene, latents: Latents) -> Corrected:
    """A method at one strength on every sample."""
    return Corrected(corrected_images(scene.generator, latents, make(scene), strength))


def neurons(correction: CorrectionModel, scene: Scene) -> Method:
    """Ablation of other neurons, or of fewer layers, as a policy would ask for it."""
    layers = correction.edited(scene.layers, scene.generator.presets.stop)
    return correction.ready(scene.generator, scene.profile, layers)


def units(ranking: str, size: float, lambda_: float, scene: Scene) -> Method:
    """Attenuation of the units that a ranking puts first in every layer it ranks."""
    scores = UNIT_SCORES[ranking](scene)
    return same_for_all({size: unit_attenuation(scores, size, lambda_, in_shares=size < 1)})


def planted_units(scene: Scene) -> Method:
    """What would be right: the planted units of the ranked layers, and no other, set to 0."""
    planted = scene.planted.truth.units
    scores = {layer: torch.zeros(scene.generator.layers[layer].units) for layer in scene.layers if layer in planted}
    for layer, of_layer in scores.items():
        of_layer[list(planted[layer])] = 1.0
    return same_for_all({1.0: unit_attenuation(scores, 1.0, 0.0)} if scores else {1.0: {}})


def planted_region(scene: Scene) -> Method:
    """The best that a mask can do: the planted pixels themselves."""
    pixels = scene.planted.truth.pixels.float()
    stop = scene.generator.presets.stop
    return own_region(lambda latents: pixels.expand(len(latents), *pixels.shape), range(stop + 1))


_FOUND = ("low-rate activity, R = 0.1, all samples", "low-rate activity, R = 0.1, defective samples", "CLA, defective samples")
_METHODS: dict[str, tuple[Callable[[Scene], Method], float]] = {
    **{f"single ablation, R = {rate}": (partial(neurons, SingleAblation(rates=(rate,))), rate) for rate in (0.05,)},
    "high-rate ablation, R = 0.9": (partial(neurons, HighRateAblation(rates=(0.9,))), 0.9),
    "random ablation, 30 %": (partial(neurons, RandomAblation()), 0.3),
    **{f"zero ablation of 10 units by {name}": (partial(units, name, 10, 0.0), 10) for name in _FOUND},
    **{f"sequential correction of 20 % by {name}": (partial(units, name, 0.2, 0.9), 0.2) for name in _FOUND},
    "zero ablation of 2 % by own low-rate activity, R = 0.05": (partial(neurons, ZeroAblation(shares=(0.02,), rate=0.05)), 0.02),
    "sequential correction of 20 % by own low-rate activity, R = 0.05": (
        partial(neurons, SequentialCorrection(shares=(0.2,), rate=0.05)),
        0.2,
    ),
    **{f"local region by own low-rate neurons, R = {rate}": (partial(neurons, LocalRegion(rate=rate)), 1.0) for rate in (0.02, 0.1)},
    f"{ORACLE}planted units set to 0": (planted_units, 1.0),
    f"{ORACLE}local region by planted pixels": (planted_region, 1.0),
}

CORRECTIONS: dict[str, Correction] = {
    "gate, least correction": gate,
    **{f"sequential ablation, R = {rate}": partial(ablation, rate) for rate in (0.02, 0.05, 0.1, 0.2, 0.3)},
    **{name: partial(by_method, make, strength) for name, (make, strength) in _METHODS.items()},
}
