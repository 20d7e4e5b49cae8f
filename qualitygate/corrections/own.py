"""What a sample says of itself, without labels: scores of its own units, and masks of its own region."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from qualitygate.generators.base import Generator, read_layers
from qualitygate.generators.passes import MICRO_BATCH, micro_batches, scored_pass
from qualitygate.latents import Latents
from qualitygate.scores.local_activation import LocalActivation, local_activation
from qualitygate.scores.low_rate import ActivationRates, low_rate_heatmap


def own_low_rate_activity(
    generator: Generator, latents: Latents, rates: ActivationRates, rate: float, layers: Sequence[int]
) -> dict[int, Tensor]:
    """Share of each unit's positions that are low-rate at R = ``rate`` and active: float64 (N, units) by layer. One pass."""
    masks = {layer: rates.low_rate(layer, rate).to(generator.device) for layer in layers}
    parts: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    with scored_pass():
        for rows, batch in micro_batches(latents):
            for layer, activation in read_layers(generator, batch, layers):
                active = (activation[: rows.stop - rows.start] > 0) & masks[layer]
                parts[layer].append(active.double().mean(dim=(2, 3)).cpu())
    return {layer: torch.cat(part) for layer, part in parts.items()}


def own_local_activation(generator: Generator, latents: Latents, layers: Sequence[int]) -> dict[int, Tensor]:
    """CLA unit scores of each sample: float64 (N, units) by layer. One walk along all axes for all layers."""
    parts = [one.unit_score for one in _walks(generator, latents, layers)]
    return {layer: torch.cat([part[layer] for part in parts]) for layer in layers}


def own_low_rate_mask(generator: Generator, latents: Latents, rates: ActivationRates, rate: float, layers: Sequence[int]) -> Tensor:
    """Where low-rate neurons fire, over the hottest place of the sample: float32 (N, height, width) in [0, 1], at the size of the image."""
    return _over_hottest(low_rate_heatmap(generator, latents, rates, rate, layers))


def own_local_activation_mask(generator: Generator, latents: Latents, layers: Sequence[int]) -> Tensor:
    """Where the neurons' parts of the CLA score are large, over the largest of the sample: float32 (N, height, width) in [0, 1].

    The sum over units, bilinear to the image; each layer brought to mean 1, since parts of a later layer are smaller; mean over layers.
    """
    parts = []
    for local in _walks(generator, latents, layers):
        maps = []
        for layer in layers:
            heat = local.neuron_score(layer).sum(dim=1, keepdim=True)
            heat = F.interpolate(heat, size=generator.image_shape[1:], mode="bilinear", align_corners=False)[:, 0]
            maps.append(heat / heat.mean(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(heat.dtype).tiny))
        parts.append(torch.stack(maps).mean(dim=0))
    return _over_hottest(torch.cat(parts))


def _walks(generator: Generator, latents: Latents, layers: Sequence[int]) -> list[LocalActivation]:
    """A micro-batch at a time: the curvature of every neuron of many samples would not fit in memory."""
    return [local_activation(generator, latents[start : start + MICRO_BATCH], layers) for start in range(0, len(latents), MICRO_BATCH)]


def _over_hottest(heat: Tensor) -> Tensor:
    """Heat of each sample over its maximum; a sample that has none, or is not finite, is empty."""
    heat = torch.where(torch.isfinite(heat).all(dim=(1, 2), keepdim=True), heat, 0.0)
    hottest = heat.amax(dim=(1, 2), keepdim=True)
    return heat / torch.where(hottest > 0, hottest, 1.0)
