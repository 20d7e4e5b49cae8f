"""Calibration: activation rates from many latents, scores of others, and what each unit does. Once per checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

import qualitygate
from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.gating.curvature import PilotTable
from qualitygate.gating.profile import (
    Chain,
    Profile,
    ProfileInfo,
    calibrated_layers,
    correction_layers,
    detection_layers,
    profile_id,
    score_summary,
)
from qualitygate.gating.scoring import Scorer, add_totals
from qualitygate.gating.unfinished import Unfinished
from qualitygate.generators.base import Generator, sample_latents
from qualitygate.generators.passes import MICRO_BATCH, Progress, Reporter, scored_pass, silent
from qualitygate.latents import Latents, Sampling
from qualitygate.policy.corrections import Limit
from qualitygate.policy.model import Policy, Rule, default_policy
from qualitygate.policy.suite import make_suite
from qualitygate.scores.local_activation import DIVISIONS, local_activation
from qualitygate.scores.low_rate import ActivationRates, growing_rates
from qualitygate.scores.screening import TYPICAL_PASSES
from qualitygate.scores.walk import Precision
from qualitygate.units.from_activations import low_rate_activity

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
            alike
            | {"score_samples": policy.calibration.score_samples, "rates": list(policy.detection.rates), "moments": policy.screens}
            | {"read": [score.name for score in policy.read_scores]},
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
        score = Scorer(self._generator, rates, at, rates.layers, self._policy.read_scores, moments=self._policy.screens)
        begun = self._scores.begun()
        parts: list[Mapping[str, np.ndarray]] = [] if begun is None else [begun]
        done = 0 if begun is None else len(begun[score.columns[0]])
        ids = range(settings.rate_samples, settings.rate_samples + settings.score_samples)
        latents = sample_latents(self._generator, ids[done:], settings.seed, sampling=rates.sampling)
        with self._reporter.phase("scores", len(ids)) as progress:
            progress(done)
            for part in score.over(latents):
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


@dataclass(frozen=True)
class ExactCurvature:
    """CLA of some samples, without the curvature of their single neurons, which would not fit in memory.

    Attributes:
        score: score of each sample by layer, float64 (N,).
        unit_score: mean over samples of the unit scores by layer, float64 (units,).
        unit_curvature: mean over samples of the units' plain curvature by layer, float64 (units,).
    """

    score: dict[int, Tensor]
    unit_score: dict[int, Tensor]
    unit_curvature: dict[int, Tensor]

    def columns(self, count: int) -> dict[str, np.ndarray]:
        """The scores as columns of ``count`` samples, NaN for those that have none."""
        return {
            names.cla(layer): np.pad(score.numpy(), (0, count - len(score)), constant_values=np.nan) for layer, score in self.score.items()
        }

    def unit_columns(self, layers: Sequence[int], units: Sequence[int]) -> dict[str, list[Any]]:
        """The unit scores as columns of a table with these layers and units, None where there are none."""
        return {
            name: [scores[layer][unit].item() if layer in scores else None for layer, unit in zip(layers, units, strict=True)]
            for name, scores in ((names.UNIT_CLA, self.unit_score), (names.UNIT_CLA_PLAIN, self.unit_curvature))
        }


def exact_unit_curvature(
    generator: Generator, latents: Latents, layers: Sequence[int], precision: Precision = "float32", progress: Progress = silent
) -> ExactCurvature:
    """Exact CLA at these layers, a micro-batch at a time, one walk for all of them."""
    scores: list[dict[int, Tensor]] = []
    units: list[dict[int, Tensor]] = []
    plain: list[dict[int, Tensor]] = []
    for start in range(0, len(latents), MICRO_BATCH):
        local = local_activation(generator, latents[start : start + MICRO_BATCH], layers, precision=precision, progress=progress)
        scores.append(local.score)
        units.append(local.unit_score)
        plain.append(local.unit_curvature)
    return ExactCurvature(
        _together(scores),
        {layer: rows.mean(dim=0) for layer, rows in _together(units).items()},
        {layer: rows.mean(dim=0) for layer, rows in _together(plain).items()},
    )


def _together(parts: Sequence[dict[int, Tensor]]) -> dict[int, Tensor]:
    return {layer: torch.cat([part[layer] for part in parts]) for layer in parts[0]}


AFFORDABLE = 0.1
"""Most that screening may add to the time of bare generation to be part of a default policy."""
_CURVATURE_SAMPLES = 1_000
_SEED = 0


def screening_share(generator: Generator, layer: int) -> float:
    """Seconds that screening a sample takes, as a share of those that generating it takes; measured on the generator's device."""
    latents = sample_latents(generator, range(MICRO_BATCH), _SEED)
    axes = range(min(8, generator.latent_size))
    with scored_pass():
        generating = _seconds(generator, lambda: generator(latents)) / len(latents)
        few = latents[:4]
        walking = _seconds(generator, lambda: local_activation(generator, few, [layer], axes=axes))
    a_pass = walking / (len(few) * len(axes) * DIVISIONS)
    return TYPICAL_PASSES * a_pass / generating


def affordable_policy(generator: Generator) -> Policy:
    """The family's default policy, with a rule on screened CLA where screening is affordable."""
    policy = default_policy(generator.family)
    layer = generator.presets.curvature[0]
    if screening_share(generator, layer) > AFFORDABLE:
        return policy
    return with_curvature(policy, layer)


def with_curvature(policy: Policy, layer: int, quantile: float = 0.9) -> Policy:
    """The policy with CLA of a layer screened too: what lies over the quantile is corrected."""
    rule = Rule(id="cla", score=names.cla(layer), limit=Limit(quantile=quantile))
    document = policy.model_dump()
    document["rules"] = [*document["rules"], rule.model_dump()]
    document["calibration"]["curvature_samples"] = _CURVATURE_SAMPLES
    return Policy.model_validate(document)


