"""Defective score (Tousi et al., CVPR 2021, section 3.1): how well the region where a unit fires strongly covers what is wrong.

For each artifact image, the region ``A_u`` where unit ``u`` exceeds its threshold, enlarged to the size of the image, is held against
the mask ``L_a`` of what is wrong there (Grad-CAM of a classifier, or any other): intersection over union. The score of a unit is
the mean over the images; for StyleGAN2 and U-Net GAN the paper takes each sample's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.generators.base import Generator, read_layers
from qualitygate.generators.passes import Progress, micro_batches, scored_pass, silent
from qualitygate.latents import Latents
from qualitygate.units.score import UnitScores

_MEMORY = 2**27  # bytes that enlarged regions may take at once


@dataclass(frozen=True)
class DefectiveScores:
    """Defective scores of some samples.

    Attributes:
        overlap: by layer, float32 (N, units): IoU of each unit's region with the sample's own mask, in [0, 1].
        mask_threshold: the threshold of the masks; None where they are continuous.
    """

    overlap: Mapping[int, Tensor]
    mask_threshold: float | None

    @property
    def mean(self) -> UnitScores:
        """The paper's score: the mean over the samples."""
        scores = {layer: of_samples.double().mean(dim=0) for layer, of_samples in self.overlap.items()}
        samples = len(next(iter(self.overlap.values())))
        return UnitScores.of_layers(scores, names.UNIT_DEFECTIVE, {"samples": samples, "mask_threshold": self.mask_threshold})

    def of_sample(self, row: int) -> UnitScores:
        """One sample's own score."""
        scores = {layer: of_samples[row] for layer, of_samples in self.overlap.items()}
        return UnitScores.of_layers(scores, names.UNIT_DEFECTIVE, {"row": row, "mask_threshold": self.mask_threshold})


def defective_scores(
    generator: Generator,
    latents: Latents,
    masks: Tensor,
    thresholds: Mapping[int, Tensor],
    *,
    mask_threshold: float | None = None,
    memory: int = _MEMORY,
    progress: Progress = silent,
) -> DefectiveScores:
    """Defective scores of N artifact samples at every layer that thresholds are known of.

    The paper does not say how a continuous mask is intersected; ours is the soft IoU, the sum of the minima over that of the maxima. Where
    both region and mask are empty it is 0: such a unit explains nothing.

    Args:
        generator: the generator.
        latents: the N samples.
        masks: what is wrong in each, float32 (N, height, width) in [0, 1], at the size of the image.
        thresholds: of every unit, float32 (units,) by layer, see `unit_thresholds`.
        mask_threshold: masks become 1 from here on and 0 below; by default they stay continuous.
        memory: bytes that the enlarged regions may take at once.
        progress: called after each micro-batch.

    Raises:
        InputError: no samples, or masks that do not fit them.
    """
    wanted = (len(latents), *generator.image_shape[1:])
    if not len(latents) or tuple(masks.shape) != wanted or not bool(((masks >= 0) & (masks <= 1)).all()):
        raise InputError(
            "The masks do not fit the samples", f"{tuple(masks.shape)}", f"{wanted} with values in [0, 1], of at least one sample"
        )
    if mask_threshold is not None:
        masks = (masks >= mask_threshold).float()
    rows_at_once = max(1, memory // (4 * masks[0].numel()))
    parts: dict[int, list[Tensor]] = {layer: [] for layer in thresholds}
    limits = {layer: values.to(generator.device)[:, None, None] for layer, values in thresholds.items()}
    with scored_pass():
        for rows, batch in micro_batches(latents):
            here = masks[rows].to(generator.device)
            for layer, activation in read_layers(generator, batch, tuple(thresholds)):
                active = activation[: len(here)] > limits[layer]
                parts[layer].append(soft_iou(active, here, rows_at_once).cpu())
            progress(len(here))
    return DefectiveScores({layer: torch.cat(part) for layer, part in parts.items()}, mask_threshold)


def soft_iou(active: Tensor, masks: Tensor, rows_at_once: int) -> Tensor:
    """Soft intersection over union of each unit's region with its sample's mask, float32 (N, units).

    Args:
        active: where the units fire strongly, bool (N, units, height, width); enlarged bilinearly to the size of the masks.
        masks: float32 (N, height, width) in [0, 1], at least as large.
        rows_at_once: regions enlarged at once. A region that is empty is not enlarged at all, and nearly all are.
    """
    sample, unit = active.flatten(2).any(dim=2).nonzero(as_tuple=True)
    overlap = torch.zeros(active.shape[:2], device=active.device)
    size = masks.flatten(1).sum(dim=1)
    for of_sample, of_unit in zip(sample.split(rows_at_once), unit.split(rows_at_once), strict=True):
        region = F.interpolate(active[of_sample, of_unit].float()[:, None], size=masks.shape[1:], mode="bilinear", align_corners=False)[
            :, 0
        ]
        common = torch.minimum(region, masks[of_sample]).flatten(1).sum(dim=1)
        # the sum of the maxima is what both have less what they share
        union = region.flatten(1).sum(dim=1) + size[of_sample] - common
        overlap[of_sample, of_unit] = common / union
    return overlap
