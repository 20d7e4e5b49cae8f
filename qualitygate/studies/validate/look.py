"""The samples of a validation: their scores, and what their images show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qualitygate.generators.passes import Reporter
from qualitygate.latents import Latents
from qualitygate.metrics.measured_set import Population, RealImages
from qualitygate.metrics.metric import Ruler, Subject
from qualitygate.records.metrics_report import RealInfo
from qualitygate.studies.observation import Observatory
from qualitygate.studies.validate.classes import ByClass, Classifier, counts_by_class
from qualitygate.studies.validate.request import Request, Tools
from qualitygate.studies.validate.scores import ScoreTable, score_table


@dataclass(frozen=True)
class Looked:
    """N samples of a checkpoint, looked at.

    Attributes:
        latents: what they are made from.
        table: their scores.
        ruler: what their images are measured with.
        subject: their images, ready to be measured.
        real: real images that they are held against; None without.
        classes: class of each of them, int64 (N,); None where there are none.
        by_class: scores against the rates of those classes.
    """

    latents: Latents
    table: ScoreTable
    ruler: Ruler
    subject: Subject
    real: RealInfo | None
    classes: np.ndarray | None
    by_class: ByClass


def look(tools: Tools, request: Request, reporter: Reporter) -> Looked:
    """Make the samples and their scores; make their images only where somebody looks at them.

    Raises:
        InputError: real images without an extractor.
    """
    generator, profile = tools.generator, tools.profile
    real = RealImages.of(tools.real, tools.extractor, generator.device, reporter) if tools.real is not None else None
    ruler = Ruler(real.reference, real.key, seed=request.seed) if real is not None else Ruler(seed=request.seed)
    place = Observatory(
        generator,
        tools.extractor if tools.real is not None else None,
        tools.discriminator,
        seed=request.seed,
        sampling=profile.info.sampling,
        reporter=reporter,
    )
    latents = place.latents(request.samples)
    table = score_table(generator, profile, latents, request.curvature, reporter)
    looks = tools.real is not None or tools.discriminator is not None
    population = place.again(latents, "images") if looks else Population(request.samples)
    classifier = Classifier(ruler.real, tools.real_classes)
    classes, by_class = classifier(latents, population), ByClass()
    if classes is not None:
        by_class = counts_by_class(place, profile, classifier, latents, classes, request.class_samples, reporter)
    info = real.info if real is not None else None
    return Looked(latents, table, ruler, ruler.subject(population), info, classes, by_class)
