"""The unit scores by name: the contract that all keep, what they are made from, and the table of them, those of plug-ins included."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from qualitygate.errors import InputError
from qualitygate.features.extractor import Extractor, SpatialExtractor, eight_bit
from qualitygate.features.images import ImageSet
from qualitygate.generators.base import Discriminator, Generator
from qualitygate.generators.passes import Reporter
from qualitygate.latents import Latents
from qualitygate.plugins import Table
from qualitygate.scores.low_rate import ActivationRates
from qualitygate.units.classifier import REAL, ArtifactClassifier, Classification, artifact_masks, train_classifier
from qualitygate.units.concepts import TopSamples, top_samples
from qualitygate.units.labels import ARTIFACT, NORMAL
from qualitygate.units.score import UnitScores


@dataclass(frozen=True)
class UnitScore:
    """A way to give each unit a number, higher = more suspect.

    Attributes:
        name: by which people ask for it. The column that it fills is the `source` of what it gives.
        compute: the score of every unit of ``inputs.layers``.
        needs: attributes of `UnitInputs` without which it cannot be made: ``extractor``, ``backbone``, ``discriminator``.
    """

    name: str
    compute: Callable[[UnitInputs], UnitScores]
    needs: tuple[str, ...] = ()


UNIT_SCORES: Table[UnitScore] = Table(
    "unit_scores",
    {
        "cla": "qualitygate.units.from_activations:CURVATURE",
        "low_rate": "qualitygate.units.from_activations:LOW_RATE",
        "defective": "qualitygate.units.defective_score:DEFECTIVE",
        "frechet": "qualitygate.units.unit_frechet:FRECHET",
        "contribution": "qualitygate.units.contribution:CONTRIBUTION",
    },
    UnitScore,
)
"""Every unit score by name, those of plug-ins (entry points of the group ``qualitygate.unit_scores``) after ours."""


@dataclass
class UnitInputs:
    """What unit scores are made from. What takes time is made when it is first asked for, and shared.

    Attributes:
        rates: activation rates of the untouched generator.
        rate: R of low-rate neurons.
        layers: whose units are scored.
        samples: as they come: for thresholds, top images and FID.
        artifacts, normal: samples that somebody, or another score, calls so.
        given_extractor: makes features for FID and, where it has spatial ones, the classifier.
        real: real images: what FID is measured against, and the classifier's third class.
        unit_images: images of a unit, whose FID is measured.
        curvature: artifacts with exact CLA, which is by far the dearest.
        classification: how good the classifier behind the masks is, once it was trained.
    """

    generator: Generator
    rates: ActivationRates
    rate: float
    layers: tuple[int, ...]
    samples: Latents
    artifacts: Latents
    normal: Latents
    given_extractor: Extractor | None = None
    given_discriminator: Discriminator | None = None
    real: ImageSet | None = None
    unit_images: int = 100
    curvature: int = 16
    reporter: Reporter = field(default_factory=Reporter)
    classification: Classification | None = None

    def has(self, needs: tuple[str, ...]) -> bool:
        try:
            return all(getattr(self, need) is not None for need in needs)
        except InputError:
            return False

    @property
    def extractor(self) -> Extractor:
        if self.given_extractor is None:
            raise InputError("This unit score needs features of images", "no extractor", "an extractor")
        return self.given_extractor

    @property
    def backbone(self) -> SpatialExtractor:
        if not isinstance(self.extractor, SpatialExtractor):
            needed = "a spatial extractor, for example random-vgg16-128, or the discriminator"
            raise InputError("Grad-CAM needs features that have a place in the image", self.extractor.key, needed)
        return self.extractor

    @property
    def discriminator(self) -> Discriminator:
        if self.given_discriminator is None:
            found, remedy = "a checkpoint without one", "leave `contribution` out of --sources"
            raise InputError("Contributions need a discriminator", found, "one with a discriminator", remedy)
        return self.given_discriminator

    def images(self, latents: Latents) -> Iterator[Tensor]:
        """Batches of images as they would be written, float32 (n, channels, height, width) in [-1, 1] on its device."""
        return (eight_bit(images) for _, images in self.generator.image_batches(latents))

    @cached_property
    def classifier(self) -> ArtifactClassifier:
        images: dict[str, Iterator[Tensor]] = {ARTIFACT: self.images(self.artifacts), NORMAL: self.images(self.normal)}
        count = len(self.artifacts) + len(self.normal)
        if self.real is not None:
            images[REAL] = _first(self.real, len(self.normal))
            count += min(len(self.real), len(self.normal))
        with self.reporter.phase("classifier", count) as progress:
            classifier, self.classification = train_classifier(self.backbone, images, progress=progress)
        return classifier

    @cached_property
    def masks(self) -> Tensor:
        """What is wrong in each artifact, float32 (N, height, width) in [0, 1]."""
        classifier = self.classifier
        with self.reporter.phase("Grad-CAM", len(self.artifacts)) as progress:
            return artifact_masks(classifier, self.images(self.artifacts), progress)

    @cached_property
    def top_samples(self) -> dict[int, TopSamples]:
        with self.reporter.phase("top images", len(self.samples)) as progress:
            return top_samples(self.generator, self.samples, self.layers, min(self.unit_images, len(self.samples)), progress)


def _first(images: ImageSet, count: int) -> Iterator[Tensor]:
    """The first ``count`` images of a set, in batches."""
    for batch in images:
        yield batch[:count]
        count -= len(batch)
        if count <= 0:
            return
