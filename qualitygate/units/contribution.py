"""What each unit adds to the discriminator's value of an image (Jeong, Han, Choi, AAAI 2022, section 5.1).

The part of neuron ``i`` in ``D(G(z))``, linearised at ``z``, is ``(∂D(G(z))/∂h_i)·h_i``. Negative means that the discriminator counts it
against realism. One backward pass gives it at every layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.generators.base import Discriminator, Generator, LayerLike
from qualitygate.generators.passes import IMAGE_BATCH, Progress, micro_batches, on_host, silent
from qualitygate.latents import Latents
from qualitygate.units.score import UnitScores
from qualitygate.units.table import UnitInputs, UnitScore


@dataclass(frozen=True)
class Contributions:
    """The discriminator's value of each image, float64 (N,), and what each unit adds to it: by layer, float32 (N, units), the sum over the
    unit's neurons of ``(∂D/∂h)·h``."""

    value: Tensor
    parts: Mapping[int, Tensor]

    @property
    def mean(self) -> UnitScores:
        """The negative mean over the samples: the more a unit lowers the value, the more it is suspected."""
        scores = {layer: -of_samples.double().mean(dim=0) for layer, of_samples in self.parts.items()}
        return UnitScores.of_layers(scores, names.UNIT_CONTRIBUTION, {"samples": len(self.value)})


def contributions(
    generator: Generator,
    discriminator: Discriminator,
    latents: Latents | Tensor,
    layers: Iterable[LayerLike] | None = None,
    progress: Progress = silent,
) -> Contributions:
    """Contributions of every unit of the given layers (by default all) for N samples.

    The image is the family's raw one, before it is clamped. A discriminator that measures how the batch varies (PGGAN, StyleGAN2)
    makes a sample's numbers depend on those it is computed with, as its value does. Raises `InputError` without samples or for a
    discriminator of images of another shape.
    """
    if not len(latents) or discriminator.image_shape != generator.image_shape:
        found = f"{len(latents)} samples, images {generator.image_shape} for one of {discriminator.image_shape}"
        raise InputError("The discriminator cannot judge these samples", found, "at least one sample, images of one shape")
    indices = tuple(layer.index for layer in generator.layers) if layers is None else generator.layer_indices(layers)
    values: list[Tensor] = []
    parts: dict[int, list[Tensor]] = {layer: [] for layer in indices}
    for rows, batch in micro_batches(generator.checked(latents), IMAGE_BATCH):
        value, of_layers = _one_pass(generator, discriminator, batch, indices, rows.stop - rows.start)
        values.append(value)
        for layer, part in of_layers.items():
            parts[layer].append(part)
        progress(len(value))
    return Contributions(torch.cat(values), {layer: torch.cat(part) for layer, part in parts.items()})


def _one_pass(
    generator: Generator, discriminator: Discriminator, batch: Latents, indices: tuple[int, ...], valid: int
) -> tuple[Tensor, dict[int, Tensor]]:
    seen: dict[int, Tensor] = {}

    def keep(layer: int, activation: Tensor) -> Tensor:
        # a copy that takes part in the rest, so that nothing downstream can change it in place
        seen[layer] = activation.clone() if activation.requires_grad else activation.clone().requires_grad_()
        return seen[layer]

    with generator.scored_pass(), torch.enable_grad():
        state = generator.run(generator.start(batch), generator.layers[-1].index, {layer: partial(keep, layer) for layer in indices})
        labels = None if batch.labels is None else batch.labels.to(generator.device)
        value = discriminator(generator.finish(state).float(), labels if discriminator.label_size else None)[:valid]
        gradients = torch.autograd.grad(value.sum(), [seen[layer] for layer in indices])
    return on_host(value.detach().double()), {
        layer: on_host((gradient * seen[layer]).detach()[:valid].sum(dim=(2, 3)))
        for layer, gradient in zip(indices, gradients, strict=True)
    }


def _of_artifacts(inputs: UnitInputs) -> UnitScores:
    with inputs.reporter.phase("contributions", len(inputs.artifacts)) as progress:
        return contributions(inputs.generator, inputs.discriminator, inputs.artifacts, inputs.layers, progress).mean


CONTRIBUTION = UnitScore("contribution", _of_artifacts, needs=("discriminator",))
