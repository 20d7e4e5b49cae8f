"""Screening: how high a sample's CLA is, from as little evidence as the verdict needs.

Exact CLA walks every latent axis. Much of it is known before the first step: regressed on what the early layers show anyway
(low-rate counts, moments of the activations) it is right to a rank correlation of .97 on the face DCGAN. An estimate over a few axes
says more, and over more axes still more. So the estimate is sequential, on a *schedule*: tier 0 is the free evidence, each stage after it
walks further axes, none of them twice on the same grid, and the last is the exact score. At every tier a ridge regression, fitted on a
*pilot* of exact scores, turns the evidence into a value and a margin; a sample leaves as soon as its verdict is the same at both ends of
the margin.

Two halves of the pilot keep this honest. On one the regressions are fitted; on the other, which they have not seen, the width of the
margins is set by conformal risk control (Angelopoulos and others 2024): the expected share of verdicts that differ from those of the
exact score is at most the stated error, for new samples drawn as the pilot was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from qualitygate.errors import ProfileError
from qualitygate.generators.base import Generator
from qualitygate.latents import Latents
from qualitygate.scores.local_activation import LocalActivation, Precision, local_activation

THIN = (2, 5, 10)
"""Grid steps of the first stages, of the ten on each side: a third of the passes, for an estimate nearly as good."""
RARE = 0.05
"""Wrong verdicts allowed for each sample over a limit, however rare: precision and recall of a verdict stay near .95."""
# Margins of the first tiers that are tried, in standard deviations of their residuals. Counting errors among a few hundred samples is
# itself noisy, so none is narrower than the first.
_WIDTHS = np.round(np.arange(1.5, 12.01, 0.05), 2)
# The power of the spread by which margins are narrower than that from the third stage on: what follows there is dear, and so few samples
# come so far that errors among them hardly count.
_NARROWING = 0.5
SMALLEST = 20  # exact scores without which nothing can be fitted
_PENALTIES = np.logspace(-3, 5, 25)
_FLOOR = 0.01  # scores are logarithms above this share of the pilot's mean: a score may be 0


@dataclass(frozen=True)
class Stage:
    """One stage of the schedule: how many axes are walked once it is reached, the first of `axes_order`, and at which grid steps on each
    side; None for all."""

    axes: int
    points: tuple[int, ...] | None

    def passes(self, before: Sequence[Stage], divisions: int) -> int:
        """Early passes of one sample that took the stages before: axes that these walked on the same grid are not walked again."""
        known = max((stage.axes for stage in before if stage.points == self.points), default=0)
        return (self.axes - known) * (divisions if self.points is None else 2 * len(self.points))


def schedule(latent_size: int) -> tuple[Stage, ...]:
    """The stages for a latent size; the last is exact. Twice the axes halve a variance, so they double from stage to stage. What the thin
    grid misses differs little between axes: in a large latent a few axes on the full grid correct for it on many."""
    if latent_size >= 320:
        thin, full = [*(Stage(axes, THIN) for axes in (5, 10, 20, 40, 80, 160, 320))], [*(Stage(axes, None) for axes in (10, 40, 80))]
        return (*thin[:5], full[0], thin[5], full[1], thin[6], full[2], Stage(latent_size, None))
    few = (Stage(axes, THIN) for axes in (5, 10, 20, 40, 80) if 2 * axes <= latent_size)
    many = (Stage(axes, None) for axes in (64, 128) if 0.25 * latent_size <= axes <= 0.7 * latent_size)
    return (*few, *many, Stage(latent_size, None))


def allowed_error(error: float, rare: float) -> float:
    """Share of verdicts that may be wrong at a limit that a share ``rare`` of the samples is over, where ``error`` may at any limit."""
    return min(error, RARE * rare)


MEASURED_SIZES = (100, 512)
MEASURED_PASSES = {0.8: (98, 340), 0.9: (65, 280), 0.95: (123, 155), 0.99: (43, 190)}
"""Early passes of a sample on average, by the quantile that the limit is, at each of the sizes (docs/screening.md): at D = 100 on the face
DCGAN, at D = 512 the mean of a trained PGGAN and a random one."""


def typical_passes(latent_size: int, quantile: float = 0.9) -> float:
    """Early passes that a sample takes on average at a limit of this quantile, one of `MEASURED_PASSES`, but no more than exact: a straight
    line between the sizes that were measured."""
    return min(20.0 * latent_size, float(np.interp(latent_size, MEASURED_SIZES, MEASURED_PASSES[quantile])))


def axes_order(latent_size: int) -> list[int]:
    """The order in which the stages take the axes: random, and the same for all samples."""
    return np.argsort(np.random.Philox(key=[latent_size, 0]).random_raw(latent_size), kind="stable").tolist()


@dataclass(frozen=True)
class Bounds:
    """What is known of the scores of N samples at one tier: float64 (N,) each, ``low ≤ value ≤ high``."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Pilot:
    """Exact scores of some samples at one layer, float64 (N,), and every tier's evidence of them: the free one (N, any), and CLA over the
    axes of each stage below the exact one (N, stages)."""

    evidence: np.ndarray
    estimates: np.ndarray
    exact: np.ndarray

    def half(self, rest: int) -> Pilot:
        return Pilot(self.evidence[rest::2], self.estimates[rest::2], self.exact[rest::2])


