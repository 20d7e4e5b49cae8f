"""CLA of the samples that are gated, exact or screened as far as their verdicts need it; and the pilot that screening goes by.

The pilot, exact CLA of some calibration samples and every cheaper estimate of it, is the dear part of a calibration, so what is done is
kept in the cache, every few samples: a run that was cut off goes on from there. The demonstration's pilot comes with the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from qualitygate import names, storage
from qualitygate.errors import ProfileError
from qualitygate.gating.profile import Profile
from qualitygate.generators.base import Generator, sample_latents
from qualitygate.generators.passes import Progress, silent
from qualitygate.latents import Latents, Sampling
from qualitygate.policy.decide import Columns, Limits, Risk, initial_verdicts
from qualitygate.policy.model import Policy
from qualitygate.policy.scores import cla_layer
from qualitygate.records import canonical_hash
from qualitygate.scores.local_activation import BOUND, DIVISIONS, Precision, local_activation, walked_in
from qualitygate.scores.screening import Bounds, Pilot, Screen, SequentialEstimator, Stage, axes_order, schedule
from qualitygate.storage import Arrays, array_cache


def exact_curvature(
    generator: Generator, latents: Latents, layers: Sequence[int], precision: Precision = "float32", progress: Progress = silent
) -> dict[str, np.ndarray]:
    """Exact CLA of every sample at the given layers, as columns, float64 (N,)."""
    scores = local_activation(generator, latents, layers, precision=precision, progress=progress).score
    return {names.cla(layer): scores[layer].numpy() for layer in layers}


def free_evidence(columns: Columns, layers: Sequence[int], rates: Sequence[float]) -> np.ndarray:
    """What screening starts from, float64 (N, any): counts and moments of each layer, as logarithms."""
    counts = [name for layer in layers for name in (names.never_seen(layer), *(names.low_rate(r, layer) for r in rates))]
    means, squares, shares = zip(*(names.activation_moments(layer) for layer in layers), strict=True)
    return np.column_stack(
        [
            *(np.log1p(columns[name]) for name in counts),
            *(np.log(columns[name] + np.finfo(np.float32).tiny) for name in (*means, *squares)),
            *(columns[name] for name in shares),
        ]
    )


def stage_column(stage: Stage, latent_size: int, layer: int) -> str:
    """The calibration's column of a stage's scores."""
    if stage.axes == latent_size and stage.points is None:
        return names.cla(layer)
    return names.cla_estimate(stage.axes, len(stage.points or range(DIVISIONS // 2)), layer)


def fitted_screen(
    columns: Columns, evidence: np.ndarray, latent_size: int, layer: int, limits: Sequence[float], error: float, *, elsewhere: bool
) -> Screen:
    """The screen of a layer, from the calibration's columns (N,) and evidence (N, E): the samples with exact scores are its pilot."""
    *estimated, exact = (stage_column(stage, latent_size, layer) for stage in schedule(latent_size))
    rows = np.isfinite(columns[exact])
    estimates = np.column_stack([columns[name][rows] for name in estimated]) if estimated else np.empty((rows.sum(), 0))
    return Screen(Pilot(evidence[rows], estimates, columns[exact][rows]), limits, error, elsewhere=elsewhere)


