"""Activation patterns: the very curvature of the score, and values that one can work out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from studies.dynamics.snapshots import made

from qualitygate.errors import InputError
from qualitygate.generators.base import sample_latents
from qualitygate.latents import Latents
from qualitygate.records.dynamics import Neuron
from qualitygate.scores.local_activation import local_activation
from qualitygate.studies.dynamics.pattern import FINER, axis_pattern, plane_pattern, secants, unit_activation
from qualitygate.testing.toys import ToyGenerator


def latents(*z: float) -> Latents:
    return Latents(np.arange(1), None, torch.tensor([z]))


@pytest.mark.parametrize("neuron", [Neuron(1, 0, 0, 0), Neuron(2, 1, 3, 4), Neuron(3, 0, 7, 7)])
def test_mean_curvature_of_all_axes_is_the_score_s(neuron: Neuron) -> None:
    generator = made()
    sample = sample_latents(generator, [3], 1)
    pattern = axis_pattern(generator, sample, neuron)
    local = local_activation(generator, sample, [neuron.layer])
    place = (0, neuron.unit, neuron.y, neuron.x)
    assert pattern.at_sample == pytest.approx(float(local.activation[neuron.layer][place]), abs=1e-6)
    assert pattern.curvature.mean() == pytest.approx(float(local.curvature[neuron.layer][place]), abs=1e-6)


def test_by_hand() -> None:
    # h = relu(1 − 2·z_0): at z = 0 it is 1, reaches 0 at r = 0.5 and grows to the bound on the left
    toy = ToyGenerator([[[-2.0, 0.0]]], [[1.0]])
    pattern = axis_pattern(toy, latents(0.0, 0.0), Neuron(0, 0, 0, 0), bound=1.0, divisions=4)
    assert pattern.offsets == pytest.approx(np.linspace(-1, 1, 4 * FINER + 1))
    assert (pattern.left[0], pattern.right[0]) == (-1.0, 0.5)
    assert pattern.curvature == pytest.approx([0.0, 0.0])
    assert pattern.slope == pytest.approx([-2.0, 0.0])
    assert (pattern.left[1], pattern.right[1]) == (-1.0, 1.0)


def test_the_parabola_goes_through_its_three_points() -> None:
    values = np.array([[-0.1, -0.1, 2.0, 1.0, -0.1]])
    offsets = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    left, right, curvature, slope = secants(values, offsets)
    assert (left[0], right[0]) == (-1.0, 2.0)
    for at, expected in ((-1.0, -0.1), (0.0, 2.0), (2.0, -0.1)):
        assert 2.0 + slope[0] * at + curvature[0] * at**2 == pytest.approx(expected)


def test_most_local_first() -> None:
    generator = made()
    sample = sample_latents(generator, [0], 1)
    for neuron in (Neuron(3, 0, 1, 1), Neuron(3, 1, 2, 2), Neuron(2, 0, 3, 3)):
        pattern = axis_pattern(generator, sample, neuron)
        order = pattern.by_local_activation().curvature
        assert list(order) == sorted(order, reverse=pattern.at_sample <= 0)


def test_the_plane_holds_both_axes() -> None:
    generator = made()
    sample = sample_latents(generator, [0], 1)
    plane = plane_pattern(generator, sample, Neuron(3, 1, 2, 5), (2, 0), divisions=4)
    middle = len(plane.along.offsets) // 2
    assert plane.values[:, middle] == pytest.approx(plane.along.values[0], abs=1e-5)
    assert plane.values[middle] == pytest.approx(plane.along.values[1], abs=1e-5)


def test_the_unit_around_the_neuron() -> None:
    generator = made()
    sample = sample_latents(generator, [0], 1)
    unit = unit_activation(generator, sample, Neuron(3, 1, 2, 5))
    assert unit.shape == (8, 8)
    assert unit[2, 5] == pytest.approx(axis_pattern(generator, sample, Neuron(3, 1, 2, 5)).at_sample, abs=1e-6)


@pytest.mark.parametrize(
    ("neuron", "ids", "grid"),
    [
        (Neuron(0, 5, 0, 0), [0], {}),
        (Neuron(0, 0, 4, 0), [0], {}),
        (Neuron(0, 0, 0, 0), [0, 1], {}),
        (Neuron(0, 0, 0, 0), [0], {"divisions": 3}),
    ],
)
def test_what_there_is_no_pattern_of(neuron: Neuron, ids: list[int], grid: dict) -> None:
    generator = made()
    with pytest.raises(InputError):
        axis_pattern(generator, sample_latents(generator, ids, 1), neuron, **grid)
