"""What was computed of images, kept. Of real ones: by extractor, by the images' contents, by how they were brought to size.

It stands in ``features`` in the cache folder (see `checkpoints.sources.cache`), where anybody may delete it: it is computed
anew then, and so is whatever cannot be read.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qualitygate import storage
from qualitygate.checkpoints.sources.cache import folder
from qualitygate.errors import StorageError
from qualitygate.features.extractor import Extractor, extract
from qualitygate.features.images import ImageSet
from qualitygate.generators.base import Generator
from qualitygate.generators.module import is_somebody_elses
from qualitygate.generators.passes import Progress, silent
from qualitygate.latents import Sampling
from qualitygate.storage import Arrays

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
    found = kept("features", identity(extractor, images), make)["features"]
    return found if len(found) == len(images) else make()["features"]


def identity(extractor: Extractor, images: ImageSet) -> dict[str, str]:
    """What numbers of these images under this extractor depend on, and nothing else."""
    return {"extractor": extractor.key, "images": images.sha256, "preparation": images.preparation}


def kept(kind: str, identity: Mapping[str, str], make: Callable[[], Arrays]) -> Arrays:
    """Arrays from the cache, or made and put there.

    Args:
        kind: what they are, e.g. ``"features"``; things of different kinds may have the same identity.
        identity: all that they depend on.
        make: computes them.

    Warns:
        UserWarning: what is kept cannot be read, or nothing can be written; they are computed then.
    """
    if (found := find(kind, identity)) is not None:
        return found
    made = make()
    keep(kind, identity, made)
    return made


def find(kind: str, identity: Mapping[str, str]) -> Arrays | None:
    """Arrays from the cache, or None. Warns as `kept`."""
    return _read(place(kind, identity))


def keep(kind: str, identity: Mapping[str, str], made: Arrays) -> None:
    """Put arrays into the cache, in place of what is there. Warns as `kept`."""
    path = place(kind, identity)
    try:
        with storage.explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        storage.write_arrays(path, made, identity)
    except StorageError as error:
        warnings.warn(f"What was computed is not kept: {error}", stacklevel=3)


def place(kind: str, identity: Mapping[str, str]) -> Path:
    """Where the cache has it, or would have it."""
    written = json.dumps([_VERSION, kind, dict(identity)], sort_keys=True)
    return folder() / "features" / f"{kind}-{hashlib.sha256(written.encode()).hexdigest()}.safetensors"


def _read(path: Path) -> Arrays | None:
    if not path.exists():
        return None
    try:
        return storage.read_arrays(path)[0]
    except StorageError as error:
        warnings.warn(f"{path} cannot be read and is computed anew: {error}", stacklevel=3)
        return None


_KIND, _FEATURES = "samples", "features"


@dataclass(frozen=True)
class SampleFeatures:
    """Where the cache has the features of a checkpoint's untouched images. Nowhere, if the code of generator or extractor is somebody
    else's: it may have been edited since.

    Attributes:
        generator: makes the images.
        sampling: how latents are drawn.
        seed: of the samples.
        extractor: makes the features.
        first: id of the first of them.
    """

    generator: Generator
    sampling: Sampling
    seed: int
    extractor: Extractor
    first: int = 0

    def known(self, most: int) -> np.ndarray:
        """Features float32 (N, features) of the first N samples: as many as are kept, but at most this many."""
        found = find(_KIND, self._identity) if self._is_kept else None
        return np.empty((0, self.extractor.features), np.float32) if found is None else found[_FEATURES][:most]

    def keep(self, features: np.ndarray) -> None:
        """Keep the features of the first samples, unless those of more are kept."""
        if self._is_kept and len(features) > len(self.known(len(features))):
            keep(_KIND, self._identity, {_FEATURES: features})

    @property
    def _is_kept(self) -> bool:
        return self.extractor.kept and not is_somebody_elses(self.generator)

    @property
    def _identity(self) -> dict[str, str]:
        """All that they depend on; one file may be read as of several families."""
        return {
            "checkpoint": self.generator.identity().sha256,
            "family": self.generator.family,
            "stored_as": self.generator.stored_as,
            "sampling": self.sampling.model_dump_json(),
            "seed": str(self.seed),
            "first": str(self.first),
            "extractor": self.extractor.key,
            "device": self.generator.device.type,
        }
