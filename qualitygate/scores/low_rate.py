"""Low-rate neurons (Choi, Chang, Choi, IJCAI 2022): activation rates, counts a sample, never-seen neurons, heatmaps.

A neuron is *active* where its activation is positive. Its *activation rate* is the share of latents for which it is; it is *low-rate*
at R if ``0 < rate ≤ R``. Neurons that never fired in the estimate are left out, as in the authors' code; one that fires all the same is
counted apart, as *never seen*. All comparisons are between integer counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from qualitygate.errors import InputError, ProfileError
from qualitygate.generators.base import Edit, Generator, LayerLike, sample_latents
from qualitygate.generators.passes import Progress, on_host, silent
from qualitygate.latents import Latents, Sampling

PAPER_RATE = 0.3  # R of the paper's experiments
PAPER_SAMPLES = 30_000  # latents of the paper's estimate of the rates


@dataclass(frozen=True)
class ActivationRates:
    """How often each neuron fires.

    Attributes:
        counts: for each layer index, int64 (units, height, width): latents for which the neuron was active.
        samples: number of latents; their ids are 0 … samples − 1 of the seed.
    """

    counts: Mapping[int, Tensor]
    samples: int
    seed: int
    sampling: Sampling

    @cached_property
    def rates(self) -> dict[int, Tensor]:
        """Activation rate of each neuron, float64 (units, height, width) in [0, 1], by layer."""
        return {layer: counts.double() / self.samples for layer, counts in self.counts.items()}

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(sorted(self.counts))

    def low_rate(self, layer: int, rate: float) -> Tensor:
        """The low-rate set at ``rate``: bool (units, height, width), ``0 < counts ≤ rate · samples``. As everything below, it raises
        `ProfileError` where the layer's rates were not estimated, and `InputError` where the rate is not in (0, 1]."""
        return (self._of(layer) > 0) & ~self.high_rate(layer, rate)

    def high_rate(self, layer: int, rate: float) -> Tensor:
        """The high-rate set at ``rate``: bool (units, height, width), ``counts > rate · samples``."""
        counts = self._of(layer)
        if not 0.0 < rate <= 1.0:
            raise InputError("An activation rate is out of range", str(rate), "a number in (0, 1]")
        return counts > int(Fraction(str(rate)) * self.samples)

    def never_seen(self, layer: int) -> Tensor:
        """Neurons that never fired in the estimate: bool (units, height, width)."""
        return self._of(layer) == 0

    def low_rate_share(self, layer: int, rate: float) -> float:
        """Share of the layer's neurons with an activation rate of at most ``rate``, those that never fired among them."""
        return float((~self.high_rate(layer, rate)).double().mean())

    def to(self, device: torch.device | str) -> ActivationRates:
        to_host = torch.device(device).type == "cpu"
        return replace(self, counts={layer: on_host(counts) if to_host else counts.to(device) for layer, counts in self.counts.items()})

    def _of(self, layer: int) -> Tensor:
        if layer not in self.counts:
            raise ProfileError(
                f"No activation rates for layer {layer}",
                f"rates of layers {self.layers}",
                f"layer {layer}",
                "calibrate again with this layer",
            )
        return self.counts[layer]


def activation_rates(
    generator: Generator,
    layers: Iterable[LayerLike],
    samples: int = PAPER_SAMPLES,
    seed: int = 0,
    *,
    sampling: Sampling | None = None,
    progress: Progress = silent,
) -> ActivationRates:
    """Activation rates (equation 1 of the paper), in one streaming pass over only the layers needed; of the ids 0 … samples − 1 of the
    seed, drawn by default without truncation.

    Raises:
        InputError: fewer than one sample, or activations that are not finite.
        LayerError: no such layer.
    """
    return deque(growing_rates(generator, layers, samples, seed, sampling=sampling, progress=progress), maxlen=1).pop().to("cpu")


def growing_rates(
    generator: Generator,
    layers: Iterable[LayerLike],
    samples: int,
    seed: int,
    *,
    sampling: Sampling | None = None,
    begun: ActivationRates | None = None,
    progress: Progress = silent,
) -> Iterator[ActivationRates]:
    """`activation_rates` as they grow: after each micro-batch the rates of all samples so far, on the generator's device. The counts grow
    in place: read them before asking for the next ones. ``begun`` are rates of the first samples, whole micro-batches, to go on from; they
    are given first."""
    if samples < 1:
        raise InputError("Activation rates need samples", str(samples), "at least 1; the paper uses 30,000")
    indices, sampling = generator.layer_indices(layers), sampling or Sampling()
    shapes = {index: (one.units, one.height, one.width) for index, one in enumerate(generator.layers) if index in indices}
    finite = torch.ones((), dtype=torch.bool, device=generator.device)
    first, counts = 0, {index: torch.zeros(shape, dtype=torch.int64, device=generator.device) for index, shape in shapes.items()}
    if begun is not None:
        first = begun.samples
        for index, total in counts.items():
            total += begun.counts[index].to(generator.device)
        yield ActivationRates(counts, first, seed, sampling)
        progress(first)
    micro_batch = generator.micro_batch
    chunk = 16 * micro_batch
    for start in range(first, samples, chunk):
        latents = sample_latents(generator, range(start, min(start + chunk, samples)), seed, sampling=sampling)
        for rows, index, activation in generator.activations(latents, indices, progress=progress):
            active, all_finite = _count_active(activation)
            counts[index] += active
            finite &= all_finite
            whole = rows.stop == len(latents) or not rows.stop % micro_batch  # not half of a batch that memory was short for
            if index == indices[-1] and whole:
                _refuse_unless(finite)  # one wait for all layers
                yield ActivationRates(counts, start + rows.stop, seed, sampling)


