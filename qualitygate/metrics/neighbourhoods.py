"""Balls around samples up to their k-th nearest neighbour: what precision, recall, density, coverage, realism and rarity are made of.

A sample counts as inside a ball at ``d ≤ r`` for precision and recall (Kynkäänniemi et al. 2019), at ``d < r`` for density and coverage
(Naeem et al. 2020, as their code has it). All of them, and what they are without each block of the generated samples, come from one pass
over the distances of these from the real ones, once each set's own have given the radii.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qualitygate.errors import InputError
from qualitygate.generators.passes import positions
from qualitygate.metrics.distances import Nearest, Tile, among, between

K = 3
"""Neighbours, as in the papers."""
RARE = 0.9
"""Quantile of the real images' radii above which a ball is of a rare one (choice)."""
NEAR = 0.2
"""Share of a real image's radius within which a sample is a copy of it (choice). In D dimensions an honest one is with a chance of about
``k · NEAR^D``, 2e-4 at D = 6; of 897 real digits held out against 900 others none was (the least ratio was 0.36)."""


@dataclass(frozen=True)
class Neighbourhoods:
    """How N generated and M real samples lie in each other's balls.

    Attributes:
        inside: in how many balls of real samples, edges included, each generated one lies, int64 (N,).
        strictly: the same without the edges.
        rarity: score of each generated sample, float64 (N,), higher is rarer: ``min over real r whose ball holds φ of NND_k(r)`` (Han et
            al. 2023). NaN for a sample that lies in no ball: it is no part of what the real ones show. The edge of a ball is inside, as for
            precision; their code has it outside, and 0 in the place of NaN.
        covered: whether each real ball, without its edge, holds a generated sample, bool (1 + blocks, M). Coverage is the mean of a row:
            the first is of all generated samples, the others of them without each block.
        reached: whether each real sample lies in the ball of a generated one, bool (1 + blocks, M), as ``covered``. Recall is the mean of a
            row. Nothing with no more than k generated samples.
        copied: whether each generated sample is within `NEAR` of the radius of a real one, edge included: a copy or nearly, bool (N,).
    """

    inside: Tensor
    strictly: Tensor
    rarity: Tensor
    covered: Tensor
    reached: Tensor
    copied: Tensor
    _nearest: Tensor | None

    @property
    def realism(self) -> Tensor:
        """Realism score of each generated sample: float64 (N,), higher is better, at least 1 inside a ball.

        ``max over real r of NND_k(r) / |φ − r|``, over the real samples whose radius is at most the median. The paper's own ratio: its
        reference code returns the square of it. Real samples with a radius of 0, copies of each other, take no part. Infinite for a copy
        of a real sample.

        Raises:
            InputError: there is no real sample with another radius.
        """
        if self._nearest is None:
            raise InputError(
                "There is no realism score against this real set",
                "real samples that are copies of each other",
                "different images",
                "check the real images, and that the extractor tells them apart",
            )
        return 1.0 / self._nearest


def neighbourhoods(
    generated: Tensor, real: Tensor, radii: Tensor, k: int = K, blocks: Sequence[Tensor] = (), *, apart: Tensor | None = None
) -> Neighbourhoods:
    """How generated samples (N, F) and real ones (M, F), of `neighbour_radii` ``radii``, lie in each other's balls: one pass over the
    distances among the generated ones, and one over those between the sets.

    ``blocks``, rows int64 (n,) each and together all of N, are left out one at a time for a jackknife. ``apart``, float64 (M,), are the
    radii that near copies are told by, where they are others: those among different real samples.
    """
    counts = (radii <= radii.quantile(0.5)) & (radii > 0.0)  # for realism
    nearest = Nearest(generated, 1, weight=1.0 / radii)
    balls = _RealBalls(len(generated), radii, max(1, len(blocks)))
    reached = _GeneratedBalls(_radii(generated, k, blocks) if len(generated) > k else radii.new_zeros(0, 0), len(real))
    columns = [positions(one)[0] for one in (counts, ~counts)]
    copies = _Copies(len(generated), radii if apart is None else apart)
    between(generated, real, (balls, nearest, copies, *([reached] if len(generated) > k else [])), blocks, columns)
    return Neighbourhoods(
        balls.inside,
        balls.strictly,
        torch.where(balls.inside > 0, balls.rarity, torch.nan),
        _left_out(balls.covered) if blocks else balls.covered,
        reached.reached,
        copies.copied,
        nearest.distances(generated, real)[:, 0] if len(columns[0]) else None,
    )


