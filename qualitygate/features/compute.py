"""Features of many images: fixed micro-batches, so that an image's features do not depend on how many came with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from qualitygate.errors import InputError
from qualitygate.features.extractor import Extractor
from qualitygate.features.preparation import eight_bit
from qualitygate.generators.passes import MICRO_BATCH, Progress, scored_pass, silent


def extract(extractor: Extractor, images: Tensor | Iterable[Tensor], progress: Progress = silent) -> np.ndarray:
    """Features float32 (N, features) of images, on the CPU and in their order.

    Generated images are judged as the files they would be written to: rounded to 8 bits. Passes have no gradients and no
    TF32, and always have the same number of images (the last one is padded).

    Args:
        extractor: what makes them.
        images: (N, 1 or 3, height, width) in [-1, 1], or batches of such, of any numbers; an `ImageSet` is one.
        progress: called with the number of images just finished.

    Raises:
        InputError: no images, or features that are not finite.
    """
    batches = [images] if isinstance(images, Tensor) else images
    parts = []
    for batch in rebatched(batches, MICRO_BATCH):
        count = len(batch)
        rows = torch.arange(MICRO_BATCH, device=batch.device).clamp(max=count - 1)
        with scored_pass():
            parts.append(extractor(eight_bit(batch[rows]))[:count].float().cpu().numpy())
        progress(count)
    if not parts:
        raise InputError("There are no images to extract features from", "nothing", "at least one image")
    features = np.concatenate(parts)
    if not np.isfinite(features).all():
        row = int(np.argmin(np.isfinite(features).all(axis=1)))
        raise InputError(f"The features of image {row} are not finite", extractor.key, "finite numbers", "look for NaN in the images")
    return features


def rebatched(batches: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """The rows of all batches in batches of this size, the last one shorter."""
    waiting: list[Tensor] = []
    count = 0
    for batch in batches:
        waiting.append(batch)
        count += len(batch)
        if count >= size:
            *whole, rest = torch.cat(waiting).split(size)
            if len(rest) == size:
                whole.append(rest)
                rest = rest[:0]
            yield from whole
            waiting, count = [rest], len(rest)
    if count:
        yield torch.cat(waiting)
