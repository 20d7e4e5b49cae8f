"""FID of the images a unit fires most for: against numbers by hand and against the plain formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qualitygate.errors import InputError
from qualitygate.units import unit_frechet as unit_frechet_module
from qualitygate.units.concepts import TopSamples
from qualitygate.units.unit_frechet import unit_frechet


def top(*rows: list[int]) -> TopSamples:
    return TopSamples(torch.tensor(rows), torch.zeros(len(rows), len(rows[0])))


def scores(features: np.ndarray, tops: dict[int, TopSamples], reference: np.ndarray):
    return unit_frechet(features, tops, reference, extractor="none", against="made up")


def test_one_feature_by_hand() -> None:
    """Means 1 and 5, deviations 1 and 1, of a reference with mean 0 and deviation 2."""
    features = np.array([[0.0], [2.0], [4.0], [6.0]], dtype=np.float32)
    reference = np.array([[-2.0], [2.0]], dtype=np.float32)
    found = scores(features, {0: top([0, 1], [2, 3])}, reference)
    assert found.of(0).tolist() == pytest.approx([1.0 + (2 - 1) ** 2, 25.0 + (2 - 1) ** 2])
    assert found.source == "unit_fid"
    assert found.settings["images"] == 2
    assert found.settings["against"] == "made up"
    assert found.settings["random"]["mean"] > 0


@pytest.mark.parametrize("size", [5, 40])
def test_against_the_matrix_square_root(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.linalg import sqrtm

    draw = np.random.default_rng(0)
    features = draw.normal(size=(60, 6)).astype(np.float32) @ draw.normal(size=(6, 6)).astype(np.float32)
    reference = draw.normal(size=(300, 6)).astype(np.float32) + 0.5
    rows = [draw.permutation(60)[:size].tolist() for _ in range(3)]
    found = scores(features, {1: top(*rows)}, reference)
    monkeypatch.setattr(unit_frechet_module, "_MEMORY", 1)
    few = scores(features, {1: top(*rows)}, reference)
    for chosen, distance in zip(rows, found.of(1), strict=True):
        a, b = features[chosen].astype(np.float64), reference.astype(np.float64)
        c, r = (np.cov(x.T, bias=True) for x in (a, b))
        # the root of the symmetric form: the plain product of a singular covariance has none that is stable
        root = sqrtm(r)
        shared = np.sqrt(np.clip(np.linalg.eigvalsh(root @ c @ root), 0, None)).sum()
        expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(c + r) - 2 * shared
        assert distance == pytest.approx(expected, rel=1e-6)
    assert few.of(1) == pytest.approx(found.of(1))


def test_the_bias_of_small_sets_is_measured() -> None:
    draw = np.random.default_rng(1)
    features, reference = (draw.normal(size=(2000, 8)).astype(np.float32) for _ in range(2))
    small, large = (scores(features, {0: top(list(range(size)))}, reference).settings["random"]["mean"] for size in (20, 500))
    assert small > 5 * large > 0


def test_sets_that_cannot_be_compared() -> None:
    features = np.zeros((4, 2), dtype=np.float32)
    with pytest.raises(InputError, match="cannot be compared"):
        scores(features, {0: top([0])}, features)
    with pytest.raises(InputError, match="cannot be compared"):
        scores(features, {0: top([0, 1]), 1: top([0, 1, 2])}, features)
    with pytest.raises(InputError, match="cannot be compared"):
        scores(features, {0: top([0, 1])}, np.zeros((4, 3), dtype=np.float32))
