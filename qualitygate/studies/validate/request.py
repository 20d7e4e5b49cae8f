"""What a validation is asked for: what the checkpoint is validated with, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qualitygate.features.extractor import Extractor
from qualitygate.features.images import ImageSet
from qualitygate.gating.profile import Profile
from qualitygate.generators.base import Discriminator, Generator
from qualitygate.units.labels import Labels


@dataclass(frozen=True)
class Tools:
    """What a checkpoint is validated with.

    Attributes:
        generator: the generator.
        profile: what calibration learned of it.
        discriminator: stored beside it; weak evidence.
        extractor: makes features; needed for ``real``.
        real: real images.
        real_classes: class of each of them, int64 (M,).
        labels: what people said of samples.
        label_seed: seed of those samples; by default the calibration's, as of `qualitygate label`.
    """

    generator: Generator
    profile: Profile
    discriminator: Discriminator | None = None
    extractor: Extractor | None = None
    real: ImageSet | None = None
    real_classes: np.ndarray | None = None
    labels: Labels | None = None
    label_seed: int | None = None


@dataclass(frozen=True)
class Request:
    """How much of it.

    Attributes:
        samples: images to make; half of them choose, half are reported on.
        seed: of them; not the calibration's.
        curvature: of them, how many get exact CLA.
        class_samples: other images, for the activation rates of each class.
        planted: plant a defect: None where there is neither a label nor a real image.
    """

    samples: int = 2000
    seed: int = 1
    curvature: int = 200
    class_samples: int = 2000
    planted: bool | None = None
