"""Defective score (Tousi et al., CVPR 2021, section 3.1): how well the region where a unit fires strongly covers what is wrong.

For each artifact image, the region ``A_u`` where unit ``u`` exceeds its threshold ``T_u``, enlarged to the size of the image, is held
against the mask ``L_a`` of what is wrong there (Grad-CAM of a classifier, or any other): intersection over union. The score of a unit
is the mean over the images; for StyleGAN2 and U-Net GAN the paper takes each sample's own.

The threshold is a quantile of each unit, found in one pass and bounded memory. The bins are read off the numbers themselves: the leading
bits of a float32 are its sign, its exponent and the beginning of its mantissa, and grow with its value. With 7 bits of mantissa a bin is
at most 1/128 of its value wide. Counts of two halves of the samples simply add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.generators.base import Generator, LayerLike
from qualitygate.generators.passes import Progress, on_host, positions, silent
from qualitygate.latents import Latents
from qualitygate.units.score import UnitScores
from qualitygate.units.table import UnitInputs, UnitScore

SHARE = 0.005
"""The paper's τ: share of a unit's activations that are beyond its threshold."""

_DROPPED = 16  # bits of a float32 below its first 7 of mantissa
_LEAST, _MOST = 2.0**-16, 2.0**16  # nearer to 0 is 0; beyond is one last bin
_FIRST_STEP = int(np.float32(_LEAST).view(np.int32)) >> _DROPPED
_ZERO = 32 * 128 + 1  # bin of what is nearly 0, between those of either sign: 32 factors of 2 in 128 parts each, and the last
_AT_ONCE = 2**24  # activations whose bins are held at once
_MEMORY = 2**27  # bytes that enlarged regions may take at once


class UnitQuantiles:
    """How the activations of each unit of a layer are distributed: 64 kB of counts a unit, however many samples."""

    def __init__(self, units: int, device: torch.device | str) -> None:
        self._counts = torch.zeros(units, 2 * _ZERO + 1, dtype=torch.int64, device=device)
        self._one = torch.ones((), dtype=torch.int64, device=device)
        self._most = torch.full((), _MOST, device=device)
        self._finite = torch.ones((), dtype=torch.bool, device=device)

    def add(self, activation: Tensor) -> None:
        """Count the activations (N, units, height, width) of some samples."""
        self._finite &= torch.isfinite(activation.sum(dtype=torch.float32))
        units = len(self._counts)
        first = torch.arange(units, device=activation.device)[:, None, None] * self._counts.shape[1]
        for part in activation.float().split(max(1, _AT_ONCE // activation[0].numel())):
            size = torch.fmin(part.abs(), self._most)  # NaN too has a bin, until it is refused
            steps = (size.view(torch.int32) >> _DROPPED).long() - _FIRST_STEP
            magnitude = torch.where(size < _LEAST, 0, steps + 1)
            bins = first + _ZERO + torch.where(part < 0, -magnitude, magnitude)
            self._counts.view(-1).scatter_add_(0, bins.flatten(), self._one.expand(bins.numel()))

    def above(self, share: float) -> Tensor:
        """Threshold of each unit, float32 (units,) on the CPU: just below the bin of the least value that at most ``share`` of its
        activations exceed.

        So it is below that value, by less than 1/128 of it (for values of a size from 2⁻¹⁶ to 2¹⁶): a unit that is clamped, or has one
        value again and again, exceeds it where it has that value. A unit that fires more rarely has the threshold 0. Raises `InputError` if
        an activation was not finite.
        """
        if not on_host(self._finite):
            found = "NaN or infinity inside the generator"
            raise InputError("The generator's activations are not finite", found, "finite activations", "check the weights")
        allowed = (self._counts.sum(dim=1, keepdim=True).double() * share).long()
        beyond = self._counts.flip(1).cumsum(dim=1).flip(1) - self._counts  # activations in higher bins
        magnitude = on_host((beyond <= allowed).to(torch.int8).argmax(dim=1)) - _ZERO
        # a positive bin begins at its own step, a negative one reaches down to where the next larger size begins
        steps = torch.where(magnitude > 0, magnitude - 1, -magnitude) + _FIRST_STEP
        edge = (steps.int() << _DROPPED).view(torch.float32)
        below = torch.nextafter(edge, torch.zeros(()))
        return torch.where(magnitude == 0, 0.0, torch.where(magnitude > 0, below, -edge))


def unit_thresholds(
    generator: Generator, latents: Latents | Tensor, layers: Iterable[LayerLike], share: float = SHARE, progress: Progress = silent
) -> dict[int, Tensor]:
    """Threshold of every unit by layer, float32 (units,): what about ``share`` of its activations, over all samples and positions, exceed
    (T_u of the defective score); see `UnitQuantiles.above` for how exactly.
    The latents are samples as they come; among artifacts only, what fires for all of them would count as ordinary. Raises `InputError` for
    a share out of range, no samples, or activations that are not finite."""
    if not 0.0 < share < 1.0 or not len(latents):
        found, needed = f"share {share}, {len(latents)} samples", "a share in (0, 1) and at least one sample"
        raise InputError("Thresholds cannot be measured so", found, needed)
    indices = generator.layer_indices(layers)
    quantiles = {layer: UnitQuantiles(generator.layers[layer].units, generator.device) for layer in indices}
    for _, layer, activation in generator.activations(latents, indices, progress=progress):
        quantiles[layer].add(activation)
    return {layer: of_layer.above(share) for layer, of_layer in quantiles.items()}


@dataclass(frozen=True)
class UnitOverlaps:
    """How well the regions of units cover what is wrong in some samples: by layer, float32 (N, units), the IoU of each unit's region with
    the sample's own mask, in [0, 1], which is the sample's own score; with the threshold of the masks, None where they are continuous."""

    overlap: Mapping[int, Tensor]
    mask_threshold: float | None

    @property
    def mean(self) -> UnitScores:
        """The paper's score: the mean over the samples."""
        scores = {layer: of_samples.double().mean(dim=0) for layer, of_samples in self.overlap.items()}
        samples = len(next(iter(self.overlap.values())))
        return UnitScores.of_layers(scores, names.UNIT_DEFECTIVE, {"samples": samples, "mask_threshold": self.mask_threshold})


