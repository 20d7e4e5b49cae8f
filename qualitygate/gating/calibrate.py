"""Calibration: activation rates from many latents, scores of others, and what each unit does. Once per checkpoint."""

from __future__ import annotations

from typing import Any

import numpy as np

import qualitygate
from qualitygate import names
from qualitygate.gating.cost import affordable_policy
from qualitygate.gating.passes import Passes
from qualitygate.gating.pilot import PilotTable
from qualitygate.gating.profile import Chain, Profile, ProfileInfo, calibrated_layers, correction_layers, profile_id, score_summary
from qualitygate.gating.unit_curvature import ExactCurvature, exact_unit_curvature
from qualitygate.generators.base import Generator, sample_latents
from qualitygate.generators.passes import Reporter
from qualitygate.latents import Sampling
from qualitygate.policy.model import Policy
from qualitygate.policy.suite import make_suite
from qualitygate.scores.low_rate import ActivationRates
from qualitygate.units.from_activations import low_rate_activity

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
