"""The numbers of the table: from what a method says and what is true."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

REPAIRED = 0.5
"""A sample is repaired if it is nearer to the true repair than this fraction of the defect's own distance."""


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Mann-Whitney: probability that a positive scores higher than a negative, ties counting half."""
    values, inverse = np.unique(scores, return_inverse=True)
    positives = np.bincount(inverse[positive], minlength=len(values))
    negatives = np.bincount(inverse[~positive], minlength=len(values))
    below = np.cumsum(negatives) - negatives
    return float((positives * (below + 0.5 * negatives)).sum() / (positives.sum() * negatives.sum()))


def recall(scores: np.ndarray, positive: np.ndarray, share: float, rejected: float) -> float:
    """Share of the positives among the ``rejected`` share of all samples that score highest, in a mix of which ``share`` is positive.

    Ties at the limit are rejected at random: the expected recall.
    """
    values, inverse = np.unique(-scores, return_inverse=True)
    found = np.cumsum(np.bincount(inverse[positive], minlength=len(values))) / positive.sum()
    false = np.cumsum(np.bincount(inverse[~positive], minlength=len(values))) / (~positive).sum()
    all_rejected = share * found + (1.0 - share) * false
    return float(np.interp(rejected, np.concatenate([[0.0], all_rejected]), np.concatenate([[0.0], found])))


def iou(heat: Tensor, pixels: Tensor) -> float:
    """Mean over samples of the intersection over union of the planted pixels and as many hottest pixels."""
    count = int(pixels.sum())
    hottest = heat.flatten(1).topk(count, dim=1).indices
    common = pixels.flatten()[hottest].double().sum(dim=1)
    return float((common / (2 * count - common)).mean())


def chance_iou(pixels: Tensor) -> float:
    """What `iou` gives, nearly, for heat that knows nothing."""
    share = float(pixels.double().mean())
    return share / (2.0 - share)


def unit_recall(scores: dict[int, Tensor], planted: dict[int, tuple[int, ...]], top: int | None) -> float:
    """Share of the planted units among the ``top`` of their layer (as many as were planted there, if None), over the layers ranked."""
    found = total = 0
    for layer in scores.keys() & planted.keys():
        units = planted[layer]
        first = scores[layer].argsort(descending=True, stable=True)[: top or len(units)]
        found += int(torch.isin(torch.tensor(units), first).sum())
        total += len(units)
    return found / total if total else float("nan")


def repaired_share(corrected: Tensor, best: Tensor, made: Tensor, pixels: Tensor) -> float:
    """Share of the planted pixels of all samples that come nearer to the true repair than `REPAIRED` of their own distance; pixels that
    the mark left as they were do not count."""
    left, own = ((images - best).abs().mean(dim=1)[:, pixels] for images in (corrected, made))
    wrong = own > 0
    return float((left[wrong] < REPAIRED * own[wrong]).double().mean())


def distance(a: Tensor, b: Tensor, pixels: Tensor | None = None) -> np.ndarray:
    """Mean absolute difference of images over the range of values, (N,): of the given pixels, or of all."""
    difference = (a - b).abs().mean(dim=1).flatten(1)
    chosen = difference if pixels is None else difference[:, pixels.flatten()]
    return (chosen.double().mean(dim=1) / 2.0).numpy()
