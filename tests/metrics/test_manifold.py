from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.metrics import distances
from qualitygate.metrics.estimate import Resampling, blocks_of
from qualitygate.metrics.measured_set import MeasuredSet, RealSet
from qualitygate.metrics.metric import Evaluator, set_metric
from qualitygate.metrics.neighbourhoods import neighbour_radii, neighbourhoods


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
    found = neighbourhoods(fake, real, radii, k)
    assert float((found.inside > 0).double().mean()) == pytest.approx(wanted["precision"])
    assert float(found.reached.double().mean()) == pytest.approx(wanted["recall"])
    assert float(found.strictly.double().mean()) / k == pytest.approx(wanted["density"])
    assert float(found.covered.double().mean()) == pytest.approx(wanted["coverage"])


def test_masks_agree_sample_by_sample(recorded, sides) -> None:
    real, fake = sides
    found = neighbourhoods(fake, real, neighbour_radii(real))
    assert torch.equal((found.inside > 0).float(), recorded.tensors["expected/precision_mask_k3"])
    assert torch.equal(found.reached[0].float(), recorded.tensors["expected/recall_mask_k3"])


def test_realism_is_the_papers_ratio(recorded, sides) -> None:
    real, fake = sides
    ours = neighbourhoods(fake, real, neighbour_radii(real)).realism
    torch.testing.assert_close(ours, recorded.tensors["expected/realism_paper"], rtol=1e-9, atol=0)
    squared = ours.square().float()  # what the reference code returns, up to its ε
    torch.testing.assert_close(squared, recorded.tensors["expected/realism_reference"], rtol=1e-4, atol=0)


@pytest.mark.parametrize("k", [3, 5])
def test_rarity_is_that_of_its_authors(recorded, sides, k: int) -> None:
    real, fake = sides
    theirs = recorded.tensors[f"expected/rarity_k{k}"]
    ours = neighbourhoods(fake, real, neighbour_radii(real, k), k).rarity
    torch.testing.assert_close(ours, torch.where(theirs > 0.0, theirs, torch.nan), rtol=1e-9, atol=0, equal_nan=True)
    assert 0 < int(ours.isnan().sum()) < len(fake)


def numbers(generated: torch.Tensor, real: torch.Tensor, blocks: list[np.ndarray]) -> list[torch.Tensor]:
    radii = neighbour_radii(real)
    found = neighbourhoods(generated, real, radii, blocks=[torch.from_numpy(block) for block in blocks])
    return [radii, found.inside, found.strictly, found.realism, found.rarity.nan_to_num(-1.0), found.covered, found.reached]


@pytest.mark.parametrize(("side", "exact"), [(2, 64), (7, 64), (50, 200), (400, 2**22)])
def test_nothing_depends_on_the_size_of_tiles(sides, monkeypatch, side: int, exact: int) -> None:
    real, fake, blocks = sides[0][:30], sides[1][:24], blocks_of(24, 4)
    before = numbers(fake, real, blocks)
    monkeypatch.setattr(distances, "_SIDE", side)
    monkeypatch.setattr(distances, "_EXACT", exact)
    for one, other in zip(before, numbers(fake, real, blocks), strict=True):
        assert torch.equal(one, other)


def test_order_and_a_common_offset_do_not_matter(sides) -> None:
    real, fake = sides
    order = torch.randperm(len(fake), generator=torch.Generator().manual_seed(0))
    radii = neighbour_radii(real)
    assert torch.equal(neighbourhoods(fake[order], real, radii).inside, neighbourhoods(fake, real, radii).inside[order])
    offset = torch.full((real.shape[1],), 1000.0, dtype=torch.float64)
    moved = neighbour_radii(real.double() + offset)
    torch.testing.assert_close(moved, radii, rtol=1e-9, atol=0)
    far = neighbourhoods(fake.double() + offset, real.double() + offset, moved)
    assert torch.equal(far.inside, neighbourhoods(fake, real, radii).inside)


