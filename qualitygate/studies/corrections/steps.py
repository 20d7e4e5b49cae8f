"""Sequential ablation step by step: where low-rate neurons fire in each layer before and after each step (IJCAI 2022, figure 4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from qualitygate.corrections.ablation import low_rate_ablation
from qualitygate.gating.exhibit import made_again
from qualitygate.generators.base import Generator
from qualitygate.latents import Latents
from qualitygate.reports.contact_sheet import comparison_sheet
from qualitygate.reports.pictures import blend_heat
from qualitygate.scores.low_rate import ActivationRates, low_rate_heatmap

_SIDE = 128


def steps_sheet(generator: Generator, latents: Latents, rates: ActivationRates, rate: float, layers: Sequence[int]) -> Image.Image:
    """The samples side by side; below each other the untouched image and its heat at every layer, then, after the ablation of the first
    layer, of the first two, …, the image and the heat at every layer that follows. Heat is scaled to the hottest place of its layer.

    Args:
        generator: the generator.
        latents: the samples.
        rates: activation rates of the untouched generator.
        rate: R.
        layers: layers to ablate, in order.

    Raises:
        InputError: no layer has a low-rate neuron.
    """
    rows: dict[str, list[np.ndarray]] = {}
    hottest: dict[int, float] = {}
    for done in range(len(layers) + 1):
        edits = low_rate_ablation(rates, layers[:done], rate, generator.device) if done else None
        images = made_again(generator, latents, edits)
        after = f"after layers {', '.join(map(str, layers[:done]))}" if done else "generated"
        rows[after] = images
        for layer in layers[done:]:
            heat = low_rate_heatmap(generator, latents, rates, rate, [layer], edits).numpy()
            scale = hottest.setdefault(layer, max(float(heat.max()), 1e-6))
            rows[f"{after}: heat of layer {layer}"] = [_over(*pair, scale) for pair in zip(images, heat, strict=True)]
    return comparison_sheet(
        list(map(str, latents.ids)),
        rows,
        f"Sequential ablation of low-rate neurons at R = {rate:g}, step by step",
        "Heat is the share of units whose low-rate neuron fires there, scaled to the hottest place of its layer before any step.",
        columns=len(latents),
        scale_to=_SIDE,
    )


def _over(image: np.ndarray, heat: np.ndarray, hottest: float) -> np.ndarray:
    whole = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).convert("RGB").resize((_SIDE, _SIDE))
    return np.asarray(blend_heat(whole, heat, hottest))
