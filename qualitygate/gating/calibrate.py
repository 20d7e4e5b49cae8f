"""Calibration: activation rates from many latents, scores of others, and what each unit does. Once per checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
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
    unit_column,
)
from qualitygate.gating.scoring import Scorer, add_totals, joined
from qualitygate.generators.base import Generator, sample_latents
from qualitygate.generators.families import default_rate
from qualitygate.generators.passes import Reporter, on_host
from qualitygate.latents import Sampling
from qualitygate.policy.corrections import Limit, SequentialAblation
from qualitygate.policy.model import Detection, Policy, Rule
from qualitygate.policy.suite import make_suite
from qualitygate.scores.local_activation import in_parts
from qualitygate.scores.low_rate import ActivationRates, growing_rates
from qualitygate.scores.screening import typical_passes
from qualitygate.storage import Arrays, array_cache
from qualitygate.units.from_activations import low_rate_activity

AFFORDABLE = 0.1
"""Most that screening CLA may take of the operations of generation for CLA to be computed by default."""
INTERVAL = 30.0
"""Seconds between two writes of what is unfinished, and before the first: work that takes less writes nothing."""
CACHE = array_cache("unfinished")
PILOT = {"curvature_samples": 1_000}
"""Exact scores that screening is fitted on by default."""
_RANKED = 256  # samples that units are ranked by where a pilot is walked anyway
_SAMPLES = "samples"
_QUANTILES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)


def calibrate(
    generator: Generator, policy: Policy | None = None, *, sampling: Sampling | None = None, reporter: Reporter | None = None
) -> Profile:
    """Learn a checkpoint: activation rates from ``calibration.rate_samples`` latents, scores of ``calibration.score_samples`` others.

    The work is done on the generator's device. A run that was cut off goes on, and ends with the numbers of one that was not: at most half
    a minute of rates and scores is done again, and 16 samples of a pilot.

    Args:
        policy: by default `checkpoint_policy`.
        sampling: how latents are drawn, now and when gating; by default without truncation, labels uniform.

    Raises:
        InputError: activations that are not finite.
        LayerError, PolicyError: the policy does not fit the generator.
    """
    policy, sampling, reporter = policy or checkpoint_policy(generator), sampling or Sampling(), reporter or Reporter()
    settings, at = policy.calibration, policy.detection.rates
    chain, origin = Chain.of(generator), generator.identity()
    layers = calibrated_layers(policy, chain)
    depends_on: dict[str, Any] = {
        "package": qualitygate.__version__,
        "torch": torch.__version__,
        "device": str(generator.device),
        **generator.key,
        "sampling": sampling.model_dump(mode="json"),
        "seed": settings.seed,
        "layers": list(layers),
        "rate_samples": settings.rate_samples,
        "micro_batch": generator.micro_batch,
    }
    rates_so_far = _Unfinished({"kind": "rates", **depends_on})
    rates = _rates(generator, policy, sampling, layers, rates_so_far, reporter)
    read = [score.name for score in policy.read_scores]
    depends_on |= {"score_samples": settings.score_samples, "rates": list(at), "read": read, "moments": policy.screens}
    scores_so_far = _Unfinished({"kind": "scores", **depends_on})
    scores = _scores(generator, policy, rates, scores_so_far, reporter)
    units = unit_table(rates, policy.headline_rate)
    # layers whose exact CLA, and the units' part in it, is walked apart from a screening pilot
    walked = {*(correction_layers(policy, chain)[0] if policy.profile_curvature else ())}
    walked |= {*(policy.curvature_layers() if settings.curvature_samples and not policy.screens else ())}
    if walked:
        columns, of_units = _exact(generator, policy, sampling, tuple(sorted(walked)), reporter)
        scores.update(columns)
        units |= {name: unit_column(units, by_layer) for name, by_layer in of_units.items()}
    if policy.screens:
        scores.update(_pilot(generator, policy, sampling, reporter))
    info = ProfileInfo(
        profile_id=profile_id(origin.sha256, sampling, settings, layers, at, generator.precision),
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
        precision=generator.precision,
        scores={
            name: {"mean": float(np.nanmean(values)), **{f"q{q:g}": float(np.nanquantile(values, q)) for q in _QUANTILES}}
            for name, values in scores.items()
        },
        low_rate_shares={f"layer_{layer}": {names.rate(r): rates.low_rate_share(layer, r) for r in at} for layer in layers},
        files={},
    )
    suite = make_suite(policy, [rule.score for rule in policy.rules], samples=settings.score_samples)
    for so_far in (rates_so_far, scores_so_far):
        CACHE.remove(so_far.identity)
    return Profile(info, rates, scores, units, policy, suite)


def default_policy(family: str) -> Policy:
    """The default of a family, by the R that it brings."""
    rate = default_rate(family)
    return Policy(
        detection=Detection(rates=tuple(sorted({*Detection().rates, rate}))),
        rules=(Rule(id="low_rate", score=names.low_rate(rate), limit=Limit(quantile=0.9)),),
        correction=SequentialAblation(judged_at=rate),
    )


def checkpoint_policy(generator: Generator) -> Policy:
    """The policy where none is given, a function of the checkpoint alone: its family's, with CLA of the family's first curvature layer
    computed, but not acted on, where screening it is affordable. Before `qualitygate validate` nobody knows whether CLA sees anything."""
    policy = default_policy(generator.family)
    layer = generator.presets.curvature[0]
    if screening_share(generator, layer) > AFFORDABLE:
        return policy
    detection = policy.detection.model_copy(update={"curvature_layers": (layer,)})
    return Policy.model_validate({**dict(policy), "detection": detection, "calibration": policy.calibration.model_copy(update=PILOT)})


def screening_share(generator: Generator, layer: int) -> float:
    """Operations of screening a sample's CLA of a layer, as a share of those of generating it; both are counted."""
    return typical_passes(generator.latent_size) * generator.layers[layer].operations / generator.operations


