"""Balls around samples up to their k-th nearest neighbour: what precision, recall, density, coverage and the realism score are made of.

Precision and recall are Kynkäänniemi et al. 2019 (a sample counts as inside a ball at ``d ≤ r``), density and coverage Naeem et al.
2020 (``d < r``, as their code has it), the realism score is of the former. Distances are searched in float32, by matrix products of
bounded size on the features' device; what is returned, and every comparison that rounding could turn, is computed again in float64 from
the features themselves. So nothing depends on sizes of batches, and a sample's own copy is at distance 0.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from qualitygate.errors import InputError
from qualitygate.generators.passes import scored_pass

K = 3
"""Neighbours, as in the paper."""

_QUERIES, _CENTRES = 4096, 8192  # one block of distances: 128 MiB
_SPARE = 4  # candidates beyond the k nearest in float32 whose exact distance is looked at
_EXACT = 2**22  # numbers in one block of differences


def neighbour_radii(features: Tensor, k: int = K) -> Tensor:
    """Distance of each sample to its k-th nearest other one: float64 (N,).

    Args:
        features: float32 or float64 (N, F).
        k: neighbours.

    Raises:
        InputError: no more than k samples.
    """
    if len(features) <= k:
        raise InputError(f"Too few samples for {k} neighbours", f"{len(features)} samples", f"at least {k + 1}")
    return nearest(features, features, k + 1)[:, k]  # the nearest of all is the sample itself


def nearest(queries: Tensor, centres: Tensor, k: int = 1, radii: Tensor | None = None) -> Tensor:
    """The k smallest distances of each query, in rising order: float64 (N, k).

    Args:
        queries: features (N, F).
        centres: features (M, F), M at least k.
        k: how many.
        radii: positive (M,): distances are counted in radii of the centre.
    """
    wanted = min(k + _SPARE, len(centres))
    weight = torch.ones(len(centres), dtype=torch.float64, device=centres.device) if radii is None else 1.0 / radii
    squared_weight = weight.square().float()
    parts = []
    for rows, blocks in _distances(queries, centres):
        values = torch.full((rows.stop - rows.start, 0), torch.inf, device=queries.device)
        places = torch.zeros_like(values, dtype=torch.int64)
        for columns, squared in blocks:
            best = (squared * squared_weight[columns]).topk(min(wanted, squared.shape[1]), largest=False)
            values = torch.cat((values, best.values), dim=1)
            places = torch.cat((places, best.indices + columns.start), dim=1)
            kept = values.topk(min(wanted, values.shape[1]), largest=False).indices
            values, places = values.gather(1, kept), places.gather(1, kept)
        owners = torch.arange(rows.start, rows.stop, device=queries.device).repeat_interleave(places.shape[1])
        exact = _exact(queries, centres, owners, places.flatten()).view(places.shape) * weight[places]
        parts.append(exact.sort(dim=1).values[:, :k])
    return torch.cat(parts)


def balls_around(queries: Tensor, centres: Tensor, radii: Tensor, *, strict: bool = False) -> Tensor:
    """In how many of the centres' balls each query lies: int64 (N,).

    Args:
        queries: features (N, F).
        centres: features (M, F).
        radii: float64 (M,).
        strict: whether the edge of a ball is outside.
    """
    counts = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
    limits = radii.square()
    rounding = 4.0 * torch.finfo(torch.float32).eps * max(1, queries.shape[1]) ** 0.5
    scale, others = _energies(queries, centres), _energies(centres, centres)
    for rows, blocks in _distances(queries, centres):
        for columns, squared in blocks:
            over = squared - limits[columns].float()
            margin = rounding * (scale[rows, None] + others[columns] + limits[columns].float())
            counts[rows] += (over < -margin).sum(dim=1)
            near, at = (over.abs() <= margin).nonzero(as_tuple=True)
            near, at = near + rows.start, at + columns.start
            exact, radius = _exact(queries, centres, near, at), radii[at]
            inside = exact < radius if strict else exact <= radius
            counts.index_add_(0, near, inside.long())
    return counts


def realism(generated: Tensor, real: Tensor, radii: Tensor) -> Tensor:
    """Realism score of each generated sample: float64 (N,), higher is better, at least 1 inside a ball.

    ``max over real r of NND_k(r) / |φ − r|``, over the real samples whose radius is at most the median. The paper's own ratio: its
    reference code returns the square of it. Real samples with a radius of 0, copies of each other, take no part. Infinite for a copy of
    a real sample.

    Args:
        generated: features (N, F).
        real: features (M, F).
        radii: `neighbour_radii` of the real ones.
    """
    kept = (radii <= radii.quantile(0.5)) & (radii > 0.0)
    if not bool(kept.any()):
        raise InputError(
            "There is no realism score against this real set",
            "real samples that are copies of each other",
            "different images",
            "check the real images, and that the extractor tells them apart",
        )
    return 1.0 / nearest(generated, real[kept], 1, radii[kept])[:, 0]


def coverage(generated: Tensor, real: Tensor, radii: Tensor) -> Tensor:
    """Whether each real sample's ball holds a generated one: bool (M,). Coverage is the mean."""
    return nearest(real, generated)[:, 0] < radii


def recall(generated: Tensor, real: Tensor, k: int = K) -> Tensor:
    """Whether each real sample lies in a ball of a generated one: bool (M,). Recall is the mean."""
    return balls_around(real, generated, neighbour_radii(generated, k)) > 0


def _distances(queries: Tensor, centres: Tensor) -> Iterator[tuple[slice, Iterator[tuple[slice, Tensor]]]]:
    """Squared distances in float32, block by block: rows, and for them columns with their block."""
    middle = centres.double().mean(dim=0)  # without it a common offset would eat the digits
    first, second = (queries.double() - middle).float(), (centres.double() - middle).float()
    lengths = second.square().sum(dim=1)

    def blocks(part: Tensor, own: Tensor) -> Iterator[tuple[slice, Tensor]]:
        for start in range(0, len(second), _CENTRES):
            columns = slice(start, min(start + _CENTRES, len(second)))
            product = torch.addmm(lengths[columns], part, second[columns].T, alpha=-2.0)
            yield columns, product.add_(own[:, None]).clamp_(min=0.0)

    with scored_pass():
        for start in range(0, len(first), _QUERIES):
            rows = slice(start, min(start + _QUERIES, len(first)))
            part = first[rows]
            yield rows, blocks(part, part.square().sum(dim=1))


def _energies(features: Tensor, centres: Tensor) -> Tensor:
    """Squared lengths from the centres' mean, the scale of rounding in a squared distance: float32 (N,)."""
    return (features.double() - centres.double().mean(dim=0)).square().sum(dim=1).float()


def _exact(queries: Tensor, centres: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Distances of pairs in float64: (P,)."""
    step = max(1, _EXACT // queries.shape[1])
    parts = [
        torch.linalg.vector_norm(queries[one].double() - centres[other].double(), dim=1)
        for one, other in zip(rows.split(step), columns.split(step), strict=True)
    ]
    return torch.cat(parts)
