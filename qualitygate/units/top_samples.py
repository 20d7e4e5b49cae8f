"""The samples that each unit is most active for, in one pass: what a unit draws, and the sets whose FID is measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from qualitygate.errors import InputError
from qualitygate.generators.base import Generator, LayerLike, read_layers
from qualitygate.generators.passes import Progress, micro_batches, scored_pass, silent
from qualitygate.latents import Latents


@dataclass(frozen=True)
class TopSamples:
    """The most active samples of each unit of a layer.

    Attributes:
        rows: rows of the latents, int64 (units, count), the most active first.
        peak: the unit's highest activation in that sample, over positions, float32 (units, count).
    """

    rows: Tensor
    peak: Tensor


def top_samples(
    generator: Generator, latents: Latents, layers: Iterable[LayerLike], count: int, progress: Progress = silent
) -> dict[int, TopSamples]:
    """The ``count`` samples with the highest activation of each unit, by layer. The activation of a unit in a sample is its maximum over
    positions (the paper does not say). Memory: what is kept, and one micro-batch.

    Raises:
        InputError: fewer samples than that.
        LayerError: no such layer.
    """
    if not 1 <= count <= len(latents):
        raise InputError("Not so many samples to choose from", f"{count} of {len(latents)}", "at most as many as there are")
    indices = generator.layer_indices(layers)
    kept = {layer: _nothing(generator.layers[layer].units, generator.device) for layer in indices}
    with scored_pass():
        for rows, batch in micro_batches(latents):
            numbers = torch.arange(rows.start, rows.stop, device=generator.device)
            for layer, activation in read_layers(generator, batch, indices):
                peak = activation[: len(numbers)].amax(dim=(2, 3)).float().T
                kept[layer] = _merged(kept[layer], peak, numbers, count)
            progress(len(numbers))
    return {layer: TopSamples(one.rows.cpu(), one.peak.cpu()) for layer, one in kept.items()}


def _nothing(units: int, device: torch.device) -> TopSamples:
    return TopSamples(torch.empty(units, 0, dtype=torch.int64, device=device), torch.empty(units, 0, device=device))


def _merged(kept: TopSamples, peak: Tensor, numbers: Tensor, count: int) -> TopSamples:
    """The best of what was kept and of new samples; of equally active ones the earlier."""
    peaks = torch.cat((kept.peak, peak), dim=1)
    rows = torch.cat((kept.rows, numbers.expand(len(peak), -1)), dim=1)
    order = peaks.argsort(dim=1, descending=True, stable=True)[:, :count]
    return TopSamples(rows.gather(1, order), peaks.gather(1, order))
