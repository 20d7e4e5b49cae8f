"""What is measured of one snapshot, on latents that are the same for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.generators.base import Discriminator, Generator, sample_latents
from qualitygate.generators.passes import Progress, micro_batches, scored_pass, silent
from qualitygate.latents import Latents
from qualitygate.records import canonical_hash
from qualitygate.scores.local_activation import local_activation
from qualitygate.scores.low_rate import activation_rates
from qualitygate.units.contribution import contributions
from qualitygate.units.score import rank_correlation

SetMetrics = Callable[[Tensor], Mapping[str, float]]
"""Numbers by name for a set of images, float32 (N, channels, height, width) in [-1, 1]."""


class Settings(BaseModel):
    """What is scored, the same for every snapshot. Numbers of different settings are never laid side by side.

    Attributes:
        layers: layers of CLA, by index; by default the family's.
        early: layers whose low-rate neurons are followed; by default the family's.
        samples: latents that go through every snapshot.
        seed: of these latents.
        axes: of z, spread evenly over all, that CLA is averaged over; all if None. Fewer are an estimate.
        rate: R of low-rate neurons.
        rate_samples: latents of the estimate of the activation rates.
        metric_samples: images that set metrics see.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: tuple[int, ...] | None = None
    early: tuple[int, ...] | None = None
    samples: int = Field(16, ge=1)
    seed: int = Field(1, ge=0)
    axes: int | None = Field(None, ge=1)
    rate: float = Field(0.1, gt=0.0, le=1.0)
    rate_samples: int = Field(2048, ge=1)
    metric_samples: int = Field(1000, ge=2)

    @property
    def key(self) -> str:
        """Hash of all of them."""
        return canonical_hash(self.model_dump(mode="json"))

    def for_generator(self, generator: Generator) -> Settings:
        """The same with the family's layers where none were chosen."""
        presets = generator.presets
        return self.model_copy(
            update={
                "layers": presets.curvature if self.layers is None else tuple(sorted(set(self.layers))),
                "early": presets.low_rate if self.early is None else tuple(sorted(set(self.early))),
            }
        )

    def chosen_axes(self, latent_size: int) -> list[int] | None:
        """The axes of z that CLA is averaged over; None for all."""
        if self.axes is None or self.axes >= latent_size:
            return None
        return np.linspace(0, latent_size, self.axes, endpoint=False).astype(int).tolist()


