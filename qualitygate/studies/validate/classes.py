"""Which class a sample is of, and its low-rate counts against the activation rates of that class alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qualitygate.gating.profile import Profile, detection_layers
from qualitygate.gating.scoring import class_counts, class_rates
from qualitygate.generators.base import sample_latents
from qualitygate.generators.passes import Reporter
from qualitygate.latents import Latents
from qualitygate.metrics.measured_set import Population, RealSet
from qualitygate.studies.observation import Observatory
from qualitygate.studies.validate.scores import Scored, count_settings

_BLOCK = 2**24  # distances held at once


@dataclass(frozen=True)
class Classifier:
    """Says of what class a sample is: its label, else that of the real image it is nearest to.

    Attributes:
        real: real images; None for none.
        classes: class of each of them, int64 (M,); None where nobody says.
    """

    real: RealSet | None
    classes: np.ndarray | None

    def __call__(self, latents: Latents, population: Population) -> np.ndarray | None:
        """Class of each sample, int64 (N,); None where there are no classes."""
        if latents.labels is not None:
            return latents.labels.numpy() if latents.labels.ndim == 1 else None
        if self.classes is None or self.real is None or population.features is None:
            return None
        return self.classes[_nearest_rows(population.features, self.real.features)]


@dataclass(frozen=True)
class ByClass:
    """Scores that no policy can ask for, as they need classes.

    Attributes:
        settings: low-rate counts against the rates of each sample's class.
        remarks: how many classes there are, and what their rates were estimated from.
    """

    settings: tuple[Scored, ...] = ()
    remarks: tuple[str, ...] = ()


def counts_by_class(
    place: Observatory, profile: Profile, classifier: Classifier, latents: Latents, classes: np.ndarray, most: int, reporter: Reporter
) -> ByClass:
    """Low-rate counts of these samples, the rates estimated on others: the first of the calibration's, at most so many."""
    info, generator = profile.info, place.generator
    ids = range(min(most, info.calibration.rate_samples))
    others = sample_latents(generator, ids, info.calibration.seed, sampling=info.sampling)
    looked = Population(len(others)) if others.labels is not None else place.again(others, "images of classes")
    theirs = classifier(others, looked)
    assert theirs is not None  # what gives the samples a class gives the others one
    with reporter.phase("rates by class", len(others)) as progress:
        rates = class_rates(generator, others, theirs, info.layers, progress)
    columns = class_counts(generator, latents, classes, rates, info.rates, info.layers)
    settings = count_settings(columns, info.rates, info.layers, detection_layers(profile.policy, info.chain))
    sizes = np.bincount(theirs)
    remark = f"rates by class: {(sizes > 0).sum()} classes of {sizes[sizes > 0].min():,} to {sizes.max():,} samples"
    return ByClass(tuple((one.model_copy(update={"by_class": True}), values) for one, values in settings), (remark,))


def _nearest_rows(queries: Tensor, centres: Tensor) -> np.ndarray:
    """Row of the nearest centre to each query: int64 (N,)."""
    step = max(1, _BLOCK // len(centres))
    return torch.cat([torch.cdist(part, centres).argmin(dim=1) for part in queries.split(step)]).cpu().numpy()
