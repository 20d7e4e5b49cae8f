"""Local region correction (Tousi et al., CVPR 2021, section 4.2): only the masked region of an image changes.

The mask takes the place of the unit scores: every unit of a layer is multiplied by ``1 − mask``, with the mask brought to the layer's size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from qualitygate.corrections.method import Learned, Method, SampleEdits, corrected_images
from qualitygate.errors import InputError
from qualitygate.generators.base import Edits, Generator, LayerLike
from qualitygate.generators.passes import on_host
from qualitygate.latents import Latents
from qualitygate.policy.corrections import LocalRegion
from qualitygate.scores.local_activation import in_parts
from qualitygate.scores.low_rate import ActivationRates, low_rate_heatmap


def mask_at(masks: Tensor, height: int, width: int) -> Tensor:
    """Masks (N, H, W) at the size of a layer, (N, height, width): means over the pixels of a position; bilinear to a larger layer."""
    if height > masks.shape[1] or width > masks.shape[2]:
        return F.interpolate(masks[:, None], size=(height, width), mode="bilinear", align_corners=False)[:, 0]
    return F.adaptive_avg_pool2d(masks[:, None], (height, width))[:, 0]


def fade(activation: Tensor, masks: Tensor, weight: float = 1.0) -> Tensor:
    """A copy of an activation (N, units, height, width) multiplied by ``1 − weight · mask``, of masks (N, H, W) in [0, 1] at any size."""
    return activation * (1.0 - weight * mask_at(masks.to(activation), *activation.shape[2:]))[:, None]


def own_low_rate_mask(generator: Generator, latents: Latents, rates: ActivationRates, rate: float, layers: Sequence[int]) -> Tensor:
    """Where low-rate neurons fire, over the hottest place of the sample: float32 (N, height, width) in [0, 1], at the size of the image."""
    return _over_hottest(low_rate_heatmap(generator, latents, rates, rate, layers))


def own_local_activation_mask(generator: Generator, latents: Latents, layers: Sequence[int]) -> Tensor:
    """Where the neurons' parts of the CLA score are large, over the largest of the sample: float32 (N, height, width) in [0, 1]. The
    sum over units, bilinear to the image; each layer brought to mean 1, since parts of a later layer are smaller; mean over layers."""
    parts = []
    for local in in_parts(generator, latents, layers):
        maps = []
        for layer in layers:
            heat = local.neuron_score(layer).sum(dim=1, keepdim=True)
            heat = F.interpolate(heat, size=generator.image_shape[1:], mode="bilinear", align_corners=False)[:, 0]
            maps.append(heat / heat.mean(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(heat.dtype).tiny))
        parts.append(torch.stack(maps).mean(dim=0))
    return _over_hottest(torch.cat(parts))


def _over_hottest(heat: Tensor) -> Tensor:
    """Heat of each sample over its maximum; a sample that has none, or is not finite, is empty."""
    heat = torch.where(torch.isfinite(heat).all(dim=(1, 2), keepdim=True), heat, 0.0)
    hottest = heat.amax(dim=(1, 2), keepdim=True)
    return heat / torch.where(hottest > 0, hottest, 1.0)


def own_region(look: Callable[[Latents], Tensor], layers: Iterable[int]) -> Method:
    """Local region correction by each sample's own mask, (N, H, W) in [0, 1] from N samples; the strengths are weights of the mask."""
    layers = tuple(layers)

    def of(latents: Latents) -> SampleEdits:
        masks = look(latents)

        def edits(weight: float, rows: np.ndarray) -> Edits:
            of_rows = masks[torch.from_numpy(rows).to(masks.device)]
            return {layer: partial(fade, masks=of_rows, weight=weight) for layer in layers}

        return SampleEdits(edits, on_host(masks.amax(dim=(1, 2)) > 0).numpy())

    return of


def region_correction(correction: LocalRegion, generator: Generator, profile: Learned, layers: tuple[int, ...]) -> Method:
    """Local region correction by a policy's settings, see `Correction.ready`."""
    if correction.mask == "cla":
        return own_region(lambda latents: own_local_activation_mask(generator, latents, layers), layers)
    return own_region(lambda latents: own_low_rate_mask(generator, latents, profile.rates, correction.rate, layers), layers)


def local_region_correction(
    generator: Generator, latents: Latents | Tensor, masks: Tensor, layers: Iterable[LayerLike] | None = None, *, weight: float = 1.0
) -> Tensor:
    """Images (N, channels, height, width), float32 in [-1, 1], of N samples, latents or a bare z (N, D), corrected where each sample's own
    mask says: ``h ← (1 − mask)·h`` (Tousi et al., CVPR 2021, section 4.2).

    Args:
        masks: (N, H, W) in [0, 1], at any size; 1 is what has to go.
        layers: layers to edit; by default all up to the family's stopping layer.
        weight: of the mask, in (0, 1]; the paper's is 1.

    Raises:
        InputError: the masks do not fit, or are all empty, so that nothing would change.
        LayerError: no such layer.
    """
    if len(masks) != len(latents):
        raise InputError("Every sample needs a mask", f"{len(masks)} masks", f"{len(latents)}, one for each sample")
    if masks.ndim != 3 or not bool(((masks >= 0) & (masks <= 1)).all()):
        raise InputError(
            "These are no masks",
            f"{tuple(masks.shape)}, values from {float(masks.min()):g} to {float(masks.max()):g}",
            "(N, height, width) with values in [0, 1]",
        )
    if not 0.0 < weight <= 1.0:
        raise InputError("The weight of a mask is out of range", str(weight), "a number in (0, 1]")
    if not bool((masks > 0).any()):
        raise InputError(
            "A local correction would change nothing", "every mask is empty", "at least one masked pixel", "choose another source of masks"
        )
    indices = generator.layer_indices(range(generator.presets.stop + 1) if layers is None else layers)
    return corrected_images(generator, latents, own_region(lambda _: masks, indices), weight)