def test_a_set_against_itself_is_perfect_and_a_degraded_one_is_worse(sides) -> None:
    real, _ = sides
    radii = neighbour_radii(real)
    found = neighbourhoods(real, real, radii)
    assert bool((found.inside > 0).all())
    assert bool(found.reached.all())
    assert bool(found.covered.all())
    assert torch.isinf(found.realism[radii <= radii.median()]).all()
    noise = torch.randn(real.shape, generator=torch.Generator().manual_seed(0))
    shares, mean_realism = [], []
    for amount in (0.3, 1.0, 3.0):
        worse = neighbourhoods(real + amount * noise, real, radii)
        shares.append(float((worse.inside > 0).double().mean()))
        mean_realism.append(float(worse.realism.mean()))
    assert shares == sorted(shares, reverse=True)
    assert mean_realism == sorted(mean_realism, reverse=True)


def test_edges_by_hand() -> None:
    """On a line, k = 1: the balls of 0, 1, 3 have radii 1, 1, 2; 2 lies on the edge of two of them."""
    real = torch.tensor([[0.0], [1.0], [3.0]])
    radii = neighbour_radii(real, 1)
    assert radii.tolist() == [1.0, 1.0, 2.0]
    found = neighbourhoods(torch.tensor([[2.0], [5.0]]), real, radii, 1)
    assert found.inside.tolist() == [2, 1]
    assert found.strictly.tolist() == [1, 0]
    assert found.covered.tolist() == [[False, False, True]]
    scores = neighbourhoods(torch.tensor([[2.0], [5.0], [0.5], [5.1]]), real, radii, 1).rarity
    assert scores.nan_to_num(-1.0).tolist() == [1.0, 2.0, 1.0, -1.0]  # beyond 5 there is no ball
    assert found.realism.tolist() == [1.0, 0.25]  # the ball of radius 2 is over the median and pruned
    assert found.reached.tolist() == [[True, True, True]]  # both balls have radius 3; 0 and 1 lie in that of 2, 3 in both


def test_copies() -> None:
    real = torch.tensor([[0.0], [0.0], [4.0], [4.0], [9.0]])
    radii = neighbour_radii(real, 1)
    assert radii.tolist() == [0.0, 0.0, 0.0, 0.0, 5.0]
    found = neighbourhoods(torch.tensor([[4.0]]), real, radii, 1)
    assert (found.inside.tolist(), found.strictly.tolist()) == ([3], [0])
    assert not len(found.reached)
    assert neighbourhoods(torch.tensor([[4.0], [5.0]]), real, radii, 1).rarity.tolist() == [0.0, 5.0]
    with pytest.raises(InputError, match="no realism score"):
        _ = neighbourhoods(real, torch.ones(9, 1), torch.zeros(9, dtype=torch.float64), 1).realism


def test_too_few_neighbours() -> None:
    with pytest.raises(InputError, match="at least 4"):
        neighbour_radii(torch.ones(3, 2))


@pytest.mark.parametrize("count", [40, 403])
def test_blocks_left_out_at_once_are_as_if_left_out_one_by_one(count: int) -> None:
    random = torch.Generator().manual_seed(0)
    generated, real = torch.randn(count, 6, generator=random), 0.8 * torch.randn(300, 6, generator=random)
    blocks, radii = blocks_of(count), neighbour_radii(real)
    rest = [np.setdiff1d(np.arange(count), block) for block in [np.empty(0), *blocks]]
    found = neighbourhoods(generated, real, radii, blocks=[torch.from_numpy(block) for block in blocks])
    alone = [neighbourhoods(generated[rows], real, radii) for rows in rest]
    assert torch.equal(found.reached, torch.cat([one.reached for one in alone]))
    assert torch.equal(found.covered, torch.cat([one.covered for one in alone]))


def test_ties_and_copies_are_told_exactly() -> None:
    """Points of a grid, of which many lie on edges of balls and on each other, far from 0; held against plain loops over all pairs."""
    random = torch.Generator().manual_seed(0)
    real, generated = (torch.randint(0, 3, (count, 4), generator=random).float() + 4096.0 for count in (200, 70))
    between, own, of_real = (torch.cdist(one.double(), other.double()) for one, other in ((generated, real), (generated,) * 2, (real,) * 2))
    radii, around = (distances.sort(dim=1).values[:, 3] for distances in (of_real, own))
    assert bool((between == radii).any())
    assert bool((radii == 0.0).any())
    found = neighbourhoods(generated, real, neighbour_radii(real))
    assert torch.equal(neighbour_radii(real), radii)
    assert torch.equal(found.inside, (between <= radii).sum(dim=1))
    assert torch.equal(found.strictly, (between < radii).sum(dim=1))
    assert torch.equal(found.covered[0], (between < radii).any(dim=0))
    assert torch.equal(found.reached[0], (between <= around[:, None]).any(dim=0))
    kept = (radii > 0.0) & (radii <= radii.quantile(0.5))
    torch.testing.assert_close(found.realism, (radii[kept] / between[:, kept]).amax(dim=1), rtol=1e-12, atol=0.0)


