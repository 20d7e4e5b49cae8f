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
from qualitygate.generators.base import Generator, LayerLike
from qualitygate.generators.passes import Progress, on_host, silent
from qualitygate.latents import Latents

TOP = 20
"""Top images of a unit in the paper, of 20,000 samples."""
SHARED = 0.5
"""Correlation from which on units are said to share what they draw."""


@dataclass(frozen=True)
class TopSamples:
    """The most active samples of each unit of a layer: rows of the latents, int64 (units, count), the most active first, and the unit's
    highest activation in each, over positions, float32 (units, count)."""

    rows: Tensor
    peak: Tensor


def top_samples(
    generator: Generator, latents: Latents | Tensor, layers: Iterable[LayerLike], count: int, progress: Progress = silent
) -> dict[int, TopSamples]:
    """The ``count`` samples, of latents or a bare z (N, D), with the highest activation of each unit, by layer. The activation of a unit
    in a sample is its maximum over positions (the paper does not say). Raises `InputError` if there are fewer samples than that."""
    if not 1 <= count <= len(latents):
        raise InputError("Not so many samples to choose from", f"{count} of {len(latents)}", "at most as many as there are")
    indices = generator.layer_indices(layers)
    best: dict[int, tuple[Tensor, Tensor]] = {}
    for rows, layer, activation in generator.activations(latents, indices, progress=progress):
        peaks = activation.amax(dim=(2, 3)).float().T
        numbers = torch.arange(rows.start, rows.stop, device=generator.device).expand(len(peaks), -1)
        if layer in best:
            peaks, numbers = torch.cat((best[layer][0], peaks), dim=1), torch.cat((best[layer][1], numbers), dim=1)
        order = peaks.argsort(dim=1, descending=True, stable=True)[:, :count]  # of equally active ones the earlier
        best[layer] = peaks.gather(1, order), numbers.gather(1, order)
    return {layer: TopSamples(on_host(numbers), on_host(peaks)) for layer, (peaks, numbers) in best.items()}


def representative(generator: Generator, latents: Latents | Tensor, layer: int) -> Tensor:
    """Image (channels, height, width), float32 in [-1, 1] on the CPU, made from the mean featuremap of some samples at a layer: all of the
    layer's units as they are on average. Blurred, if the samples have little in common. Whatever else the rest of the chain needs (styles,
    the image so far) is averaged in the same way (the paper does not say). Raises `InputError` without samples."""
    if not len(latents):
        raise InputError("There is nothing to take the mean of", "no samples", "at least one sample")

    def mean(of: Tensor) -> Tensor:
        return of.mean(dim=0, keepdim=True) if of.is_floating_point() else of[:1]  # whole numbers have no mean

    with generator.scored_pass():
        state = generator.run(generator.start(latents), layer)
        state = replace(state, activation=mean(state.activation), carry=tree_map_only(Tensor, mean, state.carry))
        return on_host(generator.resume(state)[0])


def unit_heat(generator: Generator, latents: Latents | Tensor, layer: int, unit: int) -> Tensor:
    """Where in the images a unit is active: float32 (N, height, width), at least 0, bilinear to the size of the image."""
    parts = []
    for _, _, activation in generator.activations(latents, [layer]):
        own = activation[:, unit : unit + 1].clamp(min=0.0).float()
        parts.append(on_host(F.interpolate(own, size=generator.image_shape[1:], mode="bilinear", align_corners=False)[:, 0]))
    return torch.cat(parts)


def peaks(generator: Generator, latents: Latents | Tensor, units: Mapping[int, Sequence[int]]) -> Tensor:
    """Highest activation over positions of chosen units in each sample, float32 (N, units), in order of layer and as given within it."""
    parts: dict[int, list[Tensor]] = {layer: [] for layer in sorted(units)}
    chosen = {layer: torch.tensor(list(of_layer), dtype=torch.int64, device=generator.device) for layer, of_layer in units.items()}
    for _, layer, activation in generator.activations(latents, units):
        parts[layer].append(on_host(activation[:, chosen[layer]].amax(dim=(2, 3)).float()))
    return torch.cat([torch.cat(part) for part in parts.values()], dim=1)


def clusters(active: Tensor, shared: float = SHARED) -> np.ndarray:
    """Clusters of units that fire together: hierarchical clustering, average linkage, of one minus the correlation of their activations.

    ``active``, (N, units), is how active each unit is in each sample, for example `peaks` over artifact samples; the units of a cluster
    have a correlation of ``shared`` on average. Given back is the number of each unit's cluster, int64 (units,), from 0 in order of the
    first unit of each. A unit that is the same in all samples has a cluster of its own. Raises `InputError` for fewer than two samples, no
    units, or a correlation out of range.
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    samples, units = active.shape
    if samples < 2 or not units or not -1.0 < shared < 1.0:
        what = f"{samples} samples of {units} units, correlation {shared}"
        raise InputError("Units cannot be clustered so", what, "at least two samples and one unit, a correlation in (-1, 1)")
    if units == 1:
        return np.zeros(1, dtype=np.int64)
    correlation = torch.corrcoef(active.double().T).nan_to_num(0.0).numpy()  # with a constant unit there is none
    above = np.triu_indices(units, 1)
    found = fcluster(linkage(1.0 - correlation[above], "average"), 1.0 - shared, "distance")
    _, first, place = np.unique(found, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[place].astype(np.int64)
