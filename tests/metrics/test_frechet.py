from __future__ import annotations

import pickle
from functools import reduce
from operator import add

import numpy as np
import pytest
import torch

from qualitygate.errors import InputError
from qualitygate.metrics.estimate import blocks_of
from qualitygate.metrics.frechet import (
    FrechetReference,
    GaussianStatistics,
    extrapolated_frechet_distance,
    frechet_distance,
    frechet_distances,
)


def gaussian(count: int, width: int = 8, *, seed: int = 0, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) + shift


def test_statistics_and_distance_agree_with_the_reference(recorded, expected) -> None:
    real, fake = (GaussianStatistics.of(recorded.tensors[f"input/{side}"]) for side in ("real", "fake"))
    for statistics, side in ((real, "real"), (fake, "fake")):
        torch.testing.assert_close(statistics.mean, recorded.tensors[f"expected/{side}_mean"], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(statistics.covariance, recorded.tensors[f"expected/{side}_cov"], rtol=1e-10, atol=1e-12)
    assert frechet_distance(fake, real) == pytest.approx(expected["nvlabs_fid"]["value"], rel=1e-9)
    assert frechet_distance(real, fake) == pytest.approx(expected["nvlabs_fid"]["value"], rel=1e-9)


@pytest.mark.parametrize("size", [1, 3, 64, 500])
def test_parts_add_up_to_the_whole_whatever_their_size(recorded, size: int) -> None:
    features = recorded.tensors["input/real"]
    whole = GaussianStatistics.of(features)
    parts = [GaussianStatistics.of(part) for part in features.split(size)]
    merged = pickle.loads(pickle.dumps(reduce(add, parts)))  # as workers send them
    assert merged.count == 500
    torch.testing.assert_close(merged.covariance, whole.covariance, rtol=1e-11, atol=1e-13)
    assert frechet_distance(merged, whole) < 1e-8
    without = whole - parts[0]
    torch.testing.assert_close(without.mean, GaussianStatistics.of(features[size:]).mean, equal_nan=True)


def test_a_set_is_at_distance_0_of_itself_and_a_degraded_one_is_not() -> None:
    features = gaussian(500)
    statistics = GaussianStatistics.of(features)
    assert frechet_distance(statistics, statistics) == pytest.approx(0.0, abs=1e-10)
    order = torch.randperm(500, generator=torch.Generator().manual_seed(1))
    assert frechet_distance(GaussianStatistics.of(features[order]), statistics) == pytest.approx(0.0, abs=1e-10)
    slightly, badly = (GaussianStatistics.of(features + amount * gaussian(500, seed=2)) for amount in (0.3, 1.0))
    assert 0 < frechet_distance(slightly, statistics) < frechet_distance(badly, statistics)


def test_a_value_known_in_closed_form() -> None:
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])  # covariance diag(1/2, 2)
    doubled = GaussianStatistics.of(2 * x + torch.tensor([3.0, 0.0]))
    assert frechet_distance(GaussianStatistics.of(x), doubled) == pytest.approx(9.0 + 0.5 + 2.0)


def test_singular_covariances_are_no_trouble() -> None:
    flat = gaussian(5, 40)  # rank 4 of 40
    assert frechet_distance(GaussianStatistics.of(flat), GaussianStatistics.of(flat)) == pytest.approx(0.0, abs=1e-6)
    point = GaussianStatistics.of(torch.zeros(3, 40))
    assert frechet_distance(point, GaussianStatistics.of(torch.ones(3, 40))) == pytest.approx(40.0)
    scaled = gaussian(200, 6) * torch.logspace(-6, 3, 6)
    assert frechet_distance(GaussianStatistics.of(scaled), GaussianStatistics.of(scaled)) == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("rank", [12, 40])
def test_every_block_left_out_is_the_direct_formula(rank: int) -> None:
    """By the eigenvalues of the product of the covariances themselves; of rank 12, both are singular."""
    random = torch.Generator().manual_seed(3)
    spread = torch.randn(rank, 40, generator=random) * torch.logspace(-2, 1, 40)
    real, fake = (gaussian(count, rank, seed=count, shift=shift) @ spread + 3.0 for count, shift in ((500, 0.0), (400, 0.2)))
    blocks = blocks_of(400)
    found = frechet_distances(fake, FrechetReference.of(GaussianStatistics.of(real)), [torch.from_numpy(block) for block in blocks])
    for distance, block in zip(found, [np.empty(0, dtype=int), *blocks], strict=True):
        ours, theirs = np.delete(fake.double().numpy(), block, axis=0), real.double().numpy()
        product = np.cov(ours.T, bias=True) @ np.cov(theirs.T, bias=True)
        traces = ours.var(axis=0).sum() + theirs.var(axis=0).sum() - 2.0 * np.sqrt(np.linalg.eigvals(product).real.clip(0.0)).sum()
        assert distance == pytest.approx(((ours.mean(axis=0) - theirs.mean(axis=0)) ** 2).sum() + traces, rel=1e-6)


def test_an_offset_that_all_share_changes_nothing() -> None:
    real, fake = gaussian(400, seed=1).double(), gaussian(300, seed=2, shift=0.3).double()
    expected = frechet_distance(GaussianStatistics.of(fake), GaussianStatistics.of(real))
    far = [one + 1e6 for one in (fake, real)]
    assert frechet_distance(*map(GaussianStatistics.of, far)) == pytest.approx(expected, rel=1e-6)
    parts = reduce(add, map(GaussianStatistics.of, far[0].split(70)))
    assert frechet_distance(parts, GaussianStatistics.of(far[1])) == pytest.approx(expected, rel=1e-6)
    assert frechet_distances(far[0], FrechetReference.of_features(far[1]))[0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("fakes", "reals"), [(30, 100), (100, 30), (20, 25), (1, 5)])
def test_few_samples_have_the_distance_of_their_covariances(fakes: int, reals: int) -> None:
    fake, real = gaussian(fakes, 40, seed=1, shift=0.2), gaussian(reals, 40, seed=2)
    expected = frechet_distance(GaussianStatistics.of(fake), GaussianStatistics.of(real))
    assert frechet_distances(fake, FrechetReference.of_features(real))[0] == pytest.approx(expected, rel=1e-5)


def test_the_extrapolation_takes_the_bias_away() -> None:
    """Both sides are the same Gaussian: the true distance is 0."""
    real = GaussianStatistics.of(gaussian(20_000))
    sets = [gaussian(400, seed=seed) for seed in range(1, 9)]
    plain = np.mean([frechet_distance(GaussianStatistics.of(fake), real) for fake in sets])
    reference = FrechetReference.of(real)
    extrapolated = np.mean([extrapolated_frechet_distance(fake, reference) for fake in sets])
    assert plain > 0.05
    assert abs(extrapolated) < plain / 4
    first = extrapolated_frechet_distance(sets[0], reference)
    assert first == extrapolated_frechet_distance(sets[0], reference)
    assert first != extrapolated_frechet_distance(sets[0], reference, seed=1)


def test_refusals() -> None:
    with pytest.raises(InputError, match="Too few samples to extrapolate FID"):
        extrapolated_frechet_distance(gaussian(15), FrechetReference.of(GaussianStatistics.of(gaussian(100))))
    with pytest.raises(InputError, match="cannot be compared"):
        frechet_distance(GaussianStatistics.of(gaussian(9, 3)), GaussianStatistics.of(gaussian(9, 4)))
    assert np.isfinite(frechet_distance(GaussianStatistics.of(gaussian(1)), GaussianStatistics.of(gaussian(9))))
