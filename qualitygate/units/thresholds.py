"""From which activation on a unit counts as firing strongly: a quantile of each unit, in one pass and bounded memory.

The bins are read off the numbers themselves: the leading bits of a float32 are its sign, its exponent and the beginning of its mantissa,
and grow with its value. With 7 bits of mantissa a bin is at most 1/128 of its value wide. Counts of two halves of the samples
simply add up.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from qualitygate.errors import InputError
from qualitygate.generators.base import Generator, LayerLike, read_layers
from qualitygate.generators.passes import Progress, micro_batches, scored_pass, silent
from qualitygate.latents import Latents

SHARE = 0.005
"""The paper's τ: share of a unit's activations that are beyond its threshold."""

_DROPPED = 16  # bits of a float32 below its first 7 of mantissa
_LEAST, _MOST = 2.0**-16, 2.0**16  # nearer to 0 is 0; beyond is one last bin
_BINS = 32 * 128  # of one sign: so many factors of 2, in so many parts each
_AT_ONCE = 2**24  # activations whose bins are held at once
_ZERO = _BINS + 1  # bin of what is nearly 0; those of negative values are below


class UnitQuantiles:
    """How the activations of each unit of a layer are distributed: 64 kB of counts a unit, however many samples.

    Args:
        units: units of the layer.
        device: where the activations are.
    """

    def __init__(self, units: int, device: torch.device | str) -> None:
        self._counts = torch.zeros(units, 2 * _ZERO + 1, dtype=torch.int64, device=device)

    def add(self, activation: Tensor) -> None:
        """Count the activations (N, units, height, width) of some samples.

        Raises:
            InputError: one of them is not finite.
        """
        if not torch.isfinite(activation.sum()):
            raise InputError(
                "The generator's activations are not finite",
                "NaN or infinity inside the generator",
                "finite activations",
                "check the weights",
            )
        units = len(self._counts)
        first = torch.arange(units, device=activation.device)[:, None, None] * self._counts.shape[1]
        for part in activation.float().split(max(1, _AT_ONCE // activation[0].numel())):
            bins = (_bin(part) + first).flatten()
            self._counts += torch.bincount(bins, minlength=self._counts.numel()).view_as(self._counts)

    def above(self, share: float) -> Tensor:
        """Threshold of each unit, float32 (units,) on the CPU: just below the bin of the least value that at most ``share`` of its
        activations exceed.

        So it is below that value, by less than 1/128 of it (for values of a size from 2⁻¹⁶ to 2¹⁶): a unit that is clamped, or has one
        value again and again, exceeds it where it has that value. A unit that fires more rarely has the threshold 0.
        """
        allowed = (self._counts.sum(dim=1, keepdim=True).double() * share).long()
        beyond = self._counts.flip(1).cumsum(dim=1).flip(1) - self._counts  # activations in higher bins
        return _just_below((beyond <= allowed).to(torch.int8).argmax(dim=1).cpu())


def unit_thresholds(
    generator: Generator, latents: Latents, layers: Iterable[LayerLike], share: float = SHARE, progress: Progress = silent
) -> dict[int, Tensor]:
    """Threshold of every unit by layer, float32 (units,): what about ``share`` of its activations, over all samples and positions, exceed
    (T_u of the defective score); see `UnitQuantiles.above` for how exactly.

    Args:
        generator: the generator.
        latents: samples as they come; among artifacts only, what fires for all of them would count as ordinary.
        layers: layers to measure.
        share: the paper's τ = 0.005.
        progress: called after each micro-batch.

    Raises:
        InputError: a share out of range, no samples, or activations that are not finite.
        LayerError: no such layer.
    """
    if not 0.0 < share < 1.0 or not len(latents):
        raise InputError(
            "Thresholds cannot be measured so", f"share {share}, {len(latents)} samples", "a share in (0, 1) and at least one sample"
        )
    indices = generator.layer_indices(layers)
    quantiles = {layer: UnitQuantiles(generator.layers[layer].units, generator.device) for layer in indices}
    with scored_pass():
        for rows, batch in micro_batches(latents):
            valid = rows.stop - rows.start
            for layer, activation in read_layers(generator, batch, indices):
                quantiles[layer].add(activation[:valid])
            progress(valid)
    return {layer: of_layer.above(share) for layer, of_layer in quantiles.items()}


def _bin(values: Tensor) -> Tensor:
    """Number of the bin of each value, int64: negative values from the largest on, 0, positive values."""
    size = values.abs().clamp(max=_MOST)
    steps = (size.view(torch.int32) >> _DROPPED).long() - _first_step()
    magnitude = torch.where(size < _LEAST, 0, steps + 1)
    return _ZERO + torch.where(values < 0, -magnitude, magnitude)


def _just_below(bins: Tensor) -> Tensor:
    """The largest float32 below everything in the bin; 0 for the bin of 0."""
    magnitude = bins - _ZERO
    # a positive bin begins at its own step, a negative one reaches down to where the next larger size begins
    steps = torch.where(magnitude > 0, magnitude - 1, -magnitude) + _first_step()
    edge = (steps.int() << _DROPPED).view(torch.float32)
    positive = torch.nextafter(edge, torch.zeros(()))
    return torch.where(magnitude == 0, 0.0, torch.where(magnitude > 0, positive, -edge))


def _first_step() -> int:
    return int(torch.tensor(_LEAST).view(torch.int32)) >> _DROPPED
