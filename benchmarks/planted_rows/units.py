"""Unit scores: each a function of a scene that gives every unit of some layers a number, higher = more suspect."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from planted_rows.labelled import LABELS, Labelled
from planted_rows.scene import Scene
from qualitygate.errors import InputError
from qualitygate.features.extractor import extract
from qualitygate.units import from_activations
from qualitygate.units.concepts import top_samples
from qualitygate.units.contribution import contributions
from qualitygate.units.defective_score import defective_scores
from qualitygate.units.score import UnitScores
from qualitygate.units.unit_frechet import unit_frechet

UnitScore = Callable[[Scene], dict[int, Tensor] | None]
"""float64 (units,) by layer; None where the checkpoint has no such score."""

_IMAGES = 50  # of a unit, whose FID is measured: as many times more samples they are chosen from as in GAN Dissection


def low_rate_activity(rate: float, scene: Scene) -> dict[int, Tensor]:
    """Low-rate activity over all latents, from the rates alone."""
    found = from_activations.low_rate_activity(scene.profile.rates, rate)
    return {layer: found.tensor(layer) for layer in scene.layers}


def low_rate_activity_of_artifacts(labels: str, rate: float, scene: Scene) -> dict[int, Tensor]:
    """Low-rate activity over samples that are said to be defective."""
    latents = LABELS[labels](scene).artifacts
    rates = scene.profile.rates
    return _by_layer(from_activations.low_rate_activity_of(scene.generator, latents, rates, rate, scene.layers))


def cla(scene: Scene) -> dict[int, Tensor]:
    """CLA unit score over all latents: the exact samples, each group weighted by its share of all latents."""
    fires = scene.fires[scene.exact_rows]
    return {
        layer: scene.share * scores[fires].mean(dim=0) + (1.0 - scene.share) * scores[~fires].mean(dim=0)
        for layer, scores in scene.exact.unit_score.items()
    }


def cla_of_defective(scene: Scene) -> dict[int, Tensor]:
    """CLA unit score over samples that someone has found to be defective."""
    fires = scene.fires[scene.exact_rows]
    return {layer: scores[fires].mean(dim=0) for layer, scores in scene.exact.unit_score.items()}


def defective(labels: str, true_masks: bool, scene: Scene) -> dict[int, Tensor] | None:
    """Defective score; None if the classifier cannot tell the groups apart, and where there is nothing to see."""
    if not scene.planted.truth.paints:
        return None
    found = LABELS[labels](scene)
    try:
        masks = _true_masks(found, scene) if true_masks else found.masks
    except InputError:
        return None
    return _by_layer(defective_scores(scene.generator, found.artifacts, masks, scene.thresholds).mean)


def frechet(scene: Scene) -> dict[int, Tensor]:
    """FID, against the generator's own samples, of the images each unit fires most for."""
    features = extract(scene.extractor, scene.images(scene.reference))
    size = max(2, min(_IMAGES, len(features) // 20))
    top = top_samples(scene.generator, scene.reference, scene.layers, size)
    return _by_layer(unit_frechet(features, top, features, extractor=scene.extractor.key, against="the generator's own samples"))


def contribution(scene: Scene) -> dict[int, Tensor] | None:
    """What units take from the discriminator's value of defective samples."""
    if scene.discriminator is None:
        return None
    return _by_layer(contributions(scene.generator, scene.discriminator, scene.samples[scene.fires], scene.layers).mean)


def _true_masks(found: Labelled, scene: Scene) -> Tensor:
    return scene.planted.truth.pixels.float().expand(len(found.artifacts), -1, -1)


def _by_layer(scores: UnitScores) -> dict[int, Tensor]:
    return {layer: scores.tensor(layer) for layer in scores.layers}


_SAID = {"true": "defective samples", "stand-in": "stand-ins"}

UNIT_SCORES: dict[str, UnitScore] = {
    **{f"low-rate activity, R = {rate}, all samples": partial(low_rate_activity, rate) for rate in (0.02, 0.1, 0.3)},
    **{
        f"low-rate activity, R = {rate}, {said}": partial(low_rate_activity_of_artifacts, labels, rate)
        for labels, said in _SAID.items()
        for rate in (0.02, 0.1, 0.3)
    },
    "CLA, all samples": cla,
    "CLA, defective samples": cla_of_defective,
    "defective score, defective samples": partial(defective, "true", False),
    "defective score, defective samples, true masks": partial(defective, "true", True),
    "defective score, stand-ins": partial(defective, "stand-in", False),
    "FID of a unit's images": frechet,
    "negative contribution, defective samples": contribution,
}
