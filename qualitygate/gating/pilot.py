"""The pilot of screening: exact CLA of some calibration samples, and every cheaper estimate of it.

It is the dear part of a calibration, so what is done is kept in the cache, every few samples. A run that was cut off goes on from there,
and another calibration of the same checkpoint finds it. The pilot of the demonstration's checkpoint comes with the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from qualitygate import names, storage
from qualitygate.gating.curvature import rung_column
from qualitygate.generators.base import Generator
from qualitygate.generators.execution import Progress, sample_latents
from qualitygate.latents import Sampling
from qualitygate.records.gate import canonical_hash
from qualitygate.scores.climb import Climb
from qualitygate.scores.local_activation import BOUND, DIVISIONS
from qualitygate.scores.precision import Precision
from qualitygate.scores.screening import axes_order, ladder
from qualitygate.storage import Arrays, array_cache

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
