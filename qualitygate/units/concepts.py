"""What a unit draws (Tousi et al., CVPR 2021, section 4.1): the samples it is most active for, a representative image, heat over the
image, and clusters of units that share an artifact."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_map_only

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


TOP, SAMPLES = 20, 20_000
"""Top images of a unit, and samples they are chosen from, in the paper."""
SHARED = 0.5
"""Correlation from which on units are said to share what they draw."""


def representative(generator: Generator, latents: Latents, layer: int) -> Tensor:
    """Image (channels, height, width), float32 in [-1, 1] on the CPU, made from the mean featuremap of some samples at a layer: all of the
    layer's units as they are on average. Blurred, if the samples have little in common.

    Whatever else the rest of the chain needs (styles, the image so far) is averaged in the same way (the paper does not say).

    Raises:
        InputError: no samples.
    """
    if not len(latents):
        raise InputError("There is nothing to take the mean of", "no samples", "at least one sample")
    with scored_pass():
        state = generator.run(generator.start(latents), layer)
        mean = replace(state, activation=state.activation.mean(dim=0, keepdim=True), carry=tree_map_only(Tensor, _mean_row, state.carry))
        return generator.resume(mean)[0].cpu()


def unit_heat(generator: Generator, latents: Latents, layer: int, unit: int) -> Tensor:
    """Where in the images a unit is active: float32 (N, height, width), at least 0, bilinear to the size of the image."""
    rows = []
    with scored_pass():
        for valid, batch in micro_batches(latents):
            for _, activation in read_layers(generator, batch, (layer,)):
                own = activation[: valid.stop - valid.start, unit : unit + 1].clamp(min=0.0).float()
                heat = F.interpolate(own, size=generator.image_shape[1:], mode="bilinear", align_corners=False)
                rows.append(heat[:, 0].cpu())
    return torch.cat(rows)


def peaks(generator: Generator, latents: Latents, units: Mapping[int, Sequence[int]], progress: Progress = silent) -> Tensor:
    """Highest activation over positions of chosen units in each sample, float32 (N, units), in order of layer and as given within it."""
    layers = sorted(units)
    rows = []
    with scored_pass():
        for valid, batch in micro_batches(latents):
            of_layers = [
                activation[: valid.stop - valid.start, list(units[layer])].amax(dim=(2, 3)).float()
                for layer, activation in read_layers(generator, batch, layers)
            ]
            rows.append(torch.cat(of_layers, dim=1).cpu())
            progress(valid.stop - valid.start)
    return torch.cat(rows)


def clusters(active: Tensor, shared: float = SHARED) -> np.ndarray:
    """Clusters of units that fire together: hierarchical clustering, average linkage, of one minus the correlation of their activations.

    Args:
        active: how active each unit is in each of N samples, (N, units), for example `peaks` over artifact samples.
        shared: correlation that the units of a cluster have on average.

    Returns:
        number of each unit's cluster, int64 (units,), from 0 in order of the first unit of each. A unit that is the same in all samples
        has a cluster of its own.

    Raises:
        InputError: fewer than two samples, no units, or a correlation out of range.
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    samples, units = active.shape
    if samples < 2 or not units or not -1.0 < shared < 1.0:
        raise InputError(
            "Units cannot be clustered so",
            f"{samples} samples of {units} units, correlation {shared}",
            "at least two samples and one unit, a correlation in (-1, 1)",
        )
    if units == 1:
        return np.zeros(1, dtype=np.int64)
    distance = 1.0 - _correlations(active.double())
    above = np.triu_indices(units, 1)
    found = fcluster(linkage(distance.numpy()[above], "average"), 1.0 - shared, "distance")
    _, first, place = np.unique(found, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[place].astype(np.int64)


def _correlations(active: Tensor) -> Tensor:
    """Correlation of each pair of columns, 0 where one of them is constant."""
    deviations = active - active.mean(dim=0)
    lengths = deviations.norm(dim=0, keepdim=True)
    unit = torch.where(lengths > 0, deviations / lengths, 0.0)
    return (unit.T @ unit).clamp(-1.0, 1.0)


def _mean_row(tensor: Tensor) -> Tensor:
    """The mean sample; of whole numbers, which have none, the first."""
    return tensor.mean(dim=0, keepdim=True) if tensor.is_floating_point() else tensor[:1]
