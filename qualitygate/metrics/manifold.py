"""Balls around samples up to their k-th nearest neighbour: what precision, recall, density, coverage, realism and rarity are made of.

Precision and recall are Kynkäänniemi et al. 2019 (a sample counts as inside a ball at ``d ≤ r``), density and coverage Naeem et al.
2020 (``d < r``, as their code has it), the realism score is of the former, the rarity score of Han et al. 2023. Distances are searched in
float32, by matrix products of bounded size on the features' device; what is returned, and every comparison that rounding could turn, is
computed again in float64 from the features themselves. So nothing depends on sizes of batches, and a sample's own copy is at distance 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from qualitygate.errors import InputError
from qualitygate.generators.passes import on_host, positions, scored_pass
from qualitygate.metrics.estimate import Estimate, NotKnownError, Resampling, blocks_of, mean
from qualitygate.metrics.metric import SetMetric

if TYPE_CHECKING:
    from qualitygate.metrics.measured_set import Group

K = 3
"""Neighbours, as in the papers."""
RARE = 0.9
"""Quantile of the real images' radii above which a ball is of a rare one (choice)."""

_QUERIES, _CENTRES = 4096, 8192  # one block of distances: 128 MiB
_SPARE = 4  # candidates beyond the k nearest in float32 whose exact distance is looked at
_EXACT = 2**22  # numbers in one block of differences


class _Neighbours(SetMetric):
    """A metric of the k nearest neighbours."""

    def settings(self, group: Group) -> Mapping[str, float | str]:
        return {"k": float(group.real.k)}


class Precision(_Neighbours):
    """Share of the group that lies in a ball of a real image."""

    def compute(self, group: Group, how: Resampling | None) -> Estimate:
        return mean(group.of.inside[group.rows], how, step=1.0)


class Density(_Neighbours):
    """Mean number of real balls around a sample, over k."""

    def compute(self, group: Group, how: Resampling | None) -> Estimate:
        return mean(group.of.density[group.rows], how)


class Realism(_Neighbours):
    """Mean realism score; a copy of a real image has no finite one."""

    def compute(self, group: Group, how: Resampling | None) -> Estimate:
        found = mean(group.of.realism[group.rows], how)
        copies = f"{found.left_out} of infinite value (copies of real images) are left out"
        return replace(found, note="; ".join(filter(None, (copies * bool(found.left_out), found.note))) or None)


class Rarity(_Neighbours):
    """Mean rarity score of the samples in a ball of a real image; the others have none. Neither more nor less of it is better."""

    def compute(self, group: Group, how: Resampling | None) -> Estimate:
        scores = group.of.rarity[group.rows]
        outside = int(np.isnan(scores).sum())
        if outside == len(scores):
            raise NotKnownError(f"none of {len(scores)} samples lies in a ball of a real image")
        found = mean(scores, how)
        lacking = f"{outside} of {len(scores)} samples lie in no ball of a real image and have none"
        return replace(found, note="; ".join(filter(None, (lacking * bool(outside), found.note))) or None)


class RareShare(_Neighbours):
    """Share of the group that lies in balls of the sparsest tenth of the real images alone. Neither more nor less of it is better."""

    def compute(self, group: Group, how: Resampling | None) -> Estimate:
        return mean(group.of.rare[group.rows], how, step=1.0)

    def settings(self, group: Group) -> Mapping[str, float | str]:
        return {**super().settings(group), "quantile": RARE}


class Recall(_Neighbours):
    """Share of the real images that lie in a ball of a sample of the group."""

    def compute(self, group: Group, how: Resampling | None) -> Estimate:
        return _reached(group, how, lambda blocks: recall(group.features, group.real.features, group.real.k, blocks))


class Coverage(_Neighbours):
    """Share of the real images whose ball holds a sample of the group."""

    def compute(self, group: Group, how: Resampling | None) -> Estimate:
        return _reached(group, how, lambda blocks: coverage(group.features, group.real.features, group.real.radii, blocks))


