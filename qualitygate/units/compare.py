"""How far two sources agree on which units to suspect, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.units.score import UnitScores

TOP = 20
"""Units whose overlap is measured unless told otherwise: as many as GAN Dissection ablates."""


@dataclass(frozen=True)
class Agreement:
    """Two unit scores of one layer, held against each other.

    Attributes:
        layer: the layer.
        first, second: the sources.
        units: units with both scores.
        correlation: Spearman's rank correlation over them, in [-1, 1]; NaN where one of them is the same for all units.
        top: how many units of each were held against each other.
        overlap: share of the one's top units among the other's, in [0, 1]; NaN without units.
        by_chance: what independent scores would overlap by on average.
    """

    layer: int
    first: str
    second: str
    units: int
    correlation: float
    top: int
    overlap: float
    by_chance: float


def compare(scores: Sequence[UnitScores], top: int = TOP) -> list[Agreement]:
    """Every pair of sources at every layer that both know, in order of layer.

    Args:
        scores: unit scores of one generator.
        top: units whose overlap is measured; all of them where a layer has fewer.

    Raises:
        InputError: ``top`` is below 1.
    """
    if top < 1:
        raise InputError("Not a number of units", str(top), "at least 1")
    return sorted(_pairs(scores, top), key=lambda one: one.layer)


def joined(scores: Sequence[UnitScores]) -> UnitScores:
    """One ranking of all sources: for each unit the mean, over the sources that score it, of its rank in its layer, as a share in (0, 1]
    that is 1 for the most suspected unit. Each source counts the same; NaN where none scores the unit.

    Raises:
        InputError: no scores.
    """
    layers = sorted({layer for one in scores for layer in one.layers})
    return UnitScores.of_layers(
        {layer: _mean_rank([one.of(layer) for one in scores if layer in one.layers]) for layer in layers},
        names.UNIT_JOINED,
        {"sources": [one.source for one in scores]},
    )


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's: the correlation of the ranks, equal values sharing their mean rank. NaN where one side is constant."""
    ranks = np.stack((_ranks(first), _ranks(second)))
    deviations = ranks - ranks.mean(axis=1, keepdims=True)
    lengths = np.sqrt((deviations**2).sum(axis=1))
    return float(deviations[0] @ deviations[1] / lengths.prod()) if lengths.all() else float("nan")


def _pairs(scores: Sequence[UnitScores], top: int) -> Iterator[Agreement]:
    for first, second in combinations(scores, 2):
        for layer in sorted({*first.layers} & {*second.layers}):
            yield _agreement(first, second, layer, top)


def _agreement(first: UnitScores, second: UnitScores, layer: int, top: int) -> Agreement:
    a, b = first.of(layer), second.of(layer)
    both = ~(np.isnan(a) | np.isnan(b))
    count = int(both.sum())
    top = min(top, count)
    a, b = a[both], b[both]
    common = np.intersect1d(np.argsort(-a, kind="stable")[:top], np.argsort(-b, kind="stable")[:top])
    return Agreement(
        layer=layer,
        first=first.source,
        second=second.source,
        units=count,
        correlation=rank_correlation(a, b) if count else float("nan"),
        top=top,
        overlap=len(common) / top if top else float("nan"),
        by_chance=top / count if count else float("nan"),
    )


def _mean_rank(of_sources: Sequence[np.ndarray]) -> Tensor:
    ranks = np.full((len(of_sources), len(of_sources[0])), np.nan)
    for row, values in zip(ranks, of_sources, strict=True):
        known = ~np.isnan(values)
        row[known] = _ranks(values[known]) / max(1, known.sum())
    scored = (~np.isnan(ranks)).sum(axis=0)
    return torch.from_numpy(np.where(scored, np.nansum(ranks, axis=0) / np.maximum(scored, 1), np.nan))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[place]
