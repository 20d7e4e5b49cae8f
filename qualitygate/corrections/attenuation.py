"""Attenuation of units (Tousi et al., CVPR 2021, algorithm 1): pure edits of one layer's activation, by any unit score.

Sequential correction is such an edit at every layer up to the stopping layer of one pass, each computed from the edited one before it.
The printed algorithm is off by one in its indices; the text decides: a layer's units are attenuated by that layer's own scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from qualitygate import names
from qualitygate.corrections.method import Learned, Method, SampleEdits, corrected_images, same_for_all
from qualitygate.errors import InputError
from qualitygate.generators.base import Edit, Edits, Generator
from qualitygate.generators.passes import Progress, on_host, silent
from qualitygate.latents import Latents, Purpose, uniforms
from qualitygate.policy.corrections import RANDOM_UNITS, SequentialCorrection, ZeroAblation
from qualitygate.scores.local_activation import in_parts
from qualitygate.scores.low_rate import ActivationRates

PAPER_SHARE = 0.2  # of a layer's units are attenuated in the paper
PAPER_LAMBDA = 0.9  # λ of the paper

UnitScores = Mapping[int, Tensor]
"""Scores of units by layer, higher = more suspect: (units,), or (N, units) for scores of each sample's own."""


def attenuate(activation: Tensor, factors: Tensor) -> Tensor:
    """A copy of (N, units, height, width) with each unit multiplied by its factor, (units,) or (N, units)."""
    return activation * factors[..., None, None].to(activation)


def top_units(scores: Tensor, size: float, *, in_shares: bool) -> Tensor:
    """Which units score highest: bool, of the shape of ``scores`` (…, units); ``size`` of them, all that are suspect if there are fewer, or
    such a share, at least one. Of equal scores the lower index comes first. A unit whose score is not above 0, or is not finite, is under
    no suspicion and never chosen (our choice)."""
    count = max(1, round(size * scores.shape[-1])) if in_shares else int(size)
    known = torch.where(torch.isfinite(scores) & (scores > 0), scores, 0.0)
    place = known.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    return (place < count) & (known > 0)


def unit_factors(scores: Tensor, size: float, lambda_: float, *, in_shares: bool = True) -> Tensor:
    """``λ·(1 − DS_u)`` for the units that score highest, 1 for the others: of the shape of ``scores``, in [0, 1].

    DS is the score over the layer's largest (the paper says "normalized"; our choice).

    Example:
        >>> unit_factors(torch.tensor([4.0, 1.0, 2.0, 0.0]), 2, 0.5, in_shares=False)
        tensor([0.0000, 1.0000, 0.2500, 1.0000])
    """
    chosen = top_units(scores, size, in_shares=in_shares)
    kept = torch.where(chosen, scores, 0.0)
    largest = kept.amax(dim=-1, keepdim=True)
    normalised = kept / torch.where(largest > 0, largest, 1.0)
    return torch.where(chosen, lambda_ * (1.0 - normalised), 1.0)


def unit_attenuation(scores: UnitScores, size: float, lambda_: float = PAPER_LAMBDA, *, in_shares: bool = True) -> dict[int, Edit]:
    """Edits that attenuate the units that score highest in each layer; ``lambda_ = 0`` is zero ablation. Raises `InputError` where size or
    λ is out of range, or no unit (N, units) of any layer is suspect, so that the correction could not change anything."""
    if not (0.0 <= lambda_ <= 1.0 and size > 0.0 and (size <= 1.0 if in_shares else size == int(size))):
        raise InputError(
            "Units cannot be attenuated so",
            f"size {size:g}, λ {lambda_:g}",
            "λ in [0, 1], and a whole number of units, or a share of them in (0, 1]",
        )
    if not any(bool((one > 0).any()) for one in scores.values()):
        raise InputError(
            "A correction of units would change nothing",
            f"no unit of layers {sorted(scores)} has a score above 0",
            "at least one such unit",
            "choose another score or other layers",
        )
    return {layer: partial(attenuate, factors=unit_factors(one, size, lambda_, in_shares=in_shares)) for layer, one in scores.items()}


