"""Local region correction (Tousi et al., CVPR 2021, section 4.2): only the masked region of an image changes.

The mask takes the place of the unit scores: every unit of a layer is multiplied by ``1 − mask``, with the mask brought to the layer's size.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch.nn.functional as F
from torch import Tensor

from qualitygate.errors import InputError
from qualitygate.generators.base import Edit


def mask_at(masks: Tensor, height: int, width: int) -> Tensor:
    """Masks (N, H, W) at the size of a layer, (N, height, width): means over the pixels of a position; bilinear to a larger layer."""
    larger = height > masks.shape[1] or width > masks.shape[2]
    size, planes = (height, width), masks[:, None]
    if larger:
        return F.interpolate(planes, size=size, mode="bilinear", align_corners=False)[:, 0]
    return F.adaptive_avg_pool2d(planes, size)[:, 0]


def fade(activation: Tensor, masks: Tensor, weight: float = 1.0) -> Tensor:
    """A copy multiplied by ``1 − weight · mask``.

    Args:
        activation: (N, units, height, width).
        masks: (N, H, W) in [0, 1], one for each sample.
        weight: of the mask, in (0, 1].
    """
    return activation * (1.0 - weight * mask_at(masks.to(activation), *activation.shape[2:]))[:, None]


def local_region(masks: Tensor, layers: Iterable[int], weight: float = 1.0) -> dict[int, Edit]:
    """Edits that fade the masked region of N samples; they belong to exactly these samples, in this order.

    Args:
        masks: (N, H, W) in [0, 1], at any size; 1 is what has to go.
        layers: layers to edit.
        weight: in (0, 1]; the paper's is 1.

    Raises:
        InputError: values out of range, or every mask is empty, so that the correction could not change anything.
    """
    check_masks(masks)
    if not 0.0 < weight <= 1.0:
        raise InputError("The weight of a mask is out of range", str(weight), "a number in (0, 1]")
    if not bool((masks > 0).any()):
        raise InputError(
            "A local correction would change nothing", "every mask is empty", "at least one masked pixel", "choose another source of masks"
        )
    return {layer: partial(fade, masks=masks, weight=weight) for layer in layers}


def check_masks(masks: Tensor) -> None:
    """Raises `InputError` unless these are masks (N, H, W) in [0, 1]."""
    if masks.ndim != 3 or not bool(((masks >= 0) & (masks <= 1)).all()):
        raise InputError(
            "These are no masks",
            f"{tuple(masks.shape)}, values from {float(masks.min()):g} to {float(masks.max()):g}",
            "(N, height, width) with values in [0, 1]",
        )
