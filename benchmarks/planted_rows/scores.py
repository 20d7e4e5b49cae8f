"""Sample scores, and the rivals that a user would pick instead: each a function of a scene, higher = worse."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from planted_rows.scene import ESTIMATED_AXES, RATES, Scene
from qualitygate import names
from qualitygate.gating.scoring import add_totals
from qualitygate.generators.passes import IMAGE_BATCH, micro_batches, scored_pass
from qualitygate.policy.decide import Risk, default_weights
from qualitygate.scores.screening import THIN

Score = Callable[[Scene], np.ndarray | None]
"""float64 (N,) of the scene's samples, NaN where it was not computed; None where the checkpoint has no such score."""


def counted(name: str, scene: Scene) -> np.ndarray:
    return scene.columns[name]


def cla(layer: int, scene: Scene) -> np.ndarray | None:
    if layer not in scene.exact.layers:
        return None
    scores = np.full(len(scene.samples), np.nan)
    scores[scene.exact_rows] = scene.exact.score[layer].numpy()
    return scores


def estimated(name: str, scene: Scene) -> np.ndarray | None:
    return scene.estimated.get(name)


def risk(scene: Scene, *, curvature: bool) -> np.ndarray:
    """The joined risk by its default rule: the counts of each layer and never-seen neurons; with the estimates of CLA, or without."""
    weights = default_weights(scene.policy.headline_rate, scene.layers, ())
    reference, columns = dict(scene.profile.scores), dict(scene.columns)
    add_totals(reference, RATES, scene.layers)
    if curvature:
        weights.update(dict.fromkeys(scene.estimated, 1.0))
        reference.update(scene.estimated_reference)
        columns.update(scene.estimated)
    return Risk(reference, weights)(columns)


def latent_norm(scene: Scene) -> np.ndarray:
    return scene.samples.z.double().norm(dim=1).numpy()


def truncation(scene: Scene) -> np.ndarray:
    """The ψ below which truncation (redrawn components) would have drawn this latent again."""
    return scene.samples.z.double().abs().amax(dim=1).numpy()


def mahalanobis(layer: int, scene: Scene) -> np.ndarray:
    """Distance of a layer's pooled activations from the calibration samples'. A thousandth of the mean variance keeps it solvable."""
    fitted, seen = scene.pooled_reference[layer], scene.pooled_samples[layer]
    covariance = torch.cov(fitted.T)
    ridge = 1e-3 * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64)
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance + ridge), (seen - fitted.mean(0)).T, upper=False)
    return whitened.norm(dim=0).numpy()


def discriminator(scene: Scene) -> np.ndarray | None:
    judge = scene.discriminator
    if judge is None:
        return None
    with scored_pass():
        parts = [
            -judge(scene.generator(batch), batch.labels)[: rows.stop - rows.start]
            for rows, batch in micro_batches(scene.samples, IMAGE_BATCH)
        ]
    return torch.cat(parts).double().cpu().numpy()


def _counted_names(layers: tuple[int, ...]) -> list[str]:
    places = [*layers, None]
    return [names.low_rate(rate, place) for place in places for rate in RATES] + [names.never_seen(place) for place in places]


def _estimated_names(layers: tuple[int, ...]) -> list[str]:
    return [names.cla_estimate(ESTIMATED_AXES, len(THIN), layer) for layer in range(max(layers) + 1)]


def scores(layers: tuple[int, ...]) -> dict[str, Score]:
    """Every score by name, for a family whose low-rate layers are these."""
    return {
        **{name: partial(counted, name) for name in _counted_names(layers)},
        **{names.cla(layer): partial(cla, layer) for layer in range(max(layers) + 1)},
        **{name: partial(estimated, name) for name in _estimated_names(layers)},
        "risk, low-rate parts": partial(risk, curvature=False),
        "risk, with screened CLA": partial(risk, curvature=True),
        "rival: latent norm": latent_norm,
        "rival: truncation": truncation,
        **{f"rival: Mahalanobis/layer_{layer}": partial(mahalanobis, layer) for layer in layers},
        "rival: discriminator": discriminator,
    }