def _seconds(generator: Generator, work: Callable[[], object]) -> float:
    """Of one run, after one that warms up."""
    taken = 0.0
    for _ in range(2):
        start = time.perf_counter()
        work()
        if generator.device.type == "cuda":
            torch.cuda.synchronize(generator.device)
        taken = time.perf_counter() - start
    return taken


_RANKED = 256  # samples that units are ranked by where a pilot is walked anyway


def calibrate(
    generator: Generator, policy: Policy | None = None, *, sampling: Sampling | None = None, reporter: Reporter | None = None
) -> Profile:
    """Learn a checkpoint: activation rates from ``calibration.rate_samples`` latents, scores of ``calibration.score_samples`` others.

    A run that was cut off goes on: at most half a minute of rates and scores is done again, and 16 samples of a pilot.

    Args:
        generator: the generator, on the device where the work is done.
        policy: by default the family's, with screened CLA where `gating.cost` finds that affordable.
        sampling: how latents are drawn, now and when gating; by default without truncation, labels uniform.
        reporter: shows progress.

    Raises:
        InputError: activations that are not finite.
        LayerError, PolicyError: the policy does not fit the generator.
    """
    policy = policy or affordable_policy(generator)
    sampling = sampling or Sampling()
    reporter = reporter or Reporter()
    settings, at = policy.calibration, policy.detection.rates
    chain = Chain.of(generator)
    layers = calibrated_layers(policy, chain)
    origin = generator.identity()
    passes = Passes(generator, origin.sha256, policy, sampling, layers, reporter)
    rates = passes.rates()
    scores = passes.scores(rates)
    units = unit_table(rates, policy.headline_rate)
    if walked := _exact_layers(policy, chain):
        exact = _exact(generator, policy, sampling, walked, reporter)
        scores.update(exact.columns(settings.score_samples))
        units.update(exact.unit_columns(units[names.LAYER], units[names.UNIT]))
    if policy.screens:
        scores.update(_screening_pilot(generator, policy, sampling, reporter))
    info = ProfileInfo(
        profile_id=profile_id(origin.sha256, sampling, settings, layers, at),
        package_version=qualitygate.__version__,
        checkpoint=origin.name,
        checkpoint_sha256=origin.sha256,
        family=generator.family,
        settings=generator.settings,
        chain=chain,
        sampling=sampling,
        calibration=settings,
        layers=layers,
        rates=at,
        device=str(generator.device),
        scores=score_summary(scores),
        low_rate_shares={f"layer_{layer}": {names.rate(r): rates.low_rate_share(layer, r) for r in at} for layer in layers},
        files={},
    )
    suite = make_suite(policy, [rule.score for rule in policy.rules], samples=settings.score_samples)
    passes.finished()
    return Profile(info, rates, scores, units, policy, suite)


def _screening_pilot(generator: Generator, policy: Policy, sampling: Sampling, reporter: Reporter) -> dict[str, np.ndarray]:
    """Exact CLA of the first scored samples and every cheaper estimate of it, NaN for the others."""
    settings, layers = policy.calibration, policy.curvature_layers()
    ids = range(settings.rate_samples, settings.rate_samples + settings.curvature_samples)
    with reporter.phase("exact CLA and its estimates", len(ids)) as progress:
        table = PilotTable(generator, sampling, settings.seed, layers, policy.detection.curvature_precision)
        columns = table.columns(ids, progress)
    rest = settings.score_samples - len(ids)
    return {name: np.pad(values, (0, rest), constant_values=np.nan) for name, values in columns.items()}


def _exact_layers(policy: Policy, chain: Chain) -> tuple[int, ...]:
    """Layers whose exact CLA, and the units' part in it, is walked apart from a screening pilot."""
    ranked = correction_layers(policy, chain)[0] if policy.profile_curvature else ()
    scored = () if policy.screens or not policy.calibration.curvature_samples else policy.curvature_layers()
    return tuple(sorted({*ranked, *scored}))


def _exact(generator: Generator, policy: Policy, sampling: Sampling, layers: tuple[int, ...], reporter: Reporter) -> ExactCurvature:
    """Exact CLA of the first scored samples; of some of them where only units are ranked by it."""
    settings = policy.calibration
    count = min(settings.curvature_samples, _RANKED) if policy.screens else settings.curvature_samples
    ids = range(settings.rate_samples, settings.rate_samples + count)
    latents = sample_latents(generator, ids, settings.seed, sampling=sampling)
    with reporter.phase("exact CLA", count) as progress:
        return exact_unit_curvature(generator, latents, layers, policy.detection.curvature_precision, progress)


def unit_table(rates: ActivationRates, rate: float) -> dict[str, Any]:
    """One row a unit, from the rates alone: mean activation rate of its neurons, share of them that never fired, and its low-rate activity
    at R = ``rate``, the mean over samples of the share of its positions that are low-rate and active."""
    activity = low_rate_activity(rates, rate)
    parts: list[dict[str, list[Any]]] = []
    for layer in rates.layers:
        share, units = rates.rates[layer], rates.counts[layer].shape[0]
        parts.append(
            {
                names.UNIT_KEY: [names.unit_key(layer, unit) for unit in range(units)],
                names.LAYER: [layer] * units,
                names.UNIT: list(range(units)),
                names.UNIT_RATE: share.mean(dim=(1, 2)).tolist(),
                names.UNIT_DEAD: rates.never_seen(layer).double().mean(dim=(1, 2)).tolist(),
                names.UNIT_LOW_RATE: activity.of(layer).tolist(),
            }
        )
    return {name: [value for part in parts for value in part[name]] for name in parts[0]}
