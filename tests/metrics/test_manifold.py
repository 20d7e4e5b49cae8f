from __future__ import annotations

import numpy as np
import pytest
import torch

from qualitygate.errors import InputError
from qualitygate.metrics import manifold
from qualitygate.metrics.estimate import blocks_of
from qualitygate.metrics.manifold import balls_around, coverage, nearest, neighbour_radii, rarity, realism, recall


@pytest.fixture
def sides(recorded) -> tuple[torch.Tensor, torch.Tensor]:
    return recorded.tensors["input/real"], recorded.tensors["input/fake"]


def test_radii_agree(recorded, sides) -> None:
    for features, side in zip(sides, ("real", "fake"), strict=True):
        torch.testing.assert_close(neighbour_radii(features), recorded.tensors[f"expected/{side}_radii_k3"], rtol=1e-10, atol=0)


@pytest.mark.parametrize("k", [3, 5])
def test_precision_recall_density_coverage_agree(expected, sides, k: int) -> None:
    real, fake = sides
    radii = neighbour_radii(real, k)
    wanted = expected[f"prdc_k{k}"]
    assert float((balls_around(fake, real, radii) > 0).double().mean()) == pytest.approx(wanted["precision"])
    assert float(recall(fake, real, k).double().mean()) == pytest.approx(wanted["recall"])
    assert float(balls_around(fake, real, radii, strict=True).double().mean()) / k == pytest.approx(wanted["density"])
    assert float(coverage(fake, real, radii).double().mean()) == pytest.approx(wanted["coverage"])


def test_masks_agree_sample_by_sample(recorded, sides) -> None:
    real, fake = sides
    precision = (balls_around(fake, real, neighbour_radii(real)) > 0).float()
    assert torch.equal(precision, recorded.tensors["expected/precision_mask_k3"])
    assert torch.equal(recall(fake, real)[0].float(), recorded.tensors["expected/recall_mask_k3"])


def test_realism_is_the_papers_ratio(recorded, sides) -> None:
    real, fake = sides
    ours = realism(fake, real, neighbour_radii(real))
    torch.testing.assert_close(ours, recorded.tensors["expected/realism_paper"], rtol=1e-9, atol=0)
    squared = ours.square().float()  # what the reference code returns, up to its ε
    torch.testing.assert_close(squared, recorded.tensors["expected/realism_reference"], rtol=1e-4, atol=0)


@pytest.mark.parametrize("k", [3, 5])
def test_rarity_is_that_of_its_authors(recorded, sides, k: int) -> None:
    real, fake = sides
    theirs = recorded.tensors[f"expected/rarity_k{k}"]
    ours = rarity(fake, real, neighbour_radii(real, k))
    torch.testing.assert_close(ours, torch.where(theirs > 0.0, theirs, torch.nan), rtol=1e-9, atol=0, equal_nan=True)
    assert 0 < int(ours.isnan().sum()) < len(fake)


@pytest.mark.parametrize(("queries", "centres", "exact"), [(1, 3, 64), (7, 50, 200), (400, 500, 2**22)])
def test_nothing_depends_on_the_size_of_blocks(sides, monkeypatch, queries: int, centres: int, exact: int) -> None:
    real, fake = sides[0][:90], sides[1][:70]
    radii = neighbour_radii(real)

    def everything() -> tuple[torch.Tensor, ...]:
        scores = realism(fake, real, radii), rarity(fake, real, radii).nan_to_num(-1.0)
        return neighbour_radii(real), balls_around(fake, real, radii), nearest(fake, real, 4), *scores

    before = everything()
    monkeypatch.setattr(manifold, "_QUERIES", queries)
    monkeypatch.setattr(manifold, "_CENTRES", centres)
    monkeypatch.setattr(manifold, "_EXACT", exact)
    for one, other in zip(before, everything(), strict=True):
        assert torch.equal(one, other)