class Watched(TorchDispatchMode):
    """How many distances products gave, and how many numbers the largest tensor had."""

    def __init__(self) -> None:
        super().__init__()
        self.distances = self.largest = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        if function.overloadpacket in (torch.ops.aten.addmm, torch.ops.aten.mm, torch.ops.aten.bmm):
            self.distances += made.numel()
        for one in made if isinstance(made, list | tuple) else (made,):
            if isinstance(one, torch.Tensor):
                self.largest = max(self.largest, one.numel())
        return made


def watched(real: torch.Tensor, generated: torch.Tensor) -> Watched:
    """All five metrics with their intervals, and the numbers of every sample."""
    measured = MeasuredSet(len(generated), generated, real=RealSet("real", "", real))
    with Watched() as watch:
        for name in (names.PRECISION, names.RECALL, names.DENSITY, names.COVERAGE, names.REALISM):
            assert len(set_metric(name).compute(measured.group(), Resampling(seed=4)).blocks) == 10
        assert len(measured.inside) == len(measured.realism) == len(generated)
    return watch


def test_one_pass_between_the_sets_and_half_a_pass_within_each(sides, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "_SIDE", 100)
    (real, fake), tile, block = sides, 100, 40
    within = len(real) * (len(real) + tile) // 2 + len(fake) * (len(fake) + block) // 2
    assert watched(real, fake).distances == len(fake) * len(real) + within


def test_memory_grows_with_the_samples_and_not_with_their_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "_SIDE", 100)
    features = torch.randn(2, 800, 8, generator=torch.Generator().manual_seed(0))
    few, many = (watched(*features[:, :count]).largest for count in (400, 800))
    assert many <= 2 * few < 400 * 400


def test_copies_and_near_copies_are_told_from_honest_samples() -> None:
    random = torch.Generator().manual_seed(0)
    real, honest, off = (torch.randn(300, 8, generator=random) for _ in range(3))
    radii = neighbour_radii(real)
    near = real + 0.1 * radii[:, None].float() * off / off.norm(dim=1, keepdim=True)
    samples = torch.cat((honest[:98], real[:1], near[1:2]))
    measured = MeasuredSet(100, samples, real=RealSet("real", "", real))
    assert measured.copied.nonzero()[0].tolist() == [98, 99]
    realism = set_metric(names.REALISM).compute(measured.group(), Resampling())
    assert realism.value == pytest.approx(measured.realism[:98].mean())
    assert "2 of 100" in str(realism.note)
    assert set_metric(names.COPIES).compute(measured.group(), Resampling()).value == 0.02


def test_a_real_set_half_of_which_is_there_four_times() -> None:
    """The median radius is 0: there is no realism, all else is there, and a near copy of what is there four times is still one."""
    random = torch.Generator().manual_seed(0)
    once = torch.randn(60, 4, generator=random)
    real = RealSet("real", "", torch.cat((once, once[:30], once[:30], once[:30])))
    assert real.radii.median() == 0.0
    assert torch.equal(real.apart[:60], neighbour_radii(once))
    assert (real.info.duplicates, real.info.repeated[:2]) == (90, (60, 61))
    samples = torch.cat((torch.randn(39, 4, generator=random), once[:1] + 1e-4))
    measured = MeasuredSet(40, samples, real=real)
    found = Evaluator("features").measure(measured)
    assert found[names.REALISM].value is None
    assert "3 copies" in str(found[names.REALISM].note)
    assert all(one.value is not None for name, one in found.items() if name != names.REALISM)
    assert measured.copied[39] == 1.0
    assert np.isnan(measured.realism).all()
