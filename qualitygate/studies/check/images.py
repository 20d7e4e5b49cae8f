"""Images of a subject, and their features: of the samples that are checked, and of those that serve as a reference."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from qualitygate.features.compute import extract
from qualitygate.features.extractor import Extractor
from qualitygate.features.sample_cache import SampleFeatures
from qualitygate.generators.base import Generator, sample_latents
from qualitygate.generators.passes import Progress, Reporter, micro_batches, scored_pass
from qualitygate.latents import Latents
from qualitygate.metrics.real_set import RealSet
from qualitygate.studies.check.subject import Subject

REFERENCE_FROM = 2**47
"""First id of the baseline's images that stand in for real ones: the upper half of all ids, where no sample of a check ever is."""


def images_of(generator: Generator, latents: Latents, progress: Progress) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Images as the generator makes them, untouched, and their labels; a micro-batch at a time."""
    for rows, batch in micro_batches(latents):
        valid = rows.stop - rows.start
        with scored_pass():
            images = generator(batch)[:valid]
        yield images, None if batch.labels is None else batch.labels[:valid]
        progress(valid)


def image_features(
    subject: Subject, extractor: Extractor, ids: range, seed: int, reporter: Reporter, earlier: Tensor | None = None
) -> Tensor:
    """Features of a subject's images: float32 (N, F) on its device. Made once for a checkpoint, whichever command asks.

    Args:
        subject: with its generator.
        extractor: makes them.
        ids: of the samples.
        seed: of the samples.
        reporter: shows progress.
        earlier: of the first of these ids, from an earlier look; what is not kept in the cache is not made again either.
    """
    generator, sampling = subject.generator, subject.profile.info.sampling
    assert generator is not None

    shelf = SampleFeatures(generator, sampling, seed, extractor, ids.start)
    found = shelf.known(len(ids))
    if earlier is not None and len(earlier) > len(found):
        found = earlier.cpu().numpy()
    if rest := ids[len(found) :]:
        with reporter.phase("features", len(rest)) as progress:
            latents = sample_latents(generator, rest, seed, sampling=sampling)
            made = extract(extractor, (images for images, _ in images_of(generator, latents, progress)))
        found = np.concatenate([found, made])
        shelf.keep(found)
    return torch.from_numpy(found).to(generator.device)


def reference_set(baseline: Subject, extractor: Extractor, count: int, seed: int, reporter: Reporter) -> RealSet:
    """Images of the baseline in the place of real ones. None of them is in the sample that the check looks at: so the baseline's own
    sample stands to them as another model's does, and its value is no trivial 1."""
    ids = range(REFERENCE_FROM, REFERENCE_FROM + count)
    features = image_features(baseline, extractor, ids, seed, reporter)
    return RealSet(f"images of {baseline.profile.info.checkpoint}", baseline.sha256, features)
