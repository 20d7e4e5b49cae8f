"""The walk over the grid: passes of moved latents, of which only the curvature, summed over the axes, is kept.

A pass takes some axes of some samples with all their grid points. What it gives is folded part by part as it comes, so the activations
of the grid never exist all at once. How many axes and samples go together follows from the memory; where that runs out all the
same, half as many do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from qualitygate.generators.base import Generator, read_layers
from qualitygate.generators.passes import scored_pass
from qualitygate.latents import Latents
from qualitygate.scores.curvature import Grid, curvature
from qualitygate.scores.precision import Passes

_LIVE = 6  # copies of a layer's activation that a pass and its reading hold at their peak, buffers of a convolution included
_CPU_MEMORY = 2**30  # bytes a walk on the CPU may use unless told otherwise
_CPU_ROWS, _GPU_ROWS = 2000, 2**14  # in a pass: enough for products at their full rate


@dataclass(frozen=True)
class Walk:
    """What stays the same in all passes.

    Attributes:
        generator: gives the moved latents, and the activations at the samples.
        passes: the layers, at some precision.
        layers: indices of the layers that are read.
        axes: int64 (A,) on the generator's device: the axes of the mean.
        grid: points on each of them.
    """

    generator: Generator
    passes: Passes
    layers: tuple[int, ...]
    axes: Tensor
    grid: Grid

    def over(self, latents: Latents, memory: int | None) -> Iterator[tuple[dict[int, Tensor], dict[int, Tensor]]]:
        """Mean curvature and activation of each neuron by layer, float32 (n, units, height, width) on the CPU, of a few samples at a time.

        Args:
            latents: the samples.
            memory: bytes to use, see `local_activation`.
        """
        rays, done = self._rays(memory), 0
        while done < len(latents):
            few = latents[done : done + max(1, rays // len(self.axes))]
            try:
                result = self._of_few(self.generator.checked(few).to(self.generator.device), rays)
            except (RuntimeError, MemoryError) as error:
                rays = min(rays, len(few) * len(self.axes)) // 2
                if not rays or not _out_of_memory(error):
                    raise
                continue
            yield result
            done += len(few)

    def _rays(self, memory: int | None) -> int:
        """How many axes, of one or more samples, go into a pass."""
        device = self.generator.device
        widest = max(layer.neurons for layer in self.generator.layers[: max(self.layers) + 1])
        rows = (_half_of_free(device) if memory is None else memory) // (_LIVE * widest * self.passes.bytes)
        return max(1, min(rows, _CPU_ROWS if device.type == "cpu" else _GPU_ROWS) // (2 * len(self.grid.distances)))

    def _of_few(self, latents: Latents, rays: int) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """Axes that cannot reach a layer add exactly 0 there: they are not walked, and still counted in the mean."""
        with scored_pass():
            at_sample = dict(read_layers(self.generator, latents, self.layers))
        reaching = torch.tensor(self.generator.axes_reaching(max(self.layers)), device=self.axes.device)
        total = {index: torch.zeros_like(activation) for index, activation in at_sample.items()}
        with self.passes.running():
            for axes in self.axes[torch.isin(self.axes, reaching)].split(max(1, rays // len(latents))):
                for index, summed in self._one_pass(latents, at_sample, axes).items():
                    total[index] += summed
        mean = {index: (summed / len(self.axes)).cpu().contiguous() for index, summed in total.items()}
        return mean, {index: activation.cpu().contiguous() for index, activation in at_sample.items()}

    def _one_pass(self, latents: Latents, at_sample: Mapping[int, Tensor], axes: Tensor) -> dict[int, Tensor]:
        """Sum over some axes of the curvature of every neuron by layer: float32 (n, units, height, width)."""
        distances = self.grid.signed(axes.device)
        shape = (*distances.shape, len(latents), len(axes))
        start = {index: activation.flatten(2).transpose(1, 2).contiguous() for index, activation in at_sample.items()}
        total = {index: torch.empty_like(activation) for index, activation in start.items()}
        for part in self.passes.parts(self.generator.begin_moved(latents, axes, distances.flatten()), max(self.layers)):
            if part.layer in start:
                here = start[part.layer][:, part.positions]
                along = part.activation.unflatten(0, shape)
                total[part.layer][:, part.positions] = curvature(along, here, distances).sum(dim=1)
        return {index: summed.transpose(1, 2).view_as(at_sample[index]) for index, summed in total.items()}


def _half_of_free(device: torch.device) -> int:
    if device.type != "cuda":
        return _CPU_MEMORY
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by the allocator, for us to use again
    return (torch.cuda.mem_get_info(device)[0] + kept) // 2


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
