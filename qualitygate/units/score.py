"""A number for each unit, higher = more suspect, in one form whatever it was made from; and how far two such rankings agree."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qualitygate import names, storage
from qualitygate.errors import InputError, LayerError
from qualitygate.generators.passes import on_host

TOP = 20
"""Units whose overlap is measured unless told otherwise: as many as GAN Dissection ablates."""
_SETTINGS = "qualitygate.unit_scores"


@dataclass(frozen=True)
class UnitScores:
    """Scores of the units of some layers.

    Attributes:
        by_layer: float64 (units,) by layer, in order of layer; higher = more suspect, NaN where a score is not defined.
        source: what the score is, a column name such as `names.UNIT_CLA`.
        settings: what it was made with; JSON values.
    """

    by_layer: Mapping[int, np.ndarray]
    source: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_layers(cls, scores: Mapping[int, Tensor], source: str, settings: Mapping[str, Any]) -> UnitScores:
        """From one score a unit, (units,), by layer. Raises `InputError` if there is no layer."""
        if not scores:
            raise InputError("There are no unit scores", "no layer", "at least one layer")
        return cls({layer: on_host(scores[layer].detach().double()).numpy() for layer in sorted(scores)}, source, dict(settings))

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(self.by_layer)

    def of(self, layer: int) -> np.ndarray:
        """Scores of one layer's units, float64 (units,). Raises `LayerError` if they were not scored."""
        if layer not in self.by_layer:
            raise LayerError(f"{self.source} was not computed for layer {layer}", f"layers {list(self.layers)}", "one of them")
        return self.by_layer[layer]

    def top(self, count: int, layer: int) -> np.ndarray:
        """The most suspected units of a layer, int64 (count,), the highest score first; of equal scores the lower unit. A unit without a
        score is never among them. Raises `InputError` for a count below 1, `LayerError` if the layer was not scored."""
        if count < 1:
            raise InputError("Not a number of units", str(count), "at least 1")
        scores = self.of(layer)
        return np.argsort(-scores, kind="stable")[: min(count, int((~np.isnan(scores)).sum()))]  # NaN last

    def tensor(self, layer: int) -> Tensor:
        """Scores of one layer's units as a tensor, float64 (units,)."""
        return torch.from_numpy(self.of(layer).copy())


def save_unit_scores(path: str | Path, scores: Sequence[UnitScores]) -> None:
    """Write several unit scores as one Parquet file with a row for each unit that any of them knows: the join key, layer, unit, and a
    column for each source. Where a source does not know a unit its column is null; a score that is not defined is NaN. Their settings go
    into its metadata. Raises `InputError` if there is nothing to write, or two scores of one source."""
    sources = [one.source for one in scores]
    if not sources or len({*sources}) != len(sources):
        raise InputError("These scores do not make a table", ", ".join(sources) or "none", "at least one, sources different")
    sizes = dict(sorted((layer, len(values)) for one in scores for layer, values in one.by_layer.items()))
    rows = [(layer, unit) for layer, units in sizes.items() for unit in range(units)]
    columns: dict[str, Any] = {
        names.UNIT_KEY: [names.unit_key(*row) for row in rows],
        names.LAYER: [layer for layer, _ in rows],
        names.UNIT: [unit for _, unit in rows],
    }
    for one in scores:
        columns[one.source] = [float(one.by_layer[layer][unit]) if layer in one.by_layer else None for layer, unit in rows]
    storage.write_table(path, columns, {_SETTINGS: json.dumps({one.source: dict(one.settings) for one in scores})})


def load_unit_scores(path: str | Path) -> dict[str, UnitScores]:
    """Read what `save_unit_scores` wrote, by source. Raises `InputError` if it is not such a file, `ProfileError` if it is no Parquet
    file."""
    table, metadata = storage.read_table(path)
    if _SETTINGS not in metadata:
        columns = f"columns {', '.join(table.column_names[:5])} …"
        raise InputError(f"{path} is not a table of unit scores", columns, "units.parquet as `qualitygate units` writes it")
    layer, found = table[names.LAYER].to_numpy(), {}
    for source, settings in json.loads(metadata[_SETTINGS]).items():
        score, known = table[source].to_numpy().astype(np.float64), table[source].is_valid().to_numpy()
        by_layer = {int(one): score[known & (layer == one)] for one in np.unique(layer[known])}
        found[source] = UnitScores(by_layer, source, settings)
    return found


@dataclass(frozen=True)
class Agreement:
    """Two unit scores of one layer, held against each other over the units that have both: ``correlation`` is Spearman's rank correlation,
    in [-1, 1], NaN where one of them is the same for all units; ``overlap`` the share of the one's top units among the other's, in [0, 1],
    NaN without units; ``by_chance`` what independent scores would overlap by on average."""

    layer: int
    first: str
    second: str
    units: int
    correlation: float
    top: int
    overlap: float
    by_chance: float


def compare(scores: Sequence[UnitScores], top: int = TOP) -> list[Agreement]:
    """Every pair of sources at every layer that both know, in order of layer. The overlap is that of ``top`` units, or of all where a layer
    has fewer; `InputError` if that is below 1."""
    if top < 1:
        raise InputError("Not a number of units", str(top), "at least 1")
    found = []
    for first, second in combinations(scores, 2):
        for layer in {*first.layers} & {*second.layers}:
            a, b = first.of(layer), second.of(layer)
            both = ~(np.isnan(a) | np.isnan(b))
            a, b = a[both], b[both]
            count = min(top, len(a))
            common = np.intersect1d(np.argsort(-a, kind="stable")[:count], np.argsort(-b, kind="stable")[:count])
            found.append(
                Agreement(
                    layer=layer,
                    first=first.source,
                    second=second.source,
                    units=len(a),
                    correlation=rank_correlation(a, b),
                    top=count,
                    overlap=len(common) / count if count else float("nan"),
                    by_chance=count / len(a) if count else float("nan"),
                )
            )
    return sorted(found, key=lambda one: one.layer)


def joined(scores: Sequence[UnitScores]) -> UnitScores:
    """One ranking of all sources: for each unit the mean, over the sources that score it, of its rank in its layer, as a share in (0, 1]
    that is 1 for the most suspected unit. Each source counts the same; NaN where none scores the unit. Raises `InputError` without
    scores."""
    from scipy.stats import rankdata

    found = {}
    for layer in sorted({layer for one in scores for layer in one.layers}):
        values = np.stack([one.of(layer) for one in scores if layer in one.layers])
        known = ~np.isnan(values)
        ranks = np.nan_to_num(rankdata(values, axis=1, nan_policy="omit")) / np.maximum(known.sum(axis=1, keepdims=True), 1)
        mean = np.where(known.any(axis=0), ranks.sum(axis=0) / np.maximum(known.sum(axis=0), 1), np.nan)
        found[layer] = torch.from_numpy(mean)
    return UnitScores.of_layers(found, names.UNIT_JOINED, {"sources": [one.source for one in scores]})


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's of two columns (N,), in [-1, 1]; NaN where one side is constant, or there is nothing."""
    from scipy.stats import spearmanr

    constant = any(not len(side) or side.min() == side.max() for side in (first, second))
    return float("nan") if constant else float(spearmanr(first, second).statistic)