@dataclass(frozen=True)
class Scores:
    """What was measured of one snapshot. Every dictionary is by layer, and has the layers that the snapshot has.

    Attributes:
        sample_cla: float64 (N,), equation 3.
        unit_cla: float64 (N, units), each unit's part for each sample.
        scale: mean magnitude of the activation at the samples.
        unit_rate: float64 (units,), activation rate of each unit: the mean over its neurons.
        low_rate: bool (units, height, width), the low-rate neurons.
        contribution: float64 (units,), mean part of each unit in the discriminator's value; empty without a discriminator.
        metrics: set metrics by name.
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
    settings: Settings,
    *,
    discriminator: Discriminator | None = None,
    metrics: SetMetrics | None = None,
    progress: Progress = silent,
) -> Scores:
    """Score the fixed latents through a generator.

    Args:
        generator: the snapshot's.
        settings: what is scored; layers that the generator does not have yet are left out.
        discriminator: the snapshot's; None for no contributions.
        metrics: called with the images of ``metric_samples`` latents, of which the fixed ones are the first.
        progress: called with the number of samples whose CLA is known.

    Raises:
        InputError: the generator has none of the layers, or activations that are not finite.
    """
    settings = settings.for_generator(generator)
    layers = present(generator, settings.layers or ())
    early = present(generator, settings.early or ())
    if not layers:
        raise InputError(
            "The snapshot has none of the layers to score", f"layers 0 … {generator.layers[-1].index}", f"one of {settings.layers}"
        )
    latents = fixed_latents(generator, settings)
    local = local_activation(generator, latents, layers, axes=settings.chosen_axes(generator.latent_size), progress=progress)
    rated = tuple(sorted({*layers, *early}))
    rates = activation_rates(generator, rated, settings.rate_samples, settings.seed)
    judged = {} if discriminator is None else contributions(generator, discriminator, latents, layers).parts
    return Scores(
        sample_cla={layer: values.numpy() for layer, values in local.score.items()},
        unit_cla={layer: values.numpy() for layer, values in local.unit_score.items()},
        scale={layer: float(local.activation[layer].double().abs().mean()) for layer in layers},
        unit_rate={layer: rates.rates[layer].mean(dim=(1, 2)).numpy() for layer in rated},
        low_rate={layer: rates.low_rate(layer, settings.rate).numpy() for layer in early},
        contribution={layer: parts.double().mean(dim=0).numpy() for layer, parts in judged.items()},
        metrics={} if metrics is None else dict(metrics(_images(generator, settings))),
    )


def fixed_latents(generator: Generator, settings: Settings) -> Latents:
    """The latents that go through every snapshot."""
    return sample_latents(generator, range(settings.samples), settings.seed)


def present(generator: Generator, layers: Sequence[int]) -> tuple[int, ...]:
    """Those of the layers that the generator has: while it grows, the late ones are missing."""
    return tuple(layer for layer in layers if 0 <= layer < len(generator.layers))


def _images(generator: Generator, settings: Settings) -> Tensor:
    """What set metrics see, on the CPU."""
    latents = sample_latents(generator, range(settings.metric_samples), settings.seed)
    with scored_pass():
        return torch.cat([generator(batch)[: rows.stop - rows.start].cpu() for rows, batch in micro_batches(latents)])


def summary(now: Scores, before: Scores | None = None) -> dict[str, float]:
    """All metrics of a snapshot by their names in `qualitygate.names`.

    What compares with the snapshot before is only there for layers that both have, in the same size.
    """
    found = {names.at_layer(metric, layer): value for metric, layer, value in _alone(now)}
    if before is not None:
        found |= {names.at_layer(metric, layer): value for metric, layer, value in _compared(now, before)}
    return found | {names.of_set(name): value for name, value in now.metrics.items()}


def rising_units(course: Sequence[Scores], layer: int, count: int = 10) -> list[tuple[int, float]]:
    """The units whose CLA rose most: from the lowest that it was to what it is in the last snapshot.

    Args:
        course: the snapshots in order; those that lack the layer, or have it in another size than the last, do not count.
        layer: index of the layer.
        count: how many units.

    Returns:
        unit and rise, the greatest first; empty where the last snapshot does not have the layer.
    """
    if not course or layer not in course[-1].unit_cla:
        return []
    last = course[-1].unit_cla[layer]
    units = [one.unit_cla[layer].mean(axis=0) for one in course if layer in one.unit_cla and one.unit_cla[layer].shape == last.shape]
    rise = units[-1] - np.min(units, axis=0)
    return [(int(unit), float(rise[unit])) for unit in np.argsort(-rise, kind="stable")[:count]]


def _alone(now: Scores) -> Iterator[tuple[str, int, float]]:
    for layer, scores in now.sample_cla.items():
        units = now.unit_cla[layer].mean(axis=0)
        yield names.CLA_MEAN, layer, float(scores.mean())
        yield names.CLA_Q90, layer, float(np.quantile(scores, 0.9))
        yield names.CLA_UNIT_Q99, layer, float(np.quantile(units, 0.99))
        yield names.CLA_UNIT_MAX, layer, float(units.max())
        yield names.ACTIVATION_SCALE, layer, now.scale[layer]
    for layer, rates in now.unit_rate.items():
        yield names.ACTIVATION_RATE, layer, float(rates.mean())
    for layer, low in now.low_rate.items():
        yield names.LOW_RATE_SHARE, layer, float(low.mean())
    for layer, parts in now.contribution.items():
        yield names.AGAINST_SHARE, layer, float((parts < 0).mean())
        yield names.AGAINST_CLA_RANK, layer, rank_correlation(-parts, now.unit_cla[layer].mean(axis=0))


def _compared(now: Scores, before: Scores) -> Iterator[tuple[str, int, float]]:
    for layer, low in now.low_rate.items():
        earlier = before.low_rate.get(layer)
        if earlier is not None and earlier.shape == low.shape:
            yield names.LOW_RATE_BORN, layer, float((low & ~earlier).mean())
            yield names.LOW_RATE_GONE, layer, float((earlier & ~low).mean())
    for layer, parts in before.contribution.items():
        rates = now.unit_rate.get(layer)
        if rates is None or rates.shape != parts.shape:
            continue
        change = rates - before.unit_rate[layer]
        for metric, units in ((names.AGAINST_RATE_CHANGE, parts < 0), (names.FOR_RATE_CHANGE, parts > 0)):
            if units.any():
                yield metric, layer, float(change[units].mean())
