"""Images of corrected samples."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from qualitygate.corrections.attenuation import PAPER_LAMBDA, PAPER_SHARE, UnitScores, unit_attenuation
from qualitygate.corrections.local_region import local_region
from qualitygate.corrections.method import Method, OwnRegion, SameForAll
from qualitygate.errors import InputError
from qualitygate.generators.base import Generator, LayerLike
from qualitygate.generators.passes import micro_batches, padded_rows, scored_pass
from qualitygate.latents import Latents


def corrected_images(generator: Generator, latents: Latents, method: Method, strength: float) -> Tensor:
    """Images (N, channels, height, width), float32 in [-1, 1], of samples corrected at one strength, whether that repairs them or not."""
    correction = method.of(latents)
    parts = []
    with scored_pass():
        for rows, batch in micro_batches(latents):
            edits = correction.edits(strength, padded_rows(rows, len(batch)))
            parts.append(generator(batch, edits)[: rows.stop - rows.start].cpu())
    return torch.cat(parts)


def sequential_correction(
    generator: Generator,
    latents: Latents,
    scores: UnitScores,
    *,
    size: float = PAPER_SHARE,
    lambda_: float = PAPER_LAMBDA,
    in_shares: bool = True,
) -> Tensor:
    """Images with the most suspect units of each layer attenuated: ``h_u ← λ·(1 − DS_u)·h_u`` (Tousi et al., CVPR 2021, algorithm 1).

    Args:
        generator: the generator; it is not changed.
        latents: N samples.
        scores: scores (units,) of the units of every layer to edit: layers 0 … stopping layer in the paper.
        size: units of each layer, or their share; the paper's is 20 %.
        lambda_: λ; 0 is zero ablation.
        in_shares: whether ``size`` is a share.

    Returns:
        (N, channels, height, width), float32 in [-1, 1].

    Raises:
        InputError: nothing would be attenuated, or size and λ are out of range.
        LayerError: no such layer.
    """
    indices = generator.layer_indices(scores)
    placed = {layer: scores[layer].to(generator.device) for layer in indices}
    edits = unit_attenuation(placed, size, lambda_, in_shares=in_shares)
    return corrected_images(generator, latents, SameForAll({lambda_: edits}), lambda_)


def local_region_correction(
    generator: Generator, latents: Latents, masks: Tensor, layers: Iterable[LayerLike] | None = None, *, weight: float = 1.0
) -> Tensor:
    """Images corrected where each sample's own mask says: ``h ← (1 − mask)·h`` (Tousi et al., CVPR 2021, section 4.2).

    Args:
        generator: the generator; it is not changed.
        latents: N samples.
        masks: their masks, (N, H, W) in [0, 1], at any size.
        layers: layers to edit; by default all up to the family's stopping layer.
        weight: of the mask, in (0, 1].

    Returns:
        (N, channels, height, width), float32 in [-1, 1].

    Raises:
        InputError: the masks do not fit, or are all empty.
        LayerError: no such layer.
    """
    if len(masks) != len(latents):
        raise InputError("Every sample needs a mask", f"{len(masks)} masks", f"{len(latents)}, one for each sample")
    indices = generator.layer_indices(range(generator.presets.stop + 1) if layers is None else layers)
    local_region(masks, indices, weight)  # what cannot be used is refused before anything is made
    return corrected_images(generator, latents, OwnRegion(lambda _: masks, indices), weight)