def with_curvature(policy: Policy, layer: int) -> Policy:
    """The policy with a rule on the screened CLA of a layer: the tenth with the highest is corrected."""
    rule = Rule(id="cla", score=names.cla(layer), limit=Limit(quantile=0.9))
    return Policy.model_validate(
        {**dict(policy), "rules": (*policy.rules, rule), "calibration": policy.calibration.model_copy(update=PILOT)}
    )


class _Unfinished:
    """What a long stretch of work has found so far, kept in the cache until all of it is there, under all that the numbers depend on."""

    def __init__(self, identity: Mapping[str, Any]) -> None:
        self.identity, self._next = identity, time.monotonic() + INTERVAL

    def keep(self, arrays: Callable[[], Arrays]) -> None:
        """Put down what is known by now, if it is time to."""
        if time.monotonic() >= self._next:
            CACHE.keep(self.identity, arrays())
            self._next = time.monotonic() + INTERVAL


def _rates(
    generator: Generator, policy: Policy, sampling: Sampling, layers: tuple[int, ...], so_far: _Unfinished, reporter: Reporter
) -> ActivationRates:
    """Activation rates, from the first ids of the calibration's seed."""
    settings = policy.calibration
    first: ActivationRates | None = None
    if (begun := CACHE.find(so_far.identity)) is not None:
        known = {layer: torch.from_numpy(begun[str(layer)]) for layer in layers}
        first = ActivationRates(known, int(begun[_SAMPLES][0]), settings.seed, sampling)
    with reporter.phase("activation rates", settings.rate_samples) as progress:
        growing = growing_rates(generator, layers, settings.rate_samples, settings.seed, sampling=sampling, begun=first, progress=progress)
        for rates in growing:
            so_far.keep(partial(_as_arrays, rates))
    return rates.to("cpu")


def _as_arrays(rates: ActivationRates) -> Arrays:
    return {_SAMPLES: np.array([rates.samples]), **{str(layer): on_host(counts).numpy() for layer, counts in rates.counts.items()}}


