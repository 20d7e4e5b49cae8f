"""Unit scores from activations alone: low-rate activity and curvature of local activation."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from qualitygate import names
from qualitygate.generators.base import Generator, LayerLike, read_layers
from qualitygate.generators.passes import Progress, micro_batches, scored_pass, silent
from qualitygate.latents import Latents
from qualitygate.scores.local_activation import LocalActivation
from qualitygate.scores.low_rate import PAPER_RATE, ActivationRates
from qualitygate.units.score import UnitScores


def low_rate_activity(rates: ActivationRates, rate: float = PAPER_RATE) -> UnitScores:
    """Low-rate activity of every unit: the mean over samples of the share of its positions that are low-rate and active (Choi, Chang,
    Choi 2022). Over the latents of the estimate it follows from the rates: no pass is needed.

    Args:
        rates: activation rates of the untouched generator.
        rate: R.
    """
    scores = {layer: (rates.rates[layer] * rates.low_rate(layer, rate)).mean(dim=(1, 2)) for layer in rates.layers}
    return UnitScores.of_layers(scores, names.UNIT_LOW_RATE, {"rate": rate, "samples": rates.samples})


def low_rate_activity_of(
    generator: Generator,
    latents: Latents,
    rates: ActivationRates,
    rate: float = PAPER_RATE,
    layers: Iterable[LayerLike] | None = None,
    progress: Progress = silent,
) -> UnitScores:
    """Low-rate activity over given samples, for example those that someone found to be artifacts.

    Args:
        generator: the generator.
        latents: the samples.
        rates: activation rates of the untouched generator.
        rate: R.
        layers: layers to score; by default all that the rates know.
        progress: called after each micro-batch.
    """
    indices = rates.layers if layers is None else generator.layer_indices(layers)
    masks = {layer: rates.low_rate(layer, rate).to(generator.device) for layer in indices}
    total = {layer: torch.zeros(len(mask), dtype=torch.float64) for layer, mask in masks.items()}
    with scored_pass():
        for rows, batch in micro_batches(latents):
            valid = rows.stop - rows.start
            for layer, activation in read_layers(generator, batch, indices):
                active = (activation[:valid] > 0) & masks[layer]
                total[layer] += active.double().mean(dim=(2, 3)).sum(dim=0).cpu()
            progress(valid)
    scores = {layer: sums / len(latents) for layer, sums in total.items()}
    return UnitScores.of_layers(scores, names.UNIT_LOW_RATE, {"rate": rate, "samples": len(latents)})


def curvature(local: LocalActivation) -> UnitScores:
    """CLA of every unit: the mean over samples and positions of its neurons' parts of the sample score (Jeong, Han, Choi 2022)."""
    scores = {layer: of_samples.mean(dim=0) for layer, of_samples in local.unit_score.items()}
    return UnitScores.of_layers(scores, names.UNIT_CLA, {"samples": len(next(iter(local.activation.values())))})