def defective_scores(
    generator: Generator,
    latents: Latents | Tensor,
    masks: Tensor,
    thresholds: Mapping[int, Tensor],
    *,
    mask_threshold: float | None = None,
    progress: Progress = silent,
) -> UnitOverlaps:
    """Defective scores of N artifact samples at every layer that thresholds are known of.

    The paper does not say how a continuous mask is intersected; ours is the soft IoU, the sum of the minima over that of the maxima. Where
    both region and mask are empty it is 0: such a unit explains nothing. Raises `InputError` without samples, or for masks that do not fit.

    Args:
        masks: what is wrong in each sample, float32 (N, height, width) in [0, 1], at the size of the image.
        thresholds: of every unit, float32 (units,) by layer, see `unit_thresholds`.
        mask_threshold: masks become 1 from here on and 0 below; by default they stay continuous.
    """
    wanted = (len(latents), *generator.image_shape[1:])
    if not len(latents) or tuple(masks.shape) != wanted or not bool(((masks >= 0) & (masks <= 1)).all()):
        needed = f"{wanted} with values in [0, 1], of at least one sample"
        raise InputError("The masks do not fit the samples", f"{tuple(masks.shape)}", needed)
    if mask_threshold is not None:
        masks = (masks >= mask_threshold).float()
    rows_at_once = max(1, _MEMORY // (4 * masks[0].numel()))
    parts: dict[int, list[Tensor]] = {layer: [] for layer in thresholds}
    limits = {layer: values.to(generator.device)[:, None, None] for layer, values in thresholds.items()}
    at, there = slice(0), masks[:0]
    for rows, layer, activation in generator.activations(latents, thresholds, progress=progress):
        if rows != at:  # one layer after the other has the same
            at, there = rows, masks[rows].to(generator.device)
        parts[layer].append(on_host(soft_iou(activation > limits[layer], there, rows_at_once)))
    return UnitOverlaps({layer: torch.cat(part) for layer, part in parts.items()}, mask_threshold)


def soft_iou(active: Tensor, masks: Tensor, rows_at_once: int) -> Tensor:
    """Soft intersection over union of each unit's region with its sample's mask, float32 (N, units).

    ``active`` says where the units fire strongly, bool (N, units, height, width); it is enlarged bilinearly to the size of the masks,
    float32 (N, height, width) in [0, 1], some regions at once. A region that is empty is not enlarged at all, and nearly all are.
    """
    sample, unit = positions(active.flatten(2).any(dim=2))
    overlap = torch.zeros(active.shape[:2], device=active.device)
    size = masks.flatten(1).sum(dim=1)
    for of_sample, of_unit in zip(sample.split(rows_at_once), unit.split(rows_at_once), strict=True):
        small = active[of_sample, of_unit].float()[:, None]
        region = F.interpolate(small, size=masks.shape[1:], mode="bilinear", align_corners=False)[:, 0]
        common = torch.minimum(region, masks[of_sample]).flatten(1).sum(dim=1)
        # the sum of the maxima is what both have less what they share
        union = region.flatten(1).sum(dim=1) + size[of_sample] - common
        overlap[of_sample, of_unit] = common / union
    return overlap


def _of_artifacts(inputs: UnitInputs) -> UnitScores:
    """Over the artifacts, with masks from a classifier's Grad-CAM."""
    masks = inputs.masks  # first: where the classifier is no better than chance, nothing else need be measured
    with inputs.reporter.phase("unit thresholds", len(inputs.samples)) as progress:
        thresholds = unit_thresholds(inputs.generator, inputs.samples, inputs.layers, progress=progress)
    with inputs.reporter.phase("defective score", len(masks)) as progress:
        return defective_scores(inputs.generator, inputs.artifacts, masks, thresholds, progress=progress).mean


DEFECTIVE = UnitScore("defective", _of_artifacts, needs=("backbone",))
