"""Distances between sets of features in one pass, tile by tile, that serves every reader at once.

A tile is found in float32, by a matrix product of bounded size on the features' device. What readers return, and every comparison that
rounding could turn, is computed again in float64 from the features themselves. So nothing depends on the size of tiles, and a sample's own
copy is at distance 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from qualitygate.generators.passes import positions, scored_pass

_SIDE = 1024  # most rows and columns of a tile: 4 MiB
_SPARE = 4  # candidates beyond the k nearest in float32 whose exact distance is looked at
_EXACT = 2**20  # numbers in one block of differences


@dataclass(frozen=True)
class _Chunk:
    """Some samples of one part of a set: which, int64 (n,); their features from the centre of the pass, float32 (n, F); squared lengths."""

    part: int
    at: Tensor
    features: Tensor
    lengths: Tensor


@dataclass(frozen=True)
class Tile:
    """Squared distances, float32 (r, c), of some samples of one part of a set from some of one part of another."""

    sets: tuple[Tensor, Tensor]
    rows: _Chunk
    columns: _Chunk
    squared: Tensor

    @property
    def turned(self) -> Tile:
        """The same distances seen from the other set."""
        return Tile(self.sets[::-1], self.columns, self.rows, self.squared.T.contiguous())

    @cached_property
    def _lower(self) -> Tensor:
        """What the squared distances are at least, up to the rounding of the limit that they are held against."""
        step = rounding(self.sets[0])
        return self.squared - step * self.rows.lengths[:, None] - step * self.columns.lengths

    def within(self, radii: Tensor, each: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pairs that may be within radii, float64 (r, 1) or (1, c), of each other: row and column in their sets, int64 (P,) each; whether
        they are, with the edge and without it, bool (P, 1) each. Or by ``each`` of some radii of the row, float64 (r, T), none larger than
        the row's: bool (P, T)."""
        limits, step = radii.square().float(), rounding(self.sets[0])
        i, j = positions(self._lower <= limits * (1.0 + step))
        squared, limits = self.squared[i, j], limits.expand_as(self.squared)[i, j]
        off = step * (self.rows.lengths[i] + self.columns.lengths[j] + limits)
        bounds = radii.expand_as(self.squared)[i, j][:, None] if each is None else each[i]
        over = squared[:, None] - bounds.square().float()
        rows, columns = self.rows.at[i], self.columns.at[j]
        inside, strictly = over < 0.0, over < 0.0
        (near,) = positions((over.abs() <= off[:, None]).any(dim=1))
        distances = exact_distances(*self.sets, rows[near], columns[near])[:, None]
        inside[near], strictly[near] = distances <= bounds[near], distances < bounds[near]
        return rows, columns, inside, strictly


class Reader(Protocol):
    """What takes its part of every tile of a pass."""

    def add(self, tile: Tile) -> None: ...


def between(first: Tensor, second: Tensor, readers: Sequence[Reader], rows: Sequence[Tensor] = (), columns: Sequence[Tensor] = ()) -> None:
    """One pass over all distances of a set (N, F) from another (M, F). ``rows`` and ``columns`` are the parts, int64 (n,) each, that a tile
    holds one of; together they are the set, which by default is one part."""
    middle = _middle(second)
    with scored_pass():
        others = list(_chunks(second, columns, middle))
        for one in _chunks(first, rows, middle):
            for other in others:
                _read(Tile((first, second), one, other, _squared(one, other)), readers)


def among(features: Tensor, readers: Sequence[Reader], parts: Sequence[Tensor] = ()) -> None:
    """One pass over all distances within a set (N, F), each computed once and read from both of its ends."""
    with scored_pass():
        chunks = list(_chunks(features, parts, _middle(features)))
        for place, one in enumerate(chunks):
            for other in chunks[place:]:
                tile = Tile((features, features), one, other, _squared(one, other))
                _read(tile, readers)
                if one is not other:
                    _read(tile.turned, readers)


