"""Inception score (Salimans et al. 2016): ``exp(E[KL(p(y|x) ‖ p(y))])`` of class probabilities, over splits of the set.

It knows no real images and rewards a generator that makes one good image of every class of the classifier. The order of the samples
decides which split they fall in, as in the original code.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor

from qualitygate.errors import InputError
from qualitygate.generators.passes import on_host
from qualitygate.metrics.estimate import Estimate, NotKnownError, Resampling
from qualitygate.metrics.measured_set import Group
from qualitygate.metrics.metric import SetMetric

SPLITS = 10


class InceptionScore(SetMetric):
    """Its mean over the splits, the interval from how these differ."""

    def settings(self, group: Group) -> Mapping[str, float | str]:
        return {"splits": float(SPLITS)}

    def compute(self, group: Group, how: Resampling | None) -> Estimate:
        if len(group) < SPLITS:
            raise NotKnownError(f"too few: {len(group)} samples for {SPLITS} splits")
        assert group.of.classes is not None
        classes = group.of.classes
        scores = on_host(split_scores(classes[torch.from_numpy(group.rows).to(classes.device)]))
        value = float(scores.mean())
        if how is None:
            return Estimate(value, len(group))
        return Estimate.jackknife(value, ((scores.sum() - scores) / (SPLITS - 1)).numpy(), len(group))


def split_scores(probabilities: Tensor, splits: int = SPLITS) -> Tensor:
    """The score of each split, float64 (splits,): the inception score is their mean, and what is stated beside it their deviation.

    ``probabilities`` are (N, classes), rows that sum to 1; splits are consecutive and of (nearly) equal size.

    >>> split_scores(torch.eye(4), splits=1)
    tensor([4.], dtype=torch.float64)

    Raises:
        InputError: fewer samples than splits.
    """
    count = len(probabilities)
    if count < splits:
        raise InputError("Too few samples for the inception score", f"{count} samples", f"at least {splits}, one a split")
    edges, scores = [count * index // splits for index in range(splits + 1)], []
    for start, stop in pairwise(edges):
        p = probabilities[start:stop].double()
        scores.append((torch.xlogy(p, p) - torch.xlogy(p, p.mean(dim=0))).sum(dim=1).mean().exp())
    return torch.stack(scores)