class Screening:
    """Screens samples, all layers by the same passes; ``scored`` are the layers whose counts and moments are the free evidence. A
    `ProfileError` where the profile has no pilot."""

    def __init__(self, generator: Generator, profile: Profile, policy: Policy, scored: Sequence[int], limits: Limits, risk: Risk) -> None:
        self._walked = walked_in(generator, policy.detection.curvature_precision)
        self._policy, self._scored, self._limits, self._risk = policy, tuple(scored), limits, risk
        self._layers, size = policy.curvature_layers(), generator.latent_size
        needed = [stage_column(stage, size, layer) for layer in self._layers for stage in schedule(size)]
        needed += [name for layer in self._scored for name in names.activation_moments(layer)]
        if missing := [name for name in needed if name not in profile.scores]:
            raise ProfileError(
                "The profile has no pilot to screen CLA by",
                f"no {', '.join(missing[:4])}",
                "a calibration with calibration.curvature_samples and detection.curvature: screened",
                "calibrate again with this policy, or set detection.curvature: exact",
            )
        evidence = free_evidence(profile.scores, self._scored, policy.detection.rates)
        risked = {cla_layer(part) for part in risk.weights} if any(rule.score == names.RISK for rule in limits.rules) else set()
        self._screens, error = {}, policy.detection.curvature_error
        for layer in self._layers:
            own = [rule.limit for rule in limits.rules if rule.score == names.cla(layer)]
            self._screens[layer] = fitted_screen(profile.scores, evidence, size, layer, own, error, elsewhere=layer in risked)

    def __call__(self, latents: Latents, columns: Columns) -> dict[str, np.ndarray]:
        """CLA of N samples, its interval, and the early passes spent, as columns (N,), from all their other scores; samples leave as soon
        as their verdict is settled."""
        count, stages = len(latents), schedule(self._walked.latent_size)
        found = {place(layer): np.full(count, np.nan) for place in _PLACES for layer in self._layers} | {names.CLA_PASSES: np.zeros(count)}
        evidence = free_evidence(columns, self._scored, self._policy.detection.rates)
        estimates = {layer: np.full((count, len(stages)), np.nan) for layer in self._layers}
        estimator = SequentialEstimator(self._walked, latents, self._layers, self._policy.detection.curvature_precision)
        rows = np.arange(count)
        for tier, stage in enumerate((None, *stages)):
            if stage is not None:
                for layer, score in estimator.advance(stage).items():
                    estimates[layer][rows, tier - 1] = score
                found[names.CLA_PASSES][rows] += stage.passes(stages[: tier - 1], DIVISIONS)
            for layer, screen in self._screens.items():
                known = estimates[layer][rows, :tier]
                if tier < len(stages):
                    bounds = screen.bounds(tier, evidence[rows], known)
                else:  # exact
                    bounds = Bounds(known[:, -1], known[:, -1], known[:, -1])
                for place, values in zip(_PLACES, (bounds.value, bounds.low, bounds.high), strict=True):
                    found[place(layer)][rows] = values
            still = self._still_open(rows, columns, found)
            if not still.any():
                break
            estimator.select(np.flatnonzero(still))
            rows = rows[still]
        return found

    def _still_open(self, rows: np.ndarray, columns: Columns, found: Columns) -> np.ndarray:
        """Whether the verdicts differ between the ends of the intervals, bool (rows,). They are monotone in every score: equal at both
        ends, they are equal in between."""
        verdicts = []
        for end in (names.cla_low, names.cla_high):
            at_end = {name: values[rows] for name, values in columns.items()}
            at_end |= {names.cla(layer): found[end(layer)][rows] for layer in self._layers}
            verdicts.append(initial_verdicts(self._limits, {**at_end, names.RISK: self._risk(at_end)}).verdict)
        return verdicts[0] != verdicts[1]


_PLACES = (names.cla, names.cla_low, names.cla_high)

CACHE = array_cache("pilots")
SHIPPED = Path(__file__).parent / "pilots"
_AT_ONCE = 16


class PilotTable:
    """Scores on every stage of the schedule, by sample id; all layers by the same passes."""

    def __init__(
        self, generator: Generator, sampling: Sampling, seed: int, layers: Sequence[int], precision: Precision = "float32"
    ) -> None:
        self._generator, self._sampling, self._seed = generator, sampling, seed
        self._layers, self._precision = tuple(layers), precision
        stages = schedule(generator.latent_size)
        self._identity = {
            "format": 1,
            "checkpoint": generator.identity().sha256,
            "sampling": sampling.model_dump(mode="json"),
            "seed": seed,
            "layers": list(self._layers),
            "precision": precision,
            "bound": BOUND,
            "divisions": DIVISIONS,
            "rungs": [[stage.axes, stage.points] for stage in stages],
            "axes": axes_order(generator.latent_size),
        }
        self.key = canonical_hash(self._identity)[:32]

    def columns(self, ids: Sequence[int], progress: Progress) -> dict[str, np.ndarray]:
        """The columns of these samples, float64 of shape (len(ids),): estimates of every stage, and the exact scores."""
        if (table := CACHE.find(self._identity)) is None:
            shipped = SHIPPED / f"{self.key}.parquet"
            known = storage.read_table(shipped)[0] if shipped.exists() else None
            table = {} if known is None else {name: known[name].to_numpy() for name in known.column_names}
        missing = np.setdiff1d(np.asarray(ids), table.get(names.ID, ()))
        progress(len(ids) - len(missing))
        for start in range(0, len(missing), _AT_ONCE):
            part = self.made(missing[start : start + _AT_ONCE])
            table = {name: np.concatenate([table[name], part[name]]) for name in part} if table else part
            CACHE.keep(self._identity, table)
            progress(len(part[names.ID]))
        row_of = {one: row for row, one in enumerate(table[names.ID].tolist())}
        rows = [row_of[one] for one in ids]
        return {name: column[rows] for name, column in table.items() if name != names.ID}

    @cached_property
    def _walked(self) -> Generator:
        return walked_in(self._generator, self._precision)

    def made(self, ids: np.ndarray) -> Arrays:
        """The rows of these samples (n,), computed now."""
        latents = sample_latents(self._generator, ids, self._seed, sampling=self._sampling)
        estimator = SequentialEstimator(self._walked, latents, self._layers, self._precision)
        columns = {names.ID: np.asarray(ids, dtype=np.int64)}
        for stage in schedule(self._generator.latent_size):
            scores = estimator.advance(stage)
            columns.update({stage_column(stage, self._generator.latent_size, layer): scores[layer] for layer in scores})
        return columns
