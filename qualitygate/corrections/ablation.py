"""Ablation of neurons (Choi, Chang, Choi, IJCAI 2022, algorithm 1): pure edits of one layer's activation.

Sequential ablation is such an edit at several layers of one pass: each layer is computed from the edited one before it, so a low-rate
neuron is judged active on what earlier ablations left. The rates are always those of the untouched generator.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from qualitygate.corrections.method import Learned, Method, SampleEdits, same_for_all
from qualitygate.errors import InputError
from qualitygate.generators.base import Edit, Generator, LayerLike
from qualitygate.generators.passes import on_host
from qualitygate.latents import Latents, Purpose, uniforms
from qualitygate.policy.corrections import HighRateAblation, RandomAblation, SequentialAblation, SingleAblation
from qualitygate.scores.low_rate import PAPER_RATE, ActivationRates

RANDOM_SHARE = 0.3  # of the active neurons are ablated by the paper's random baseline


def ablate(activation: Tensor, neurons: Tensor) -> Tensor:
    """A copy of (N, units, height, width) with the *active* ones among ``neurons`` set to 0; what is not positive stays as it is. Neurons
    are bool (units, height, width), or have a leading N for a set of its own in each sample."""
    return torch.where(neurons, activation.clamp(max=0), activation)


def low_rate_ablation(rates: ActivationRates, layers: Iterable[int], rate: float, device: torch.device | str) -> dict[int, Edit]:
    """Edits that ablate the low-rate neurons at R = ``rate``. One layer is single ablation, several are sequential ablation. Raises
    `InputError` where the layers have no such neuron at all, so that the correction could not change anything."""
    return _edits({layer: rates.low_rate(layer, rate) for layer in layers}, f"low-rate neurons at R = {rate}", device)


def high_rate_ablation(rates: ActivationRates, layers: Iterable[int], rate: float, device: torch.device | str) -> dict[int, Edit]:
    """Edits that ablate the high-rate neurons: the paper's counter-experiment, which destroys the image."""
    return _edits({layer: rates.high_rate(layer, rate) for layer in layers}, f"high-rate neurons at R = {rate}", device)


def random_ablation(latents: Latents, layers: Iterable[int], share: float = RANDOM_SHARE, seed: int = 0) -> dict[int, Edit]:
    """Edits that ablate a random ``share`` of each sample's active neurons: the paper's baseline. Each sample and layer has a random stream
    of its own, by sample id, so that the choice does not depend on the batch. The edits belong to exactly these latents, in this order."""
    if not 0.0 < share <= 1.0:
        raise InputError("A share of neurons is out of range", str(share), "a number in (0, 1]")

    def apply(activation: Tensor, layer: int) -> Tensor:
        chance = uniforms(seed, Purpose.RANDOM_ABLATION + 16 * layer, latents.ids, int(np.prod(activation.shape[1:])))
        return ablate(activation, torch.from_numpy(chance < share).view(activation.shape).to(activation.device))

    return {layer: partial(apply, layer=layer) for layer in layers}


def rate_ablation(
    correction: SequentialAblation | SingleAblation | HighRateAblation, generator: Generator, profile: Learned, layers: tuple[int, ...]
) -> Method:
    """Low-rate or high-rate ablation by a policy's settings, see `Correction.ready`; the strengths are values of R."""
    ablation = high_rate_ablation if isinstance(correction, HighRateAblation) else low_rate_ablation
    return same_for_all({rate: ablation(profile.rates, layers, rate, generator.device) for rate in correction.rates})


def share_ablation(correction: RandomAblation, generator: Generator, profile: Learned, layers: tuple[int, ...]) -> Method:
    """Random ablation by a policy's settings; the strengths are shares."""

    return lambda latents: SampleEdits(
        lambda share, rows: random_ablation(latents[rows], layers, share, correction.seed), np.ones(len(latents), dtype=bool)
    )


def sequential_ablation(
    generator: Generator,
    latents: Latents | Tensor,
    rates: ActivationRates,
    rate: float = PAPER_RATE,
    layers: Iterable[LayerLike] | None = None,
) -> Tensor:
    """Images (N, channels, height, width), float32 in [-1, 1], of N samples, latents or a bare z (N, D), with the active low-rate neurons
    of the layers (by default the family's preset) set to 0. The rates are those of the untouched generator; the paper's best R is 0.3.
    Raises `InputError` where nothing would be ablated."""
    indices = generator.layer_indices(generator.presets.low_rate if layers is None else layers)
    return generator.images(latents, low_rate_ablation(rates, indices, rate, generator.device))


def _edits(neurons: dict[int, Tensor], what: str, device: torch.device | str) -> dict[int, Edit]:
    if not any(bool(on_host(chosen).any()) for chosen in neurons.values()):
        raise InputError(
            "An ablation would change nothing",
            f"layers {sorted(neurons)} have no {what}",
            "at least one such neuron",
            "choose another rate or other layers, or estimate the rates from more latents",
        )
    return {layer: partial(ablate, neurons=chosen.to(device)) for layer, chosen in neurons.items()}
