"""Unit scores from activations alone: low-rate activity (Choi, Chang, Choi 2022) and curvature (Jeong, Han, Choi 2022)."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from qualitygate import names
from qualitygate.corrections.attenuation import own_low_rate_activity
from qualitygate.generators.base import Generator, LayerLike
from qualitygate.generators.passes import Progress, silent
from qualitygate.latents import Latents
from qualitygate.scores.local_activation import LocalActivation, local_activation
from qualitygate.scores.low_rate import PAPER_RATE, ActivationRates
from qualitygate.units.score import UnitScores
from qualitygate.units.table import UnitInputs, UnitScore


def low_rate_activity(rates: ActivationRates, rate: float = PAPER_RATE) -> UnitScores:
    """Low-rate activity of every unit: the mean over samples of the share of its positions that are low-rate and active. Over the latents
    of the estimate it follows from the rates: no pass is needed."""
    scores = {layer: (rates.rates[layer] * rates.low_rate(layer, rate)).mean(dim=(1, 2)) for layer in rates.layers}
    return UnitScores.of_layers(scores, names.UNIT_LOW_RATE, {"rate": rate, "samples": rates.samples})


def low_rate_activity_of(
    generator: Generator,
    latents: Latents | Tensor,
    rates: ActivationRates,
    rate: float = PAPER_RATE,
    layers: Iterable[LayerLike] | None = None,
    progress: Progress = silent,
) -> UnitScores:
    """Low-rate activity over given samples, latents or a bare z (N, D), for example those that someone found to be artifacts; of all layers
    that the rates know, unless others are given."""
    indices = rates.layers if layers is None else generator.layer_indices(layers)
    of_samples = own_low_rate_activity(generator, latents, rates, rate, indices, progress)
    scores = {layer: one.mean(dim=0) for layer, one in of_samples.items()}
    return UnitScores.of_layers(scores, names.UNIT_LOW_RATE, {"rate": rate, "samples": len(latents)})


def curvature(local: LocalActivation) -> UnitScores:
    """CLA of every unit: the mean over samples and positions of its neurons' parts of the sample score."""
    scores = {layer: of_samples.mean(dim=0) for layer, of_samples in local.unit_score.items()}
    return UnitScores.of_layers(scores, names.UNIT_CLA, {"samples": len(next(iter(local.activation.values())))})


def _low_rate(inputs: UnitInputs) -> UnitScores:
    with inputs.reporter.phase("low-rate activity", len(inputs.artifacts)) as progress:
        return low_rate_activity_of(inputs.generator, inputs.artifacts, inputs.rates, inputs.rate, progress=progress)


def _curvature(inputs: UnitInputs) -> UnitScores:
    artifacts = inputs.artifacts[: inputs.curvature]
    with inputs.reporter.phase("exact CLA", len(artifacts)) as progress:
        return curvature(local_activation(inputs.generator, artifacts, inputs.layers, progress=progress))


LOW_RATE, CURVATURE = UnitScore("low_rate", _low_rate), UnitScore("cla", _curvature)
