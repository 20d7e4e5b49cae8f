"""CLA of the samples that are gated, exact or screened as far as their verdicts need it; and the pilot that screening goes by.

The pilot, exact CLA of some calibration samples and every cheaper estimate of it, is the dear part of a calibration, so what is done is
kept in the cache, every few samples. A run that was cut off goes on from there, and another calibration of the same checkpoint finds it.
The pilot of the demonstration's checkpoint comes with the package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from qualitygate import names, storage
from qualitygate.generators.base import Generator, sample_latents
from qualitygate.generators.passes import Progress, silent
from qualitygate.latents import Latents, Sampling
from qualitygate.records import canonical_hash
from qualitygate.scores.local_activation import BOUND, DIVISIONS, local_activation
from qualitygate.scores.screening import Climb, Pilot, Rung, Screen, axes_order, ladder
from qualitygate.scores.walk import Precision
from qualitygate.storage import Arrays, array_cache

Columns = Mapping[str, np.ndarray]
Undecided = Callable[[Columns, Columns], np.ndarray]
"""Rows whose verdict differs between two sets of columns: bool (N,)."""


def exact_curvature(
    generator: Generator, latents: Latents, layers: Sequence[int], precision: Precision = "float32", progress: Progress = silent
) -> dict[str, np.ndarray]:
    """Exact CLA of every sample at the given layers, as columns."""
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


def rung_column(rung: Rung, latent_size: int, layer: int) -> str:
    """The calibration's column of a rung's scores."""
    if rung.axes == latent_size and rung.points is None:
        return names.cla(layer)
    return names.cla_estimate(rung.axes, len(rung.points or range(DIVISIONS // 2)), layer)


def screening_columns(latent_size: int, curvature: Sequence[int], scored: Sequence[int]) -> list[str]:
    """Columns a calibration must hold for CLA of the layers ``curvature`` to be screened from evidence of the layers ``scored``."""
    rungs = [rung_column(rung, latent_size, layer) for layer in curvature for rung in ladder(latent_size)]
    return [*rungs, *(name for layer in scored for name in names.activation_moments(layer))]


def fitted_screen(
    columns: Columns, evidence: np.ndarray, latent_size: int, layer: int, limits: Sequence[float], error: float, *, elsewhere: bool
) -> Screen:
    """The screen of a layer, from the calibration's columns: the samples with exact scores are its pilot."""
    *estimated, exact = (rung_column(rung, latent_size, layer) for rung in ladder(latent_size))
    rows = np.isfinite(columns[exact])
    estimates = np.column_stack([columns[name][rows] for name in estimated]) if estimated else np.empty((rows.sum(), 0))
    return Screen(Pilot(evidence[rows], estimates, columns[exact][rows]), limits, error, elsewhere=elsewhere)


class Screening:
    """Screens samples, all layers by the same passes.

    Args:
        generator: the generator.
        screens: the fitted screen of each layer.
        evidence: free evidence of samples from their columns.
        undecided: whose verdict is still open.
        precision: numbers in which the passes run.
    """

    def __init__(
        self,
        generator: Generator,
        screens: Mapping[int, Screen],
        evidence: Callable[[Columns], np.ndarray],
        undecided: Undecided,
        precision: Precision,
    ) -> None:
        self._generator, self._screens = generator, screens
        self._evidence, self._undecided, self._precision = evidence, undecided, precision
        self._rungs = ladder(generator.latent_size)

    def __call__(self, latents: Latents, columns: Columns) -> dict[str, np.ndarray]:
        """CLA, its interval, and the early passes spent, as columns; samples leave as soon as their verdict is settled.

        Args:
            latents: N samples.
            columns: all their other scores.
        """
        found = _Found(tuple(self._screens), len(latents))
        evidence = self._evidence(columns)
        estimates = {layer: np.empty((len(latents), 0)) for layer in self._screens}
        rows = np.arange(len(latents))
        self._look(found, 0, rows, evidence, estimates)
        rows = self._open(found, columns, rows)
        climb, below = Climb(self._generator, latents[rows], found.layers, self._precision), None
        for tier, rung in enumerate(self._rungs, start=1):
            if not len(rows):
                break
            scores = climb.to(rung)
            found.passes[rows] += rung.passes(below, DIVISIONS)
            if tier == len(self._rungs):
                found.exact(rows, scores)
                break
            for layer, score in scores.items():
                grown = np.full((len(latents), tier), np.nan)
                grown[:, :-1], grown[rows, -1] = estimates[layer], score
                estimates[layer] = grown
            self._look(found, tier, rows, evidence, estimates)
            still = self._open(found, columns, rows)
            climb.keep(np.flatnonzero(np.isin(rows, still)))
            rows, below = still, rung
        return found.columns()

    def _look(self, found: _Found, tier: int, rows: np.ndarray, evidence: np.ndarray, estimates: Mapping[int, np.ndarray]) -> None:
        for layer, screen in self._screens.items():
            bounds = screen.bounds(tier, evidence[rows], estimates[layer][rows])
            for part, values in (("value", bounds.value), ("low", bounds.low), ("high", bounds.high)):
                found.parts[part][layer][rows] = values

    def _open(self, found: _Found, columns: Columns, rows: np.ndarray) -> np.ndarray:
        others = {name: values[rows] for name, values in columns.items()}
        ends = [{**others, **{names.cla(layer): found.parts[end][layer][rows] for layer in found.layers}} for end in ("low", "high")]
        return rows[self._undecided(*ends)]


