"""Inception score (Salimans et al. 2016): ``exp(E[KL(p(y|x) ‖ p(y))])`` of class probabilities, over splits of the set.

It knows no real images and rewards a generator that makes one good image of every class of the classifier. The order of the samples
decides which split they fall in, as in the original code.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from qualitygate.errors import InputError

SPLITS = 10


def inception_score(probabilities: Tensor, splits: int = SPLITS) -> tuple[float, float]:
    """Mean and standard deviation over the splits, in float64.

    Args:
        probabilities: (N, classes), rows that sum to 1; a class with probability 0 adds nothing.
        splits: consecutive parts of (nearly) equal size.

    >>> inception_score(torch.eye(4), splits=1)
    (4.0, 0.0)

    Raises:
        InputError: fewer samples than splits.
    """
    if len(probabilities) < splits:
        raise InputError("Too few samples for the inception score", f"{len(probabilities)} samples", f"at least {splits}, one a split")
    count = len(probabilities)
    edges = [count * index // splits for index in range(splits + 1)]
    exact = probabilities.double()
    scores = torch.stack([_score(exact[start:stop]) for start, stop in pairwise(edges)])
    return float(scores.mean()), float(scores.std(correction=0))


def _score(p: Tensor) -> Tensor:
    marginal = p.mean(dim=0)
    return (torch.xlogy(p, p) - torch.xlogy(p, marginal)).sum(dim=1).mean().exp()
