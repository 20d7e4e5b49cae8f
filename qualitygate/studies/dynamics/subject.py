"""The figure of the CLA paper's section 3.2: one neuron of one sample, followed through the snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from qualitygate import storage
from qualitygate.errors import InputError
from qualitygate.generators.base import Generator
from qualitygate.generators.passes import scored_pass
from qualitygate.latents import Latents
from qualitygate.records.patterns import Neuron, PatternColumn
from qualitygate.scores.local_activation import local_activation
from qualitygate.studies.dynamics.measure import Scores, Settings, fixed_latents
from qualitygate.studies.dynamics.pattern import axis_pattern, plane_pattern
from qualitygate.studies.dynamics.summary import rising_units


@dataclass(frozen=True)
class Subject:
    """What is followed: a neuron, for one of the fixed latents, over the plane of two axes."""

    sample: int
    neuron: Neuron
    axes: tuple[int, int]


def find_subject(
    generator: Generator, course: Sequence[Scores], settings: Settings, layer: int | None = None, unit: int | None = None
) -> Subject:
    """The unit whose CLA rose most (or the one that is given), the sample and position where it is greatest in the last snapshot,
    and the two axes on which the pattern there is most local.

    Args:
        generator: of the last snapshot.
        course: the scores of the snapshots; the last one is the generator's.
        settings: that they were scored with.
        layer, unit: the unit to follow; default: found.

    Raises:
        InputError: CLA of the layer is not known, or it has no such unit.
    """
    last = course[-1]
    layer = max(last.unit_cla) if layer is None else layer
    if layer not in last.unit_cla:
        raise InputError("CLA of this layer was not scored", f"layer {layer}", f"one of {sorted(last.unit_cla)}")
    if unit is None:
        unit = rising_units(course, layer, 1)[0][0]
    of_samples = last.unit_cla[layer]
    _check_unit(unit, of_samples.shape[1])
    sample = int(of_samples[:, unit].argmax())
    latents = fixed_latents(generator, settings)[[sample]]
    neuron = greatest_neuron(generator, latents, layer, unit, settings.chosen_axes(generator.latent_size))
    axes = axis_pattern(generator, latents, neuron).by_local_activation().axes
    return Subject(sample, neuron, (int(axes[0]), int(axes[1])))


def greatest_neuron(
    generator: Generator, latents: Latents, layer: int, unit: int | None = None, axes: Sequence[int] | None = None
) -> Neuron:
    """The neuron of a layer, or of one of its units, with the greatest part in the CLA of one sample.

    Args:
        axes: of z, that CLA is averaged over; default: all.

    Raises:
        InputError: the layer has no such unit.
    """
    parts = local_activation(generator, latents, [layer], axes=axes).neuron_score(layer)[0]
    _check_unit(unit, len(parts))
    if unit is not None:
        parts = torch.where(torch.arange(len(parts))[:, None, None] == unit, parts, -1.0)
    place = np.unravel_index(int(parts.argmax()), parts.shape)
    return Neuron(layer, int(place[0]), int(place[1]), int(place[2]))


def _check_unit(unit: int | None, units: int) -> None:
    if unit is not None and not 0 <= unit < units:
        raise InputError("The layer has no such unit", f"unit {unit}", f"0 … {units - 1}")


def pattern_column(generator: Generator, subject: Subject, settings: Settings, title: str) -> PatternColumn:
    """What the figure shows of one snapshot.

    Raises:
        InputError: the snapshot does not have the neuron.
    """
    latents = fixed_latents(generator, settings)[[subject.sample]]
    plane = plane_pattern(generator, latents, subject.neuron, subject.axes)
    layer = subject.neuron.layer
    axes = settings.chosen_axes(generator.latent_size)
    parts = local_activation(generator, latents, [layer], axes=axes).neuron_score(layer)
    return PatternColumn(title, plane.values, image_of(generator, latents), parts[0, subject.neuron.unit].numpy())


def image_of(generator: Generator, latents: Latents) -> np.ndarray:
    """The image of one sample, uint8 (height, width, channels)."""
    with scored_pass():
        return storage.to_uint8(generator(latents)[0].cpu().numpy())