def _reached(group: Group, how: Resampling | None, reached: Callable[[Sequence[np.ndarray]], Tensor]) -> Estimate:
    """A share of the real images, and a number of the whole group: it is drawn again by leaving out blocks of the group."""
    count, k = len(group), group.real.k
    if count <= k:
        raise NotKnownError(f"too few: {count} samples for {k} neighbours")
    blocks = [] if how is None else blocks_of(count, seed=how.seed)
    if blocks and count - len(blocks[0]) <= k:
        blocks = []
    share, *without = on_host(reached(blocks).double().mean(dim=1)).tolist()
    return Estimate.jackknife(share, without, count) if without else Estimate(share, count)


def neighbour_radii(features: Tensor, k: int = K) -> Tensor:
    """Distance of each sample (N, F) to its k-th nearest other one: float64 (N,).

    Raises:
        InputError: no more than k samples.
    """
    return _kth([nearest(features, features, k + 1)], k)


def nearest(queries: Tensor, centres: Tensor, k: int = 1, radii: Tensor | None = None) -> Tensor:
    """The k smallest distances of each query (N, F) to centres (M, F), in rising order: float64 (N, k).

    Where positive ``radii`` (M,) are given, distances are counted in radii of the centre.
    """
    wanted = min(k + _SPARE, len(centres))
    weight = torch.ones(len(centres), dtype=torch.float64, device=centres.device) if radii is None else 1.0 / radii
    squared_weight = weight.square().float()
    parts = []
    for rows, blocks in _distances(queries, centres):
        best = [
            (squared * squared_weight[columns]).topk(min(wanted, squared.shape[1]), largest=False).indices + columns.start
            for columns, squared in blocks
        ]
        places = torch.cat(best, dim=1)
        owners = torch.arange(rows.start, rows.stop, device=queries.device).repeat_interleave(places.shape[1])
        exact = _exact(queries, centres, owners, places.flatten()).view(places.shape) * weight[places]
        parts.append(exact.sort(dim=1).values[:, :k])
    return torch.cat(parts)


def balls_around(queries: Tensor, centres: Tensor, radii: Tensor, *, strict: bool = False) -> Tensor:
    """In how many balls, of centres (M, F) and radii float64 (M,), each query (N, F) lies: int64 (N,). The edge of a ball is inside, unless
    ``strict``."""
    counts = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
    for rows, _, inside in _in_balls(queries, centres, radii, strict=strict):
        counts[rows] += inside.sum(dim=1)
    return counts


def realism(generated: Tensor, real: Tensor, radii: Tensor) -> Tensor:
    """Realism score of each generated sample (N, F) against real ones (M, F) and their `neighbour_radii`: float64 (N,), higher is better,
    at least 1 inside a ball.

    ``max over real r of NND_k(r) / |φ − r|``, over the real samples whose radius is at most the median. The paper's own ratio: its
    reference code returns the square of it. Real samples with a radius of 0, copies of each other, take no part. Infinite for a copy of
    a real sample.
    """
    (kept,) = positions((radii <= radii.quantile(0.5)) & (radii > 0.0))
    if not len(kept):
        raise InputError(
            "There is no realism score against this real set",
            "real samples that are copies of each other",
            "different images",
            "check the real images, and that the extractor tells them apart",
        )
    return 1.0 / nearest(generated, real[kept], 1, radii[kept])[:, 0]


def rarity(generated: Tensor, real: Tensor, radii: Tensor) -> Tensor:
    """Rarity score of each generated sample (N, F) against real ones (M, F) and their `neighbour_radii`: float64 (N,), higher is rarer, NaN
    for a sample that lies in no ball: it is no part of what the real ones show, and has none.

    ``min over real r whose ball holds φ of NND_k(r)`` (Han et al. 2023). The edge of a ball is inside, as for precision; their
    code has it outside, and 0 in the place of NaN.
    """
    order = radii.argsort()
    real, radii = real[order], radii[order]
    found = torch.full((len(generated),), torch.nan, dtype=torch.float64, device=generated.device)
    for rows, columns, inside in _in_balls(generated, real, radii):
        held, first = inside.byte().max(dim=1)  # the first of equal ones
        found[rows] = torch.where(found[rows].isnan() & (held > 0), radii[columns][first], found[rows])
    return found