class Screen:
    """The schedule of one layer, fitted on a pilot: every second sample fits, the others set the margins.

    Args:
        limits: limits on the score that verdicts depend on.
        error: share of verdicts, at each limit, that may differ from those of the exact score.
        elsewhere: verdicts depend on the score in other ways too, through a joined risk. Then the margins of all tiers hold at once
            for all but ``error`` of the samples, whatever is made of the score.

    Attributes:
        margins: of each tier, float64 (tiers,), in units of the logarithm: about relative.
        width: margin of the first tier in standard deviations of its residuals; the later ones are narrower in theirs, where certified.
        spreads: standard deviation of each tier's residuals, in units of the logarithm: about relative.
        certified: whether the stated error follows from the pilot. It does not where a limit is so rare that the pilot is too small for
            it; then the margins are the widest that any sample of the pilot needed.
    """

    def __init__(self, pilot: Pilot, limits: Sequence[float], error: float, *, elsewhere: bool = False) -> None:
        if len(pilot.exact) < SMALLEST:
            raise ProfileError(
                "The pilot is too small to screen by",
                f"{len(pilot.exact)} exact scores",
                f"at least {SMALLEST}, better 1,000",
                "calibrate again with more calibration.curvature_samples",
            )
        self._floor = _FLOOR * float(pilot.exact.mean()) or 1.0
        fitted, held = pilot.half(0), pilot.half(1)
        self._held, exact, target = held.exact, self._log(held.exact), self._log(fitted.exact)
        self._fits, residuals = [], []
        for tier in range(pilot.estimates.shape[1] + 1):
            predict, spread = _ridge(self._inputs(tier, fitted.evidence, fitted.estimates), target)
            self._fits.append((predict, spread))
            residuals.append((predict(self._inputs(tier, held.evidence, held.estimates)) - exact) / spread)
        self._residuals = np.stack(residuals)  # of the held half, in standard deviations of the fitted half's: (tiers, N)
        self.spreads = tuple(spread for _, spread in self._fits)
        spreads = np.array(self.spreads)
        self._narrowed = spreads * np.minimum(1.0, spreads / spreads[:3][-1]) ** _NARROWING
        widths = []
        for limit in limits:
            rare = max(float((pilot.exact > limit).mean()), 1.0 / len(pilot.exact))  # where few samples lie over it, few may be wrong
            widths.append(self._width(limit, allowed_error(error, rare)))
        self.certified = None not in widths
        margins = [self._band(0.0) * spreads if width is None else width * self._narrowed for width in widths]
        self.margins = np.max([*margins, *([self._band(error) * spreads] if elsewhere or not limits else [])], axis=0)
        self.width = float(self.margins[0] / spreads[0])

    def bounds(self, tier: int, evidence: np.ndarray, estimates: np.ndarray) -> Bounds:
        """What a tier says of samples: evidence (N, any), estimates of the stages so far (N, at least tier)."""
        predict, _ = self._fits[tier]
        middle, margin = predict(self._inputs(tier, evidence, estimates)), self.margins[tier]
        return Bounds(*(self._score(at) for at in (middle, middle - margin, middle + margin)))

    def _band(self, error: float) -> float:
        """Margin inside which all tiers of a new sample lie at once, with probability at least 1 − error (split conformal)."""
        worst = np.sort(np.abs(self._residuals).max(axis=0))
        rank = int(np.ceil((1.0 - error) * (len(worst) + 1)))
        return float(worst[min(rank, len(worst)) - 1])

    def _width(self, limit: float, error: float) -> float | None:
        """Smallest width whose expected share of wrong verdicts at this limit is at most ``error``; None if the pilot is too small."""
        exact = self._log(self._held)
        middle = self._residuals * np.array(self.spreads)[:, None] + exact
        away = middle - self._log(np.array(limit))
        wrong_if_left = (away > 0) != (self._held > limit)
        steps = np.abs(away) / self._narrowed[:, None]
        wrong = np.vstack([wrong_if_left, np.zeros(len(exact), dtype=bool)])  # whoever stays gets the exact score
        errors = np.empty(len(_WIDTHS))
        for row, width in enumerate(_WIDTHS):
            leaves = np.vstack([steps > width, np.ones(len(exact), dtype=bool)])
            errors[row] = wrong[leaves.argmax(axis=0), np.arange(len(exact))].sum()
        errors = np.maximum.accumulate(errors[::-1])[::-1]  # risk control needs a risk that falls as margins widen
        enough = (errors + 1) / (len(exact) + 1) <= error
        return float(_WIDTHS[enough.argmax()]) if enough.any() else None

    def _inputs(self, tier: int, evidence: np.ndarray, estimates: np.ndarray) -> np.ndarray:
        return np.column_stack([evidence, self._log(estimates[:, :tier])])

    def _log(self, score: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(score, 0.0) + self._floor)

    def _score(self, logarithm: np.ndarray) -> np.ndarray:
        return np.maximum(np.exp(logarithm) - self._floor, 0.0)