class _Found:
    """What is known so far: value and interval by layer, and the passes spent."""

    def __init__(self, layers: tuple[int, ...], count: int) -> None:
        self.layers = layers
        self.parts = {part: {layer: np.full(count, np.nan) for layer in layers} for part in ("value", "low", "high")}
        self.passes = np.zeros(count)

    def exact(self, rows: np.ndarray, scores: Mapping[int, np.ndarray]) -> None:
        for of_layer in self.parts.values():
            for layer, score in scores.items():
                of_layer[layer][rows] = score

    def columns(self) -> dict[str, np.ndarray]:
        places = (("value", names.cla), ("low", names.cla_low), ("high", names.cla_high))
        by_layer = {place(layer): self.parts[part][layer] for part, place in places for layer in self.layers}
        return {**by_layer, names.CLA_PASSES: self.passes}


CACHE = array_cache("pilots")
SHIPPED = Path(__file__).parent / "pilots"
_AT_ONCE = 16


class PilotTable:
    """Scores on every rung of the ladder, by sample id.

    Args:
        generator: the generator.
        sampling: how latents are drawn.
        seed: of the latents.
        layers: layers whose CLA is scored, all by the same passes.
        precision: numbers in which the passes run.
    """

    def __init__(
        self, generator: Generator, sampling: Sampling, seed: int, layers: Sequence[int], precision: Precision = "float32"
    ) -> None:
        self._generator, self._sampling, self._seed = generator, sampling, seed
        self._layers, self._precision = tuple(layers), precision
        rungs = ladder(generator.latent_size)
        self._identity = {
            "format": 1,
            "checkpoint": generator.identity().sha256,
            "sampling": sampling.model_dump(mode="json"),
            "seed": seed,
            "layers": list(self._layers),
            "precision": precision,
            "bound": BOUND,
            "divisions": DIVISIONS,
            "rungs": [[rung.axes, rung.points] for rung in rungs],
            "axes": axes_order(generator.latent_size),
        }
        self.key = canonical_hash(self._identity)[:32]

    def columns(self, ids: Sequence[int], progress: Progress) -> dict[str, np.ndarray]:
        """The columns of these samples, float64 (len(ids),) each: estimates of every rung, and the exact scores."""
        table = self._known()
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

    def made(self, ids: np.ndarray) -> Arrays:
        """The rows of these samples, computed now."""
        latents = sample_latents(self._generator, ids, self._seed, sampling=self._sampling)
        climb = Climb(self._generator, latents, self._layers, self._precision)
        columns = {names.ID: np.asarray(ids, dtype=np.int64)}
        for rung in ladder(self._generator.latent_size):
            scores = climb.to(rung)
            columns.update({rung_column(rung, self._generator.latent_size, layer): scores[layer] for layer in scores})
        return columns

    def _known(self) -> Arrays:
        """What was made before; where the cache has nothing, what comes with the package."""
        shipped = SHIPPED / f"{self.key}.parquet"
        if (found := CACHE.find(self._identity)) is not None or not shipped.exists():
            return found or {}
        table, _ = storage.read_table(shipped)
        return {name: table[name].to_numpy() for name in table.column_names}
