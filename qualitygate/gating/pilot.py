"""The pilot of screening: exact CLA of some calibration samples, and every cheaper estimate of it.

It is the dear part of a calibration, so what is done is kept: in the cache, a file every few samples, under a hash of all that the
numbers depend on. A run that was cut off goes on from there, and another calibration of the same checkpoint finds it. The pilot of
the demonstration's checkpoint comes with the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from qualitygate import names, storage
from qualitygate.checkpoints.sources import cache
from qualitygate.gating.curvature import rung_column
from qualitygate.generators.base import Generator
from qualitygate.generators.execution import Progress, sample_latents
from qualitygate.latents import Sampling
from qualitygate.records import canonical_hash
from qualitygate.scores.climb import Climb
from qualitygate.scores.local_activation import BOUND, DIVISIONS
from qualitygate.scores.precision import Precision
from qualitygate.scores.screening import axes_order, ladder

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
        self.key = canonical_hash(
            {
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
        )[:32]
        self._folder = cache.folder() / "pilots" / self.key

    def columns(self, ids: Sequence[int], progress: Progress) -> dict[str, np.ndarray]:
        """The columns of these samples, float64 (len(ids),) each: estimates of every rung, and the exact scores."""
        known = self._known()
        there = known.column(names.ID).to_numpy() if known else np.empty(0, dtype=np.int64)
        missing = np.setdiff1d(np.asarray(ids), there)
        progress(len(ids) - len(missing))
        parts = [known] if known else []
        for start in range(0, len(missing), _AT_ONCE):
            part = self.made(missing[start : start + _AT_ONCE])
            storage.write_table(self._folder / f"{part[names.ID][0]}-{part[names.ID][-1]}.parquet", part)
            parts.append(pa.table(part))
            progress(len(part[names.ID]))
        table = pa.concat_tables(parts)
        row_of = {one: row for row, one in enumerate(table.column(names.ID).to_pylist())}
        rows = [row_of[one] for one in ids]
        return {name: table.column(name).to_numpy()[rows] for name in table.column_names if name != names.ID}

    def made(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        """The rows of these samples, computed now."""
        latents = sample_latents(self._generator, ids, self._seed, sampling=self._sampling)
        climb = Climb(self._generator, latents, self._layers, self._precision)
        columns = {names.ID: np.asarray(ids, dtype=np.int64)}
        for rung in ladder(self._generator.latent_size):
            scores = climb.to(rung)
            columns.update({rung_column(rung, self._generator.latent_size, layer): scores[layer] for layer in scores})
        return columns

    def _known(self) -> pa.Table | None:
        with storage.explained(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        shipped = SHIPPED / f"{self.key}.parquet"
        files = [*([shipped] if shipped.exists() else []), *sorted(self._folder.glob("*.parquet"))]
        tables = [storage.read_table(path)[0] for path in files]
        return pa.concat_tables(tables) if tables else None