def _ridge(inputs: np.ndarray, target: np.ndarray) -> tuple[Callable[[np.ndarray], np.ndarray], float]:
    """Ridge regression of the logarithmic score on one tier's evidence, with the penalty that predicts best when each sample is left out in
    turn; that error is its spread."""
    centre, scale = inputs.mean(axis=0), inputs.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)  # evidence that never varies says nothing
    level = float(target.mean())
    left, values, right = np.linalg.svd((inputs - centre) / scale, full_matrices=False)
    along = left.T @ (target - level)

    def error(penalty: float) -> float:
        shrink = values**2 / (values**2 + penalty)
        leverage = (left**2) @ shrink + 1.0 / len(target)
        return float(np.mean(((target - level - left @ (shrink * along)) / (1.0 - leverage)) ** 2))

    penalty = min(_PENALTIES, key=error)
    slope = right.T @ (values / (values**2 + penalty) * along)
    return lambda x: level + ((x - centre) / scale) @ slope, max(float(np.sqrt(error(penalty))), 1e-9)


class SequentialEstimator:
    """Estimates of CLA of some samples, stage after stage; all layers by the same passes."""

    def __init__(self, generator: Generator, latents: Latents, layers: Sequence[int], precision: Precision = "float32") -> None:
        self._generator, self._latents, self._layers, self._precision = generator, latents, tuple(layers), precision
        self._order = axes_order(generator.latent_size)
        self._walked: dict[tuple[int, ...] | None, tuple[int, dict[int, Tensor]]] = {}  # axes, and the sum over them, of each grid

    def advance(self, stage: Stage) -> dict[int, np.ndarray]:
        """Sample scores over the axes of the next stage, by layer: float64 (N,). On the last stage they are exact."""
        known, before = self._walked.get(stage.points, (0, {}))
        new = self._order[known : stage.axes]
        local = local_activation(self._generator, self._latents, self._layers, axes=new, points=stage.points, precision=self._precision)
        sums = {layer: local.curvature[layer] * len(new) for layer in self._layers}
        if known:
            sums = {layer: total + before[layer] for layer, total in sums.items()}
        self._walked[stage.points] = stage.axes, sums
        mean = {layer: total / stage.axes for layer, total in sums.items()}
        return {layer: score.numpy() for layer, score in LocalActivation(mean, local.activation).score.items()}

    def select(self, rows: np.ndarray) -> None:
        """Go on with some of the samples only: int64 (n,), among those that are left."""
        self._latents = self._latents[rows]
        self._walked = {
            points: (axes, {layer: total[rows] for layer, total in sums.items()}) for points, (axes, sums) in self._walked.items()
        }
