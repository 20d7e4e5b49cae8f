"""What is measured of one snapshot, on latents that are the same for all of them; in numbers of fixed names, and what changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from qualitygate import names
from qualitygate.generators.base import Discriminator, Generator, sample_latents
from qualitygate.generators.passes import Progress, silent
from qualitygate.scores.local_activation import local_activation
from qualitygate.scores.low_rate import activation_rates
from qualitygate.studies.dynamics import ScoringSettings
from qualitygate.units.contribution import contributions
from qualitygate.units.score import rank_correlation

SetMetrics = Callable[[Tensor], Mapping[str, float]]
"""Numbers by name for a set of images, float32 (N, channels, height, width) in [-1, 1]."""


@dataclass(frozen=True)
class SnapshotScores:
    """What was measured of one snapshot. Every dictionary but ``metrics`` is by layer, and has the layers that the snapshot has.

    Attributes:
        sample_cla: float64 (N,), equation 3.
        unit_cla: float64 (N, units), each unit's part for each sample.
        scale: mean magnitude of the activation at the samples.
        unit_rate: float64 (units,), activation rate of each unit: the mean over its neurons.
        low_rate: bool (units, height, width), the low-rate neurons.
        contribution: float64 (units,), mean part of each unit in the discriminator's value; empty without a discriminator.
    """

    sample_cla: Mapping[int, np.ndarray]
    unit_cla: Mapping[int, np.ndarray]
    scale: Mapping[int, float]
    unit_rate: Mapping[int, np.ndarray]
    low_rate: Mapping[int, np.ndarray]
    contribution: Mapping[int, np.ndarray] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


def score(
    generator: Generator,
    settings: ScoringSettings,
    *,
    discriminator: Discriminator | None = None,
    metrics: SetMetrics | None = None,
    progress: Progress = silent,
) -> SnapshotScores:
    """Score the fixed latents through a generator; layers that it does not have yet are left out, contributions without a discriminator.
    ``metrics`` is called with the images of ``metric_samples`` latents, of which the fixed ones are the first. Raises `InputError` if the
    generator has none of the layers, or activations that are not finite."""
    layers, early = settings.present_layers(generator)
    latents = sample_latents(generator, range(settings.samples), settings.seed)
    local = local_activation(generator, latents, layers, axes=settings.chosen_axes(generator.latent_size), progress=progress)
    rated = tuple(sorted({*layers, *early}))
    rates = activation_rates(generator, rated, settings.rate_samples, settings.seed)
    judged = {} if discriminator is None else contributions(generator, discriminator, latents, layers).parts
    of_images: Mapping[str, float] = {}
    if metrics is not None:
        of_images = metrics(generator.images(sample_latents(generator, range(settings.metric_samples), settings.seed)))
    return SnapshotScores(
        sample_cla={layer: values.numpy() for layer, values in local.score.items()},
        unit_cla={layer: values.numpy() for layer, values in local.unit_score.items()},
        scale={layer: float(local.activation[layer].double().abs().mean()) for layer in layers},
        unit_rate={layer: rates.rates[layer].mean(dim=(1, 2)).numpy() for layer in rated},
        low_rate={layer: rates.low_rate(layer, settings.rate).numpy() for layer in early},
        contribution={layer: parts.double().mean(dim=0).numpy() for layer, parts in judged.items()},
        metrics=dict(of_images),
    )


def summary(now: SnapshotScores, before: SnapshotScores | None = None) -> dict[str, float]:
    """All metrics of a snapshot by their names in `qualitygate.names`. What compares with the snapshot before is only there for layers that
    both have, in the same size."""
    found: dict[tuple[str, int], float] = {}
    for layer, scores in now.sample_cla.items():
        units = now.unit_cla[layer].mean(axis=0)
        found[names.CLA_MEAN, layer] = scores.mean()
        found[names.CLA_Q90, layer] = np.quantile(scores, 0.9)
        found[names.CLA_UNIT_Q99, layer] = np.quantile(units, 0.99)
        found[names.CLA_UNIT_MAX, layer] = units.max()
        found[names.ACTIVATION_SCALE, layer] = now.scale[layer]
    for layer, rates in now.unit_rate.items():
        found[names.ACTIVATION_RATE, layer] = rates.mean()
    for layer, low in now.low_rate.items():
        found[names.LOW_RATE_SHARE, layer] = low.mean()
    for layer, parts in now.contribution.items():
        found[names.AGAINST_SHARE, layer] = (parts < 0).mean()
        found[names.AGAINST_CLA_RANK, layer] = rank_correlation(-parts, now.unit_cla[layer].mean(axis=0))
    if before is not None:
        found |= _compared(now, before)
    named = {names.of_layer(metric, layer): float(value) for (metric, layer), value in found.items()}
    return named | {names.of_set(name): value for name, value in now.metrics.items()}


def _compared(now: SnapshotScores, before: SnapshotScores) -> dict[tuple[str, int], float]:
    found = {}
    for layer, low in now.low_rate.items():
        earlier = before.low_rate.get(layer)
        if earlier is not None and earlier.shape == low.shape:
            found[names.LOW_RATE_BORN, layer] = (low & ~earlier).mean()
            found[names.LOW_RATE_GONE, layer] = (earlier & ~low).mean()
    for layer, parts in before.contribution.items():
        rates = now.unit_rate.get(layer)
        if rates is not None and rates.shape == parts.shape:
            change = rates - before.unit_rate[layer]
            for metric, units in ((names.AGAINST_RATE_CHANGE, parts < 0), (names.FOR_RATE_CHANGE, parts > 0)):
                if units.any():
                    found[metric, layer] = change[units].mean()
    return found


def rising_units(scores: Sequence[SnapshotScores], layer: int, count: int = 10) -> list[tuple[int, float]]:
    """The units whose CLA rose most, and by how much, the greatest first: from the lowest that it was to what it is in the last snapshot.
    Snapshots that lack the layer, or have it in another size than the last, do not count; empty where the last does not have it."""
    if not scores or layer not in scores[-1].unit_cla:
        return []
    last = scores[-1].unit_cla[layer]
    units = [one.unit_cla[layer].mean(axis=0) for one in scores if layer in one.unit_cla and one.unit_cla[layer].shape == last.shape]
    rise = units[-1] - np.min(units, axis=0)
    return [(int(unit), float(rise[unit])) for unit in np.argsort(-rise, kind="stable")[:count]]
