"""Features of real images, kept: by extractor, by the images' contents, by how they were brought to size."""

from __future__ import annotations

import numpy as np

from qualitygate.features.compute import extract
from qualitygate.features.extractor import Extractor
from qualitygate.features.images import ImageSet
from qualitygate.generators.passes import Progress, silent
from qualitygate.storage import Arrays, array_cache

CACHE = array_cache("features")
_VERSION = 1  # of what is kept: a change in how features are computed makes another one


def real_features(extractor: Extractor, images: ImageSet, progress: Progress = silent) -> np.ndarray:
    """Features float32 (N, features) of real images, in their order; extracted only if they have not been before.

    Args:
        extractor: what makes them; see `Extractor.kept`.
        images: read once for their hash, and once more if the features are not there.
        progress: called with the number of images just finished.

    Raises:
        InputError: as `extract`, and as the images.
    """

    def make() -> Arrays:
        return {"features": extract(extractor, images, progress)}

    if not extractor.kept:
        return make()["features"]
    found = CACHE.get(identity(extractor, images), make)["features"]
    return found if len(found) == len(images) else make()["features"]


def identity(extractor: Extractor, images: ImageSet) -> dict[str, str]:
    """What numbers of these images under this extractor depend on, and nothing else."""
    return {"version": str(_VERSION), "extractor": extractor.key, "images": images.sha256, "preparation": images.preparation}
