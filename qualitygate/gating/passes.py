"""The two long passes of a calibration, both of which go on where they were cut off: activation rates, and scores of other samples."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

import qualitygate
from qualitygate.errors import InputError
from qualitygate.gating.profile import Chain, detection_layers
from qualitygate.gating.scoring import Scorer, add_totals, scored
from qualitygate.gating.unfinished import Unfinished
from qualitygate.generators.base import Generator, sample_latents
from qualitygate.generators.passes import Reporter
from qualitygate.latents import Sampling
from qualitygate.policy.model import Policy
from qualitygate.scores.low_rate import ActivationRates, growing_rates

_SAMPLES = "samples"


class Passes:
    """The passes of one calibration. Whatever stops them, the numbers of the next run are those of one that was never stopped.

    Args:
        generator: the generator.
        checkpoint: SHA-256 of what it is.
        policy: says how many samples, which R, and whether moments are needed.
        sampling: how latents are drawn.
        layers: layers to calibrate, as indices.
        reporter: shows progress.
    """

    def __init__(
        self, generator: Generator, checkpoint: str, policy: Policy, sampling: Sampling, layers: tuple[int, ...], reporter: Reporter
    ) -> None:
        self._generator, self._policy, self._sampling = generator, policy, sampling
        self._layers, self._reporter = layers, reporter
        alike: dict[str, Any] = {
            "package": qualitygate.__version__,
            "torch": torch.__version__,
            "device": str(generator.device),
            "checkpoint": checkpoint,
            "sampling": sampling.model_dump(mode="json"),
            "seed": policy.calibration.seed,
            "layers": list(layers),
            "rate_samples": policy.calibration.rate_samples,
        }
        self._rates = Unfinished("rates", alike)
        self._scores = Unfinished(
            "scores",
            alike | {"score_samples": policy.calibration.score_samples, "rates": list(policy.detection.rates), "moments": policy.screens},
        )

    def rates(self) -> ActivationRates:
        """Activation rates, from the first ids of the calibration's seed.

        Raises:
            InputError: activations that are not finite.
        """
        settings, seen = self._policy.calibration, 0
        begun = self._rates.begun()
        with self._reporter.phase("activation rates", settings.rate_samples) as progress:
            for rates in growing_rates(
                self._generator,
                self._layers,
                settings.rate_samples,
                settings.seed,
                sampling=self._sampling,
                begun=None if begun is None else self._rates_of(begun),
            ):
                self._rates.keep(partial(_arrays_of, rates))
                progress(rates.samples - seen)
                seen = rates.samples
        return rates.to("cpu")

    def scores(self, rates: ActivationRates) -> dict[str, np.ndarray]:
        """Scores of the samples after those of the rates, same seed, as columns of float64; with sums over the detection layers.

        Raises:
            InputError: activations that are not finite.
        """
        settings, at = self._policy.calibration, self._policy.detection.rates
        score = Scorer(self._generator, rates, at, rates.layers, moments=self._policy.screens)
        begun = self._scores.begun()
        parts: list[Mapping[str, np.ndarray]] = [] if begun is None else [begun]
        done = 0 if begun is None else len(begun[score.columns[0]])
        ids = range(settings.rate_samples, settings.rate_samples + settings.score_samples)
        latents = sample_latents(self._generator, ids[done:], settings.seed, sampling=rates.sampling)
        with self._reporter.phase("scores", len(ids)) as progress:
            progress(done)
            for part in scored(score, latents):
                parts.append(part)
                self._scores.keep(partial(_joined, parts, score.columns))
                progress(len(part[score.columns[0]]))
        columns = _joined(parts, score.columns)
        if broken := [name for name, values in columns.items() if not np.isfinite(values).all()]:
            raise InputError(
                "The generator's activations are not finite",
                f"NaN or infinity behind {', '.join(broken[:4])}",
                "finite activations",
                "check the weights",
            )
        add_totals(columns, at, detection_layers(self._policy, Chain.of(self._generator)))
        return columns

    def finished(self) -> None:
        """All that a calibration learns is there: nothing has to be gone on with."""
        self._rates.remove()
        self._scores.remove()

    def _rates_of(self, begun: Mapping[str, np.ndarray]) -> ActivationRates:
        counts = {layer: torch.from_numpy(begun[str(layer)]) for layer in self._layers}
        return ActivationRates(counts, int(begun[_SAMPLES][0]), self._policy.calibration.seed, self._sampling)


def _arrays_of(rates: ActivationRates) -> dict[str, np.ndarray]:
    counts = {str(layer): counts.cpu().numpy() for layer, counts in rates.counts.items()}
    return {_SAMPLES: np.array([rates.samples]), **counts}


def _joined(parts: list[Mapping[str, np.ndarray]], columns: list[str]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in columns}