def test_order_and_a_common_offset_do_not_matter(sides) -> None:
    real, fake = sides
    order = torch.randperm(len(fake), generator=torch.Generator().manual_seed(0))
    radii = neighbour_radii(real)
    assert torch.equal(balls_around(fake[order], real, radii), balls_around(fake, real, radii)[order])
    offset = torch.full((real.shape[1],), 1000.0, dtype=torch.float64)
    moved = neighbour_radii(real.double() + offset)
    torch.testing.assert_close(moved, radii, rtol=1e-9, atol=0)
    assert torch.equal(balls_around(fake.double() + offset, real.double() + offset, moved), balls_around(fake, real, radii))


def test_a_set_against_itself_is_perfect_and_a_degraded_one_is_worse(sides) -> None:
    real, _ = sides
    radii = neighbour_radii(real)
    assert bool((balls_around(real, real, radii) > 0).all())
    assert bool(recall(real, real).all())
    assert bool(coverage(real, real, radii).all())
    assert torch.isinf(realism(real[radii <= radii.median()], real, radii)).all()
    noise = torch.randn(real.shape, generator=torch.Generator().manual_seed(0))
    shares, mean_realism = [], []
    for amount in (0.3, 1.0, 3.0):
        worse = real + amount * noise
        shares.append(float((balls_around(worse, real, radii) > 0).double().mean()))
        mean_realism.append(float(realism(worse, real, radii).mean()))
    assert shares == sorted(shares, reverse=True)
    assert mean_realism == sorted(mean_realism, reverse=True)


def test_edges_by_hand() -> None:
    """On a line, k = 1: the balls of 0, 1, 3 have radii 1, 1, 2; 2 lies on the edge of two of them."""
    real = torch.tensor([[0.0], [1.0], [3.0]])
    radii = neighbour_radii(real, 1)
    assert radii.tolist() == [1.0, 1.0, 2.0]
    point = torch.tensor([[2.0], [5.0]])
    assert balls_around(point, real, radii).tolist() == [2, 1]
    assert balls_around(point, real, radii, strict=True).tolist() == [1, 0]
    assert coverage(point, real, radii).tolist() == [[False, False, True]]
    scores = rarity(torch.tensor([[2.0], [5.0], [0.5], [5.1]]), real, radii)
    assert scores.nan_to_num(-1.0).tolist() == [1.0, 2.0, 1.0, -1.0]  # beyond 5 there is no ball
    assert realism(point, real, radii).tolist() == [1.0, 0.25]  # the ball of radius 2 is over the median and pruned


def test_copies() -> None:
    real = torch.tensor([[0.0], [0.0], [4.0], [4.0], [9.0]])
    radii = neighbour_radii(real, 1)
    assert radii.tolist() == [0.0, 0.0, 0.0, 0.0, 5.0]
    assert balls_around(torch.tensor([[4.0]]), real, radii).tolist() == [3]
    assert balls_around(torch.tensor([[4.0]]), real, radii, strict=True).tolist() == [0]
    assert rarity(torch.tensor([[4.0], [5.0]]), real, radii).tolist() == [0.0, 5.0]
    with pytest.raises(InputError, match="no realism score"):
        realism(real, torch.ones(9, 1), torch.zeros(9, dtype=torch.float64))


def test_too_few_neighbours() -> None:
    with pytest.raises(InputError, match="at least 4"):
        neighbour_radii(torch.ones(3, 2))


@pytest.mark.parametrize("count", [40, 403])
def test_blocks_left_out_at_once_are_as_if_left_out_one_by_one(count: int) -> None:
    random = torch.Generator().manual_seed(0)
    generated, real = torch.randn(count, 6, generator=random), 0.8 * torch.randn(300, 6, generator=random)
    blocks, radii = blocks_of(count), neighbour_radii(real)
    rest = [np.setdiff1d(np.arange(count), block) for block in [np.empty(0), *blocks]]
    assert torch.equal(recall(generated, real, blocks=blocks), torch.cat([recall(generated[rows], real) for rows in rest]))
    alone = torch.cat([coverage(generated[rows], real, radii) for rows in rest])
    assert torch.equal(coverage(generated, real, radii, blocks), alone)
