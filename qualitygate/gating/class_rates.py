"""Activation rates class by class: in a generator of several modes, a neuron that is rare over all may be a mode's own.

A policy cannot ask for these counts: the class of an unconditional generator's sample is known only once its image is made. Where the
generator is conditional, a profile of one class (`qualitygate calibrate --label`) comes to the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from qualitygate.gating.scoring import Scorer
from qualitygate.generators.base import Generator, read_layers
from qualitygate.generators.passes import Progress, micro_batches, scored_pass, silent
from qualitygate.latents import Latents
from qualitygate.scores.low_rate import ActivationRates


def class_rates(
    generator: Generator, latents: Latents, classes: np.ndarray, layers: Sequence[int], progress: Progress = silent
) -> dict[int, ActivationRates]:
    """Activation rates of each class that has samples, in one pass.

    Args:
        generator: the generator.
        latents: N samples.
        classes: int64 (N,), from 0.
        layers: layers to estimate.
        progress: called with samples done.
    """
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(classes)).float().to(generator.device)
    counts: dict[int, Tensor] = {}
    with scored_pass():
        for rows, batch in micro_batches(latents):
            valid = rows.stop - rows.start
            for layer, activation in read_layers(generator, batch, layers):
                active = (activation[:valid] > 0).float()
                found = torch.einsum("nk,nuyx->kuyx", one_hot[rows], active).round().long().cpu()
                counts[layer] = counts[layer] + found if layer in counts else found
            progress(valid)
    seed, sampling = latents.seed or 0, latents.sampling
    sizes = np.bincount(classes)
    return {
        k: ActivationRates({layer: of_layer[k] for layer, of_layer in counts.items()}, int(size), seed, sampling)
        for k, size in enumerate(sizes)
        if size
    }


def class_counts(
    generator: Generator,
    latents: Latents,
    classes: np.ndarray,
    rates: dict[int, ActivationRates],
    at: Sequence[float],
    layers: Sequence[int],
) -> dict[str, np.ndarray]:
    """Low-rate counts of each sample against the rates of its class, as columns by layer: float64 (N,), NaN where a class has no rates."""
    columns: dict[str, np.ndarray] = {}
    with scored_pass():
        for k, own in rates.items():
            rows = np.flatnonzero(classes == k)
            score = Scorer(generator, own.to(generator.device), at, layers)
            for part, batch in micro_batches(latents[rows]):
                for name, values in score(batch, part.stop - part.start)[0].items():
                    columns.setdefault(name, np.full(len(classes), np.nan))[rows[part]] = values
    return columns