class Nearest:
    """A reader that finds the k-th smallest distance of each of N samples, from all columns of the first ``parts`` parts.

    With weights float64 (M,), distances are multiplied by that of the column."""

    def __init__(self, samples: Tensor, k: int, parts: int = 1, weight: Tensor | None = None) -> None:
        self.k, self.weight = k, weight
        shape, device = (len(samples), parts, k + _SPARE), samples.device
        self._least = torch.full(shape, torch.inf, device=device)  # squared, of each part
        self._places = torch.full(shape, -1, dtype=torch.int64, device=device)
        self._lengths = torch.zeros(len(samples), device=device)

    def add(self, tile: Tile) -> None:
        part, at = tile.columns.part, tile.rows.at
        if part >= self._least.shape[1]:
            return
        squared = tile.squared if self.weight is None else tile.squared * self.weight[tile.columns.at].square().float()
        least, places = squared.topk(min(self.k + _SPARE, squared.shape[1]), largest=False)
        least = torch.cat((self._least[at, part], least), dim=1)
        places = torch.cat((self._places[at, part], tile.columns.at[places]), dim=1)
        least, best = least.topk(self.k + _SPARE, largest=False)
        self._least[at, part], self._places[at, part], self._lengths[at] = least, places.gather(1, best), tile.rows.lengths

    def distances(self, samples: Tensor, others: Tensor, without: Sequence[int | None] = (None,)) -> Tensor:
        """The distance from all parts, and without one of them: float64 (N, without), NaN where there are no k. Of samples (N, F) and
        others (M, F) themselves, which the tiles were of."""
        order = self._least.flatten(1).argsort(dim=1, stable=True)
        least, places = (one.flatten(1).gather(1, order) for one in (self._least, self._places))
        part = order // (self.k + _SPARE)
        weight = torch.ones((), dtype=torch.float64) if self.weight is None else self.weight[places]
        # by how much each may be off; its other end is no longer than this one and the distance together
        off = rounding(samples) * (3.0 * self._lengths[:, None] * weight.square().float() + 2.0 * least)
        low, high = ((least + sign * off).masked_fill(places < 0, torch.inf) for sign in (-1.0, 1.0))
        exact = torch.full(places.shape, torch.nan, dtype=torch.float64, device=places.device)
        found = []
        for left_out in without:
            gone = part == (-1 if left_out is None else left_out)
            lows, highs = low.masked_fill(gone, torch.inf), high.masked_fill(gone, torch.inf)
            below = highs < lows.kthvalue(self.k, dim=1, keepdim=True).values  # surely nearer than the k-th
            near = ~below & (lows <= highs.kthvalue(self.k, dim=1, keepdim=True).values)
            rows, columns = positions(near & (places >= 0) & exact.isnan())
            exact[rows, columns] = exact_distances(samples, others, rows, places[rows, columns])
            candidates = (exact * weight).masked_fill(~near | (places < 0), torch.nan).sort(dim=1).values
            found.append(candidates.gather(1, self.k - 1 - below.sum(dim=1, keepdim=True))[:, 0])
        return torch.stack(found, dim=1)


def exact_distances(first: Tensor, second: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Distances of pairs of rows int64 (P,) of features (N, F) and (M, F): float64 (P,)."""
    step = max(1, _EXACT // first.shape[1])
    parts = [
        torch.linalg.vector_norm(first[one].double() - second[other].double(), dim=1)
        for one, other in zip(rows.split(step), columns.split(step), strict=True)
    ]
    return torch.cat(parts)


def rounding(features: Tensor) -> float:
    """By how much a squared distance of features (N, F) in float32 may be off, as a share of the squared lengths that it is made of."""
    return 4.0 * torch.finfo(torch.float32).eps * max(1, features.shape[1]) ** 0.5


def _read(tile: Tile, readers: Sequence[Reader]) -> None:
    for reader in readers:
        reader.add(tile)


def _chunks(features: Tensor, parts: Sequence[Tensor], middle: Tensor) -> Iterator[_Chunk]:
    for part, rows in enumerate(parts or (torch.arange(len(features), device=features.device),)):
        for at in rows.split(_SIDE) if len(rows) else ():
            centred = features[at].double().sub_(middle).float()
            yield _Chunk(part, at, centred, centred.square().sum(dim=1))


def _middle(features: Tensor) -> Tensor:
    """Mean (F,): without it a common offset would eat the digits."""
    return torch.stack([part.double().sum(dim=0) for part in features.split(_SIDE)]).sum(dim=0) / len(features)


def _squared(one: _Chunk, other: _Chunk) -> Tensor:
    product = torch.addmm(other.lengths, one.features, other.features.T, alpha=-2.0)
    return product.add_(one.lengths[:, None]).clamp_(min=0.0)
