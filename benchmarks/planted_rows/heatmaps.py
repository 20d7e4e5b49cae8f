"""Heatmaps: each a function of a scene that says where in the image the samples it shows are wrong."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from planted_rows.scene import Scene
from qualitygate.scores.low_rate import low_rate_heatmap

Heatmap = Callable[[Scene], Tensor]
"""float32 (N, height, width) at the size of the image, of defective samples."""


def low_rate(rate: float, scene: Scene) -> Tensor:
    return low_rate_heatmap(scene.generator, scene.samples[scene.fires], scene.profile.rates, rate, scene.layers)


def cla(scene: Scene) -> Tensor:
    """Sum of the neurons' parts of the CLA score over units, bilinear, each layer brought to mean 1; mean over layers."""
    fires = torch.from_numpy(scene.fires[scene.exact_rows])
    maps = []
    for layer in scene.exact.layers:
        heat = scene.exact.neuron_score(layer)[fires].sum(dim=1, keepdim=True)
        heat = F.interpolate(heat, size=scene.generator.image_shape[1:], mode="bilinear", align_corners=False)[:, 0]
        maps.append(heat / heat.mean(dim=(1, 2), keepdim=True).clamp(min=1e-12))
    return torch.stack(maps).mean(dim=0)


HEATMAPS: dict[str, Heatmap] = {**{f"low-rate neurons, R = {rate}": partial(low_rate, rate) for rate in (0.02, 0.1, 0.3)}, "CLA": cla}
