"""Which samples are said to be artifacts: the truth, as people would label it, or the extremes of the default score in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from planted_rows.scene import Scene
from qualitygate.generators.base import sample_latents
from qualitygate.latents import Latents
from qualitygate.studies.units.run import pseudo_labelled
from qualitygate.units.classifier import artifact_masks, train_classifier
from qualitygate.units.labels import ARTIFACT, NORMAL


@dataclass(frozen=True)
class Labelled:
    """Artifacts and normal samples of a scene."""

    scene: Scene
    artifacts: Latents
    normal: Latents

    @cached_property
    def masks(self) -> Tensor:
        """Grad-CAM of each artifact by a classifier trained on both groups.

        Raises:
            InputError: the classifier is no better than chance.
        """
        images = {ARTIFACT: self.scene.images(self.artifacts), NORMAL: self.scene.images(self.normal)}
        classifier, _ = train_classifier(self.scene.extractor, images)
        return artifact_masks(classifier, images[ARTIFACT])


def truth(scene: Scene) -> Labelled:
    others = np.flatnonzero(~scene.fires)[: scene.fires.sum()]
    return Labelled(scene, scene.samples[scene.fires], scene.samples[others])


def standing_in(scene: Scene) -> Labelled:
    """As many as are truly defective, so that only who says so differs."""
    said = pseudo_labelled(scene.profile, int(scene.fires.sum()))
    artifacts, normal = (
        sample_latents(scene.generator, said.ids[said.artifact == wrong], 0, sampling=scene.profile.info.sampling)
        for wrong in (True, False)
    )
    return Labelled(scene, artifacts, normal)


LABELS: dict[str, Callable[[Scene], Labelled]] = {"true": truth, "stand-in": standing_in}