def count_active(activation: Tensor) -> Tensor:
    """Active samples of each neuron, int64 (units, height, width). Raises `InputError` where an activation is NaN or infinite, so that
    "active" has no meaning."""
    total, finite = _count_active(activation)
    _refuse_unless(finite)
    return total


def _count_active(activation: Tensor) -> tuple[Tensor, Tensor]:
    """Active samples of each neuron, and whether all activations are finite, both on the device."""
    active = _active(activation)
    # the sum over samples is ten times faster on a view in the order of memory
    total = active.permute(2, 3, 0, 1).sum(2).permute(2, 0, 1) if active.stride(1) == 1 else active.sum(0)
    return total.to(torch.int64), finite_samples(activation).all()


def _refuse_unless(finite: Tensor) -> None:
    if not on_host(finite):
        raise InputError(
            "The generator's activations are not finite",
            "NaN or infinity inside the generator",
            "finite activations",
            "check the weights and the range of the latents",
        )


def finite_samples(activation: Tensor) -> Tensor:
    """Which samples have no NaN or infinity: bool (N,). One read of the activation."""
    return torch.isfinite(activation.sum(dim=(1, 2, 3), dtype=torch.float32))


def _active(activation: Tensor) -> Tensor:
    """1 where active and 0 elsewhere, in float32: ready for exact sums by matrix products (exact up to 2**24 neurons)."""
    return torch.gt(activation, 0, out=torch.empty_like(activation, dtype=torch.float32))


class LowRateCounter:
    """Counts of active low-rate neurons at several rates at once. The masks of all rates are the rows of one matrix, so that a single
    product with the layer's 0/1 activity counts everything in one read of it. Families store activations in different orders; the masks
    follow, so that the product never needs a copy."""

    def __init__(self, rates: ActivationRates, at: Sequence[float], device: torch.device | str, layers: Sequence[int]) -> None:
        self._masks = {
            layer: torch.stack([rates.never_seen(layer), *(rates.low_rate(layer, rate) for rate in at)]).to(device, torch.float32)
            for layer in layers
        }
        self._in_order: dict[tuple[int, tuple[int, ...]], Tensor] = {}

    def __call__(self, layer: int, activation: Tensor) -> Tensor:
        """Counts (N, 1 + len(at)) int64 of one layer's activation (N, units, height, width): never-seen neurons that are active,
        then active low-rate ones at each R."""
        active = _active(activation)
        order = tuple(sorted(range(4), key=active.stride, reverse=True))
        # what lies outside of the samples in memory is a batch of products, what lies inside is summed by each of them
        samples = order.index(0)
        matrices = active.permute(order).unsqueeze(0).flatten(0, samples).flatten(2)
        if (layer, order) not in self._in_order:  # the masks, as (outside, 1 + len(at), inside)
            masks = self._masks[layer].permute(order).unsqueeze(0)
            self._in_order[layer, order] = masks.flatten(0, samples).flatten(2).contiguous()
        # masks on the left: a few rows by many columns is twice as fast as many rows by a few columns
        counts = (self._in_order[layer, order] @ matrices.mT).sum(dim=0).T
        return counts.round().to(torch.int64)


def low_rate_counts(
    generator: Generator,
    latents: Latents | Tensor,
    rates: ActivationRates,
    rate: float = PAPER_RATE,
    layers: Iterable[LayerLike] | None = None,
    progress: Progress = silent,
) -> Tensor:
    """Active low-rate neurons at R = ``rate`` of N samples, latents or a bare z (N, D), at each layer (by default all that the rates of the
    untouched generator know): int64 (N, number of layers), in order of synthesis. The paper's score of a sample is the sum over the early
    layers."""
    indices = rates.layers if layers is None else generator.layer_indices(layers)
    counter = LowRateCounter(rates, (rate,), generator.device, indices)
    counts = torch.empty(len(generator.checked(latents)), len(indices), dtype=torch.int64)
    for rows, layer, activation in generator.activations(latents, indices, progress=progress):
        counts[rows, indices.index(layer)] = on_host(counter(layer, activation)[:, 1])
    return counts


def low_rate_heatmap(
    generator: Generator,
    latents: Latents | Tensor,
    rates: ActivationRates,
    rate: float = PAPER_RATE,
    layers: Iterable[LayerLike] | None = None,
    edits: Mapping[int, Edit] | None = None,
) -> Tensor:
    """Where in the image the low-rate neurons fire: float32 (N, height, width) in [0, 1], at the size of the image. At each
    position of a layer the share of units whose neuron there is low-rate and active; bilinear to the image; mean over layers. Arguments as
    of `low_rate_counts`; with edits, what is active after them."""
    indices = rates.layers if layers is None else generator.layer_indices(layers)
    masks = {index: rates.low_rate(index, rate).to(generator.device) for index in indices}
    size = generator.image_shape[1:]
    heat = torch.zeros(len(generator.checked(latents)), *size)
    for rows, layer, activation in generator.activations(latents, indices, edits):
        share = ((activation > 0) & masks[layer]).float().mean(dim=1, keepdim=True)
        heat[rows] += on_host(F.interpolate(share, size=size, mode="bilinear", align_corners=False)[:, 0])
    return heat / len(indices)