def coverage(generated: Tensor, real: Tensor, radii: Tensor, blocks: Sequence[np.ndarray] = ()) -> Tensor:
    """Whether the ball of each real sample (M, F), of its `neighbour_radii`, holds a generated one (N, F): bool (1 + blocks, M). Coverage
    is the mean of a row.

    The first row is of all generated samples; for a jackknife, the others are of them without each block, the rows of a part of the
    samples. All blocks together are the whole set.
    """
    near = torch.stack([nearest(real, generated[part])[:, 0] for part in _parts(generated, blocks)])
    in_turn = [near, *(torch.cat([near[:place], near[place + 1 :]]) for place in range(len(blocks)))]
    return torch.stack([distances.min(dim=0).values < radii for distances in in_turn])


def recall(generated: Tensor, real: Tensor, k: int = K, blocks: Sequence[np.ndarray] = ()) -> Tensor:
    """Whether each real sample lies in a ball of a generated one: bool (1 + blocks, M); rows, and the other arguments, as of `coverage`.

    Without a block the balls that lose a neighbour grow, a few of all: only these are looked at again.

    Raises:
        InputError: no more than k generated samples, or no more without a block.
    """
    parts = _parts(generated, blocks)
    near = [nearest(generated, generated[part], min(k + 1, len(part))) for part in parts]
    radii = _kth(near, k)
    counts = torch.stack([balls_around(real, generated[part], radii[part]) for part in parts])
    reached = [counts.sum(dim=0) > 0]
    for place, part in enumerate(parts[: len(blocks)]):
        found = counts.sum(dim=0) - counts[place] > 0
        grown = _kth(near[:place] + near[place + 1 :], k)
        larger = grown > radii
        larger[part] = False
        (others,), (balls,) = positions(~found), positions(larger)
        if len(others) and len(balls):
            found[others] = balls_around(real[others], generated[balls], grown[balls]) > 0
        reached.append(found)
    return torch.stack(reached)


def _parts(generated: Tensor, blocks: Sequence[np.ndarray]) -> list[Tensor]:
    """Rows of each block; of all samples where there are none."""
    return [torch.from_numpy(block).to(generated.device) for block in blocks or (np.arange(len(generated)),)]


def _kth(near: Sequence[Tensor], k: int) -> Tensor:
    """Distance to the k-th nearest other sample, float64 (N,), from the nearest of each part; the nearest of all is the sample itself."""
    distances = torch.cat(list(near), dim=1)
    if distances.shape[1] <= k:
        raise InputError(f"Too few samples for {k} neighbours", f"{distances.shape[1]} samples", f"at least {k + 1}")
    return distances.sort(dim=1).values[:, k]


def _in_balls(queries: Tensor, centres: Tensor, radii: Tensor, *, strict: bool = False) -> Iterator[tuple[slice, slice, Tensor]]:
    """Whether queries (N, F) lie in balls, of centres (M, F) and radii float64 (M,), block by block: rows, columns, bool (n, m)."""
    limits = radii.square()
    rounding = 4.0 * torch.finfo(torch.float32).eps * max(1, queries.shape[1]) ** 0.5
    scale, others = _energies(queries, centres), _energies(centres, centres)
    for rows, blocks in _distances(queries, centres):
        for columns, squared in blocks:
            over = squared - limits[columns].float()
            margin = rounding * (scale[rows, None] + others[columns] + limits[columns].float())
            inside = over < 0.0
            near, at = positions(over.abs() <= margin)
            exact, radius = _exact(queries, centres, near + rows.start, at + columns.start), radii[at + columns.start]
            inside[near, at] = exact < radius if strict else exact <= radius
            yield rows, columns, inside


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
