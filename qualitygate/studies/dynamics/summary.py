"""One snapshot in numbers of fixed names, and what changed since the one before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from qualitygate import names
from qualitygate.studies.dynamics.measure import Scores
from qualitygate.units.score import rank_correlation


def summary(now: Scores, before: Scores | None = None) -> dict[str, float]:
    """All metrics of a snapshot by their names in `qualitygate.names`.

    What compares with the snapshot before is only there for layers that both have, in the same size.
    """
    found = {names.at_layer(metric, layer): value for metric, layer, value in _alone(now)}
    if before is not None:
        found |= {names.at_layer(metric, layer): value for metric, layer, value in _compared(now, before)}
    return found | {names.of_set(name): value for name, value in now.metrics.items()}


def rising_units(course: Sequence[Scores], layer: int, count: int = 10) -> list[tuple[int, float]]:
    """The units whose CLA rose most: from the lowest that it was to what it is in the last snapshot.

    Args:
        course: the snapshots in order; those that lack the layer, or have it in another size than the last, do not count.
        layer: index of the layer.
        count: how many units.

    Returns:
        unit and rise, the greatest first; empty where the last snapshot does not have the layer.
    """
    if not course or layer not in course[-1].unit_cla:
        return []
    last = course[-1].unit_cla[layer]
    units = [one.unit_cla[layer].mean(axis=0) for one in course if layer in one.unit_cla and one.unit_cla[layer].shape == last.shape]
    rise = units[-1] - np.min(units, axis=0)
    return [(int(unit), float(rise[unit])) for unit in np.argsort(-rise, kind="stable")[:count]]


def _alone(now: Scores) -> Iterator[tuple[str, int, float]]:
    for layer, scores in now.sample_cla.items():
        units = now.unit_cla[layer].mean(axis=0)
        yield names.CLA_MEAN, layer, float(scores.mean())
        yield names.CLA_Q90, layer, float(np.quantile(scores, 0.9))
        yield names.CLA_UNIT_Q99, layer, float(np.quantile(units, 0.99))
        yield names.CLA_UNIT_MAX, layer, float(units.max())
        yield names.ACTIVATION_SCALE, layer, now.scale[layer]
    for layer, rates in now.unit_rate.items():
        yield names.ACTIVATION_RATE, layer, float(rates.mean())
    for layer, low in now.low_rate.items():
        yield names.LOW_RATE_SHARE, layer, float(low.mean())
    for layer, parts in now.contribution.items():
        yield names.AGAINST_SHARE, layer, float((parts < 0).mean())
        yield names.AGAINST_CLA_RANK, layer, rank_correlation(-parts, now.unit_cla[layer].mean(axis=0))


def _compared(now: Scores, before: Scores) -> Iterator[tuple[str, int, float]]:
    for layer, low in now.low_rate.items():
        earlier = before.low_rate.get(layer)
        if earlier is not None and earlier.shape == low.shape:
            yield names.LOW_RATE_BORN, layer, float((low & ~earlier).mean())
            yield names.LOW_RATE_GONE, layer, float((earlier & ~low).mean())
    for layer, parts in before.contribution.items():
        rates = now.unit_rate.get(layer)
        if rates is None or rates.shape != parts.shape:
            continue
        change = rates - before.unit_rate[layer]
        for metric, units in ((names.AGAINST_RATE_CHANGE, parts < 0), (names.FOR_RATE_CHANGE, parts > 0)):
            if units.any():
                yield metric, layer, float(change[units].mean())
