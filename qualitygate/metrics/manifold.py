"""Precision, recall, density, coverage, realism and rarity, and how many samples are copies: what `neighbourhoods` of a set say of a group.

Precision and recall are Kynkäänniemi et al. 2019, density and coverage Naeem et al. 2020, the realism score is of the former, the rarity
score of Han et al. 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from qualitygate.generators.passes import on_host
from qualitygate.metrics.estimate import Estimate, NotKnownError, Resampling, mean
from qualitygate.metrics.metric import SetMetric
from qualitygate.metrics.neighbourhoods import NEAR, RARE, Neighbourhoods

if TYPE_CHECKING:
    from qualitygate.metrics.measured_set import Group, MeasuredSet


class _Neighbours(SetMetric):
    """A metric of the k nearest neighbours."""

    def settings(self, group: Group) -> Mapping[str, float | str]:
        return {"k": float(group.real.k)}


class Precision(_Neighbours):
    """Share of the group that lies in a ball of a real image."""

    def compute(self, group: Group, how: Resampling | None) -> Estimate:
        return mean(_whole(group, how).inside[group.rows], how, step=1.0)


class Density(_Neighbours):
    """Mean number of real balls around a sample, over k."""

    def compute(self, group: Group, how: Resampling | None) -> Estimate:
        return mean(_whole(group, how).density[group.rows], how)


class Realism(_Neighbours):
    """Mean realism score of the samples that are no copies of a real image: a copy's is as high as one likes."""

    def compute(self, group: Group, how: Resampling | None) -> Estimate:
        whole = _whole(group, how)
        if not group.real.has_realism:
            raise NotKnownError(f"half of {group.real.name} or more have {group.real.k} copies: no radius to hold a distance against")
        copied = whole.copied[group.rows] > 0.0
        if copied.all():
            raise NotKnownError(f"all {len(copied)} samples are copies of real images, or nearly")
        return _without(copied, whole.realism[group.rows], how, "are copies of real images, or nearly, and left out")


class Copies(_Neighbours):
    """Share of the group that are copies of a real image, or nearly."""

    def compute(self, group: Group, how: Resampling | None) -> Estimate:
        return mean(_whole(group, how).copied[group.rows], how, step=1.0)

    def settings(self, group: Group) -> Mapping[str, float | str]:
        return {**super().settings(group), "near": NEAR}


class Rarity(_Neighbours):
    """Mean rarity score of the samples in a ball of a real image; the others have none. Neither more nor less of it is better."""

    def compute(self, group: Group, how: Resampling | None) -> Estimate:
        scores = _whole(group, how).rarity[group.rows]
        outside = np.isnan(scores)
        if outside.all():
            raise NotKnownError(f"none of {len(scores)} samples lies in a ball of a real image")
        return _without(outside, scores, how, "lie in no ball of a real image and have none")


class RareShare(_Neighbours):
    """Share of the group that lies in balls of the sparsest tenth of the real images alone. Neither more nor less of it is better."""

    def compute(self, group: Group, how: Resampling | None) -> Estimate:
        return mean(_whole(group, how).rare[group.rows], how, step=1.0)

    def settings(self, group: Group) -> Mapping[str, float | str]:
        return {**super().settings(group), "quantile": RARE}


class Recall(_Neighbours):
    """Share of the real images that lie in a ball of a sample of the group."""

    def compute(self, group: Group, how: Resampling | None) -> Estimate:
        return _share(group, how, lambda found: found.reached)


class Coverage(_Neighbours):
    """Share of the real images whose ball holds a sample of the group."""

    def compute(self, group: Group, how: Resampling | None) -> Estimate:
        return _share(group, how, lambda found: found.covered)


def _without(some: np.ndarray, scores: np.ndarray, how: Resampling | None, why: str) -> Estimate:
    """Mean of scores, float64 (n,), without those of some, bool (n,); the note says how many, and why."""
    found = mean(np.where(some, np.nan, scores), how)
    notes = [f"{some.sum()} of {len(some)} samples {why}"] if some.any() else []
    return replace(found, note="; ".join([*notes, *filter(None, [found.note])]) or None)


def _whole(group: Group, how: Resampling | None) -> MeasuredSet:
    """The set that the group is of, its pass made with the blocks that recall and coverage leave out: so one pass serves all."""
    group.of.neighbourhoods(how)
    return group.of


def _share(group: Group, how: Resampling | None, which: Callable[[Neighbourhoods], Tensor]) -> Estimate:
    """A share of the real images, and a number of the whole group: it is drawn again by leaving out blocks of the group."""
    count, k = len(group), group.real.k
    if count <= k:
        raise NotKnownError(f"too few: {count} samples for {k} neighbours")
    share, *without = on_host(which(group.neighbourhoods(how)).double().mean(dim=1)).tolist()
    if not without or how is None:
        return Estimate(share, count)
    return replace(Estimate.jackknife(share, without, count), step=1.0 / count)
