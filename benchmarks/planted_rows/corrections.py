"""Corrections: each a function of a scene and latents that gives images, and says which samples it touched or refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from planted_rows.scene import SEED, Scene
from qualitygate.corrections.ablation import sequential_ablation
from qualitygate.gating.stage import GateStage
from qualitygate.latents import Latents


@dataclass(frozen=True)
class Corrected:
    """What became of N samples.

    Attributes:
        images: float32 (N, channels, height, width), NaN for a rejected sample.
        verdict: `Verdict` values (N,); None for a correction that judges nothing and touches every sample.
    """

    images: Tensor
    verdict: np.ndarray | None = None


Correction = Callable[[Scene, Latents], Corrected]


def ablation(rate: float, scene: Scene, latents: Latents) -> Corrected:
    """Sequential ablation of every sample."""
    return Corrected(sequential_ablation(scene.generator, latents, scene.profile.rates, rate, scene.layers))


def gate(scene: Scene, latents: Latents) -> Corrected:
    """Least correction, as the gate does it with the family's default policy: only what it finds is touched."""
    stage = GateStage(scene.generator, scene.profile, scene.policy, seed=SEED)
    block = stage.block(latents)
    images = torch.full((len(latents), *scene.generator.image_shape), torch.nan)
    for row, image in block.images.items():
        images[row] = torch.from_numpy(image)
    return Corrected(images, block.decisions.verdict)


CORRECTIONS: dict[str, Correction] = {
    "gate, least correction": gate,
    **{f"sequential ablation, R = {rate}": partial(ablation, rate) for rate in (0.02, 0.05, 0.1, 0.2, 0.3)},
}