def neighbour_radii(features: Tensor, k: int = K) -> Tensor:
    """Distance of each sample (N, F) to its k-th nearest other one: float64 (N,).

    Raises:
        InputError: no more than k samples.
    """
    return _radii(features, k)[:, 0]


def _radii(features: Tensor, k: int, blocks: Sequence[Tensor] = ()) -> Tensor:
    """Distance of each sample (N, F) to its k-th nearest other one, of all and of those without each block: float64 (N, 1 + blocks). A
    sample has no ball without its own block; what stands there is its ball in the whole."""
    if len(features) <= k:
        raise InputError(f"Too few samples for {k} neighbours", f"{len(features)} samples", f"at least {k + 1}")
    near = Nearest(features, k + 1, max(1, len(blocks)))  # the nearest of all is the sample itself
    among(features, [near], blocks)
    radii = near.distances(features, features, (None, *range(len(blocks))))
    for place, block in enumerate(blocks, 1):
        radii[block, place] = radii[block, 0]
    return radii


class _RealBalls:
    """Reads how many real balls each generated sample lies in, and which real ones each part of them covers."""

    def __init__(self, count: int, radii: Tensor, parts: int) -> None:
        self.radii = radii
        self.inside, self.strictly = (torch.zeros(count, dtype=torch.int64, device=radii.device) for _ in range(2))
        self.rarity = torch.full((count,), torch.inf, dtype=torch.float64, device=radii.device)
        self.covered = torch.zeros(parts, len(radii), dtype=torch.bool, device=radii.device)

    def add(self, tile: Tile) -> None:
        rows, columns, inside, strictly = tile.within(self.radii[tile.columns.at][None])
        self.inside.index_add_(0, rows, inside[:, 0].long())
        self.strictly.index_add_(0, rows, strictly[:, 0].long())
        self.rarity.scatter_reduce_(0, rows, torch.where(inside[:, 0], self.radii[columns], torch.inf), "amin")
        self.covered[tile.rows.part].index_fill_(0, columns[positions(strictly[:, 0])[0]], True)


class _Copies:
    """Reads which generated samples lie all but on a real one."""

    def __init__(self, count: int, radii: Tensor) -> None:
        self.radii = NEAR * radii
        self.copied = torch.zeros(count, dtype=torch.bool, device=radii.device)

    def add(self, tile: Tile) -> None:
        rows, _, inside, _ = tile.within(self.radii[tile.columns.at][None])
        self.copied.index_fill_(0, rows[positions(inside[:, 0])[0]], True)


class _GeneratedBalls:
    """Reads which real samples lie in a ball of a generated one, of all and of those without each part: what loses a neighbour with a part
    has a larger ball without it."""

    def __init__(self, radii: Tensor, count: int) -> None:
        self.radii, self.largest = radii, radii.amax(dim=1, keepdim=True) if len(radii) else radii
        self.reached = torch.zeros(radii.shape[1], count, dtype=torch.bool, device=radii.device)

    def add(self, tile: Tile) -> None:
        _, columns, inside, _ = tile.within(self.largest[tile.rows.at], self.radii[tile.rows.at])
        inside[:, 1 + tile.rows.part :][:, :1] = False  # these balls are gone without their own part
        pairs, without = positions(inside)
        self.reached.view(-1).index_fill_(0, without * self.reached.shape[1] + columns[pairs], True)


def _left_out(parts: Tensor) -> Tensor:
    """Whether any part holds true, and any but each in turn: bool (parts, M) to (1 + parts, M)."""
    counts = parts.sum(dim=0)
    return torch.cat((counts[None], counts - parts.long())) > 0
