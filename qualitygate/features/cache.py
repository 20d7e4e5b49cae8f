"""Features that are kept: of real images by extractor, contents and preparation; of a checkpoint's samples by all that makes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qualitygate.features.extractor import Extractor, extract
from qualitygate.features.images import ImageSet
from qualitygate.generators.base import Generator, sample_latents
from qualitygate.generators.module import is_somebody_elses
from qualitygate.generators.passes import Progress, Reporter, silent
from qualitygate.latents import Sampling
from qualitygate.storage import array_cache

REAL, SAMPLES = array_cache("features"), array_cache("samples")
_FEATURES = "features"
_VERSION = 2  # of what is kept: a change in how features are computed makes another one


def real_features(extractor: Extractor, images: ImageSet, progress: Progress = silent) -> np.ndarray:
    """Features float32 (N, features) of real images, in their order; extracted only if they have not been before. The images are read
    once for their hash, and once more if their features are not there. Errors as of `extract`, and of the images."""
    if not extractor.kept:
        return extract(extractor, images, progress, called=images.name_of)
    found = REAL.find(identity(extractor, images))
    if found is not None and len(found[_FEATURES]) == len(images):
        return found[_FEATURES]
    made = extract(extractor, images, progress, called=images.name_of)
    REAL.keep(identity(extractor, images), {_FEATURES: made})
    return made


def identity(extractor: Extractor, images: ImageSet) -> dict[str, str]:
    """What numbers of these images under this extractor depend on, and nothing else."""
    return {"version": str(_VERSION), "extractor": extractor.key, "images": images.ordered_sha256, "preparation": images.preparation}


@dataclass(frozen=True)
class SampleFeatures:
    """Features of a checkpoint's untouched images, in the order of their ids from ``first`` on: whoever asks first has them made, and more
    only join them. They are kept unless the code of generator or extractor is somebody else's: it may have been edited since."""

    generator: Generator
    sampling: Sampling
    seed: int
    extractor: Extractor
    first: int = 0

    def get(self, count: int, reporter: Reporter, earlier: np.ndarray | None = None) -> np.ndarray:
        """Features float32 (count, features) of the first samples; images are made only for those that nobody has asked for yet. Where the
        caller has those of some already, ``earlier``, what is not kept is not made again either."""
        found = self.known(count)
        if earlier is not None and len(earlier) > len(found):
            found = earlier[:count]
        if rest := range(self.first + len(found), self.first + count):
            latents = sample_latents(self.generator, rest, self.seed, sampling=self.sampling)
            with reporter.phase("features", len(rest)) as progress:
                images = (batch for _, batch in self.generator.image_batches(latents, progress=progress))
                made = extract(self.extractor, images, called=lambda row: f"sample {rest[row]}")
            found = np.concatenate([found, made])
            self.keep(found)
        return found

    def known(self, most: int) -> np.ndarray:
        """Features float32 (N, features) of the first N samples: as many as are kept, but at most this many."""
        found = SAMPLES.find(self._identity) if self._is_kept else None
        return np.empty((0, self.extractor.features), np.float32) if found is None else found[_FEATURES][:most]

    def keep(self, features: np.ndarray) -> None:
        """Keep the features (N, F) of the first samples, unless those of more are kept."""
        if self._is_kept and len(features) > len(self.known(len(features))):
            SAMPLES.keep(self._identity, {_FEATURES: features})

    @property
    def _is_kept(self) -> bool:
        return self.extractor.kept and not is_somebody_elses(self.generator)

    @property
    def _identity(self) -> dict[str, str]:
        """All that they depend on; one file may be read as of several families."""
        return {
            **self.generator.key,
            "family": self.generator.family,
            "stored_as": self.generator.stored_as,
            "sampling": self.sampling.model_dump_json(),
            "seed": str(self.seed),
            "first": str(self.first),
            "extractor": self.extractor.key,
            "device": self.generator.device.type,
        }