def random_units(generator: Generator, layers: Iterable[int], seed: int = 0) -> dict[int, Tensor]:
    """Random scores of units in (0, 1), float64 (units,) by layer: the paper's baseline to a ranking."""
    sample = np.zeros(1, dtype=np.int64)
    return {
        layer: torch.from_numpy(uniforms(seed, Purpose.RANDOM_UNITS + 16 * layer, sample, generator.layers[layer].units)[0])
        for layer in layers
    }


def own_low_rate_activity(
    generator: Generator, latents: Latents | Tensor, rates: ActivationRates, rate: float, layers: Sequence[int], progress: Progress = silent
) -> dict[int, Tensor]:
    """Share of each unit's positions that are low-rate at R = ``rate`` and active: float64 (N, units) by layer. One pass."""
    masks = {layer: rates.low_rate(layer, rate).to(generator.device) for layer in layers}
    parts: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    for _, layer, activation in generator.activations(latents, layers, progress=progress):
        parts[layer].append(on_host(((activation > 0) & masks[layer]).double().mean(dim=(2, 3))))
    return {layer: torch.cat(part) for layer, part in parts.items()}


def own_local_activation(generator: Generator, latents: Latents, layers: Sequence[int]) -> dict[int, Tensor]:
    """CLA unit scores of each sample: float64 (N, units) by layer. One walk along all axes for all layers."""
    parts = [local.unit_score for local in in_parts(generator, latents, layers)]
    return {layer: torch.cat([part[layer] for part in parts]) for layer in layers}


def unit_correction(
    correction: ZeroAblation | SequentialCorrection, generator: Generator, profile: Learned, layers: tuple[int, ...]
) -> Method:
    """Attenuation by a policy's settings, see `Correction.ready`: by one ranking of the units for all samples, or by each sample's own."""
    in_shares, device = correction.in_shares, generator.device
    if correction.score == RANDOM_UNITS or correction.ranking == "profile":
        by_rank = correction.score != RANDOM_UNITS
        scores = profile.unit_scores(correction.score, layers) if by_rank else random_units(generator, layers)
        placed = {layer: one.to(device) for layer, one in scores.items()}
        return same_for_all({at: unit_attenuation(placed, *correction.at(at), in_shares=in_shares) for at in correction.strengths})

    def of(latents: Latents) -> SampleEdits:
        if correction.score == names.UNIT_CLA:
            own = own_local_activation(generator, latents, layers)
        else:
            own = own_low_rate_activity(generator, latents, profile.rates, correction.rate, layers)
        scores = {layer: one.to(device) for layer, one in own.items()}

        def edits(strength: float, rows: np.ndarray) -> Edits:
            size, lambda_ = correction.at(strength)
            picked = torch.from_numpy(rows).to(device)
            factors = {layer: unit_factors(one[picked], size, lambda_, in_shares=in_shares) for layer, one in scores.items()}
            return {layer: partial(attenuate, factors=of_layer) for layer, of_layer in factors.items()}

        suspect = torch.stack([(one > 0).any(dim=1) for one in scores.values()]).any(dim=0)
        return SampleEdits(edits, on_host(suspect).numpy())

    return of


def sequential_correction(
    generator: Generator,
    latents: Latents | Tensor,
    scores: UnitScores,
    *,
    size: float = PAPER_SHARE,
    lambda_: float = PAPER_LAMBDA,
    in_shares: bool = True,
) -> Tensor:
    """Images (N, channels, height, width), float32 in [-1, 1], of N samples, latents or a bare z (N, D), with the most suspect units of
    each layer attenuated: ``h_u ← λ·(1 − DS_u)·h_u`` (Tousi et al., CVPR 2021, algorithm 1).

    Args:
        scores: scores (units,) of the units of every layer to edit: layers 0 … stopping layer in the paper.
        size: units of each layer, or, ``in_shares``, their share; the paper's is 20 %.
        lambda_: λ; 0 is zero ablation.

    Raises:
        InputError: nothing would be attenuated, or size and λ are out of range.
        LayerError: no such layer.
    """
    indices = generator.layer_indices(scores)
    placed = {layer: scores[layer].to(generator.device) for layer in indices}
    edits = unit_attenuation(placed, size, lambda_, in_shares=in_shares)
    return corrected_images(generator, latents, same_for_all({lambda_: edits}), lambda_)