def _scores(generator: Generator, policy: Policy, rates: ActivationRates, so_far: _Unfinished, reporter: Reporter) -> dict[str, np.ndarray]:
    """Scores of the samples after those of the rates, same seed, as columns of float64; with sums over the detection layers."""
    settings, at = policy.calibration, policy.detection.rates
    score = Scorer(generator, rates, at, rates.layers, policy.read_scores, moments=policy.screens)
    begun = CACHE.find(so_far.identity)
    parts = [] if begun is None else [{name: begun[name] for name in score.columns}]
    done = 0 if begun is None else len(begun[score.columns[0]])
    ids = range(settings.rate_samples, settings.rate_samples + settings.score_samples)
    latents = sample_latents(generator, ids[done:], settings.seed, sampling=rates.sampling)
    with reporter.phase("scores", len(ids)) as progress:
        progress(done)
        for rows, part, _ in score.over(latents):
            parts.append(part)
            so_far.keep(lambda: joined(parts))
            progress(rows.stop - rows.start)
    columns = joined(parts)
    if broken := [name for name, values in columns.items() if not np.isfinite(values).all()]:
        raise InputError(
            "The generator's activations are not finite",
            f"NaN or infinity behind {', '.join(broken[:4])}",
            "finite activations",
            "check the weights",
        )
    add_totals(columns, at, detection_layers(policy, Chain.of(generator)))
    return columns


def _exact(
    generator: Generator, policy: Policy, sampling: Sampling, layers: tuple[int, ...], reporter: Reporter
) -> tuple[dict[str, np.ndarray], dict[str, dict[int, Tensor]]]:
    """Exact CLA of the first scored samples, one walk for all layers; of some of them where only units are ranked by it. As columns, NaN
    for the other samples; and the mean over samples of what each unit adds, float64 (units,) by column and layer."""
    settings = policy.calibration
    count = min(settings.curvature_samples, _RANKED) if policy.screens else settings.curvature_samples
    ids = range(settings.rate_samples, settings.rate_samples + count)
    latents = sample_latents(generator, ids, settings.seed, sampling=sampling)
    with reporter.phase("exact CLA", count) as progress:
        walked = in_parts(generator, latents, layers, precision=policy.detection.curvature_precision, progress=progress)
        parts = [(local.score, local.unit_score, local.unit_curvature) for local in walked]
    scores, units, plain = ({layer: torch.cat([part[layer] for part in of]) for layer in layers} for of in zip(*parts, strict=True))
    columns = {names.cla(layer): scores[layer].numpy() for layer in layers}
    of_units = {names.UNIT_CLA: units, names.UNIT_CLA_PLAIN: plain}
    means = {name: {layer: rows.mean(dim=0) for layer, rows in by_layer.items()} for name, by_layer in of_units.items()}
    return _padded(columns, settings.score_samples), means


def _pilot(generator: Generator, policy: Policy, sampling: Sampling, reporter: Reporter) -> dict[str, np.ndarray]:
    """Exact CLA of the first scored samples and every cheaper estimate of it, NaN for the others."""
    settings = policy.calibration
    ids = range(settings.rate_samples, settings.rate_samples + settings.curvature_samples)
    table = PilotTable(generator, sampling, settings.seed, policy.curvature_layers(), policy.detection.curvature_precision)
    with reporter.phase("exact CLA and its estimates", len(ids)) as progress:
        return _padded(table.columns(ids, progress), settings.score_samples)


def _padded(columns: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    return {name: np.pad(values, (0, count - len(values)), constant_values=np.nan) for name, values in columns.items()}


def unit_table(rates: ActivationRates, rate: float) -> dict[str, Any]:
    """One row a unit, from the rates alone: mean activation rate of its neurons, share of them that never fired, and its low-rate activity
    at R = ``rate``, the mean over samples of the share of its positions that are low-rate and active."""
    units = [(layer, unit) for layer in rates.layers for unit in range(len(rates.counts[layer]))]

    def column(of_units: Callable[[int], Any]) -> list[float]:
        return [value for layer in rates.layers for value in of_units(layer).tolist()]

    return {
        names.UNIT_KEY: [names.unit_key(layer, unit) for layer, unit in units],
        names.LAYER: [layer for layer, _ in units],
        names.UNIT: [unit for _, unit in units],
        names.UNIT_RATE: column(lambda layer: rates.rates[layer].mean(dim=(1, 2))),
        names.UNIT_DEAD: column(lambda layer: rates.never_seen(layer).double().mean(dim=(1, 2))),
        names.UNIT_LOW_RATE: column(low_rate_activity(rates, rate).of),
    }
