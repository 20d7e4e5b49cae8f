"""Curvature of local activation, by hand on single neurons and against a plain reading of the definition on whole generators."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence

import pytest
import torch
from reference.vectors import load
from small import small_dcgan, small_pggan, small_stylegan2
from torch import Tensor

from qualitygate.checkpoints.contents import Contents
from qualitygate.checkpoints.load import assemble_contents
from qualitygate.errors import InputError, LayerError
from qualitygate.generators.base import Generator, sample_latents
from qualitygate.latents import Latents, draw_latents
from qualitygate.scores.local_activation import LocalActivation, local_activation
from qualitygate.testing import ToyGenerator, random_toy


def curvature(weights: list[float], bias: float, z: list[float], slope: float = 0.0, **settings: object) -> float:
    toy = ToyGenerator([[weights]], [[bias]], slope=slope)
    latents = draw_latents([0], 0, len(z))
    latents.z[0] = torch.tensor(z)
    local = local_activation(toy, latents, [0], **{"bound": 4.0, "divisions": 8, **settings})  # type: ignore[arg-type]
    before = sum(a * b for a, b in zip(weights, z, strict=True)) + bias
    assert float(local.activation[0]) == pytest.approx(max(before, slope * before))
    return float(local.curvature[0])


# grid of 4 points a side at distance 1; h(0) = z + b
@pytest.mark.parametrize(
    ("bias", "slope", "expected"),
    [
        # active, h = 1.5: right bound 4, slope 1; left 0 at r = −2, slope (0 − 1.5)/(−2)
        (1.5, 0.0, (1.0 - 0.75) / (4.0 + 2.0)),
        (1.5, 0.5, (1.0 - (-0.25 - 1.5) / -2.0) / 6.0),
        # change exactly on a grid point: h(−2) = 0 is not positive, so that is where it changes
        (2.0, 0.0, (1.0 - 1.0) / 6.0),
        # active with no change within the bound: the line is straight
        (9.0, 0.0, 0.0),
        # inactive, pre-activation −1.5: right, first positive at r = 2, h = 0.5; left bound, still 0
        (-1.5, 0.0, (0.25 - 0.0) / 6.0),
        (-1.5, 0.5, ((0.5 + 0.75) / 2.0 - 0.5) / 6.0),
        # inactive on a grid point: pre-activation 0 at r = 2 is not positive, the next one is
        (-2.0, 0.0, (1.0 / 3.0) / 7.0),
        # inactive without change
        (-9.0, 0.0, 0.0),
    ],
)
def test_one_neuron_on_one_axis(bias: float, slope: float, expected: float) -> None:
    assert curvature([1.0], bias, [0.0], slope) == pytest.approx(expected, abs=1e-7)
    assert curvature([1.0], bias - 0.75, [0.75], slope) == pytest.approx(expected, abs=1e-7)
    assert curvature([-1.0], bias, [0.0], slope) == pytest.approx(expected, abs=1e-7)  # mirrored


def test_the_mean_is_over_all_axes() -> None:
    # axis 0 as above; axis 1 does nothing; axis 2 changes between r = −1 and 0, at twice the slope
    axes = [(1.0 - 0.75) / 6.0, 0.0, (2.0 - 1.5) / 5.0]
    assert curvature([1.0, 0.0, 2.0], 1.5, [0.0, 0.0, 0.0]) == pytest.approx(sum(axes) / 3)
    assert curvature([1.0, 0.0, 2.0], 1.5, [0.0, 0.0, 0.0], axes=[2]) == pytest.approx(axes[2])
    assert curvature([1.0, 0.0, 2.0], 1.5, [0.0, 0.0, 0.0], axes=[2, 0]) == pytest.approx((axes[0] + axes[2]) / 2)


def test_a_bump_is_concave() -> None:
    """h = relu(1 − |z|): 1 at 0, and 0 at either grid point beside it; slopes −1 and 1 over a distance of 2."""
    toy = ToyGenerator([[[1.0], [-1.0]], [[-1.0, -1.0]]], [[0.0, 0.0], [1.0]])
    latents = draw_latents([0], 0, 1)
    latents.z.zero_()
    local = local_activation(toy, latents, [1], bound=4.0, divisions=8)
    assert float(local.curvature[1]) == pytest.approx(-1.0)
    assert float(local.score[1]) == pytest.approx(1.0)


def test_bound_and_divisions_by_hand() -> None:
    # coarser: 2 points a side at distance 2 gives the same change point, at distance 4 another one
    assert curvature([1.0], 1.5, [0.0], divisions=4) == pytest.approx(0.25 / 6.0)
    assert curvature([1.0], 1.5, [0.0], divisions=2) == pytest.approx((1.0 - 1.5 / 4.0) / 8.0)
    assert curvature([1.0], 1.5, [0.0], bound=8.0, divisions=16) == pytest.approx(0.25 / 10.0)
    toy, latents = ToyGenerator([[[1.0]]], [[1.5]]), draw_latents([0], 0, 1)
    paper = local_activation(toy, latents, [0], bound=30.0, divisions=20)
    assert torch.equal(local_activation(toy, latents, [0]).curvature[0], paper.curvature[0])


# against the definition


def one_axis(values: dict[float, Tensor]) -> Tensor:
    """Curvature of each neuron on one axis from its values at every grid point: section 3.1, a neuron at a time."""
    at_zero = values[0.0].flatten()
    result = torch.zeros_like(at_zero)
    for neuron in range(len(at_zero)):
        h = {r: float(value.flatten()[neuron]) for r, value in values.items()}
        slopes, points = [], []
        for side in (1, -1):
            grid = sorted((r for r in values if r * side > 0), key=abs)
            changed = [r for r in grid if (h[r] > 0) != (h[0.0] > 0)]
            point = changed[0] if changed else grid[-1]
            points.append(point)
            slopes.append((h[point] - h[0.0]) / point)
        result[neuron] = (slopes[0] - slopes[1]) / (points[0] - points[1])
    return result.view_as(values[0.0])


def slow(generator: Generator, latents: Latents, layers: Sequence[int], bound: float, divisions: int) -> dict[int, Tensor]:
    """Loops over samples, axes and grid; float32 in the generator, float64 here."""

    def read(z: Tensor, label: Tensor | None) -> list[Tensor]:
        moved = Latents(latents.ids[:1], None, z, label)
        return [state.activation[0].double() for state in generator.states(generator.start(moved))]

    samples: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    grid = [bound * step / (divisions // 2) for step in range(-divisions // 2, divisions // 2 + 1)]
    for row in range(len(latents)):
        label = None if latents.labels is None else latents.labels[row : row + 1]
        total = {layer: torch.zeros(1, dtype=torch.float64) for layer in layers}
        for axis in range(generator.latent_size):
            seen = {}
            for r in grid:
                z = latents.z[row : row + 1].clone()
                z[0, axis] += r
                seen[r] = read(z, label)
            for layer in layers:
                total[layer] = total[layer] + one_axis({r: values[layer] for r, values in seen.items()})
        for layer in layers:
            samples[layer].append(total[layer] / generator.latent_size)
    return {layer: torch.stack(parts) for layer, parts in samples.items()}


@pytest.mark.parametrize(
    ("make", "layers"),
    [
        (lambda: small_dcgan((4, 3), latent_size=3), [0, 1]),
        (small_pggan, [1, 3]),
        (small_stylegan2, [0, 2]),
        (lambda: random_toy(2, [(3, 2, 2), (2, 2, 2)], slope=0.2, label_size=3), [0, 1]),
    ],
    ids=["dcgan", "pggan", "stylegan2", "conditional toy"],
)
def test_it_is_the_definition(make: Callable[[], Generator], layers: list[int]) -> None:
    generator = make()
    latents = sample_latents(generator, range(2), 7)
    local = local_activation(generator, latents, layers, bound=5.0, divisions=6)
    for layer, expected in slow(generator, latents, layers, 5.0, 6).items():
        assert local.curvature[layer].shape == (2, *_shape(generator, layer))
        torch.testing.assert_close(local.curvature[layer].double(), expected, rtol=1e-4, atol=1e-6)


def _shape(generator: Generator, layer: int) -> tuple[int, int, int]:
    one = generator.layers[layer]
    return one.units, one.height, one.width


def test_neither_memory_nor_batch_matter() -> None:
    generator = small_dcgan((6, 4))
    latents = sample_latents(generator, range(5), 7)
    finished: list[int] = []
    whole = local_activation(generator, latents, [0, 1], progress=finished.append)
    assert sum(finished) == 5
    for memory in (1, 20_000, 100_000):
        finished.clear()
        parts = local_activation(generator, latents, [0, 1], memory=memory, progress=finished.append)
        assert sum(finished) == 5
        for layer in (0, 1):
            torch.testing.assert_close(parts.score[layer], whole.score[layer], rtol=1e-5, atol=0.0)
            torch.testing.assert_close(parts.curvature[layer], whole.curvature[layer], rtol=1e-4, atol=1e-7)
    assert len(finished) > 1
    alone = [local_activation(generator, latents[[row]], [1]).score[1] for row in range(5)]
    torch.testing.assert_close(torch.cat(alone), whole.score[1], rtol=1e-5, atol=0.0)
    assert torch.equal(
        local_activation(generator, latents, ["layer1"]).curvature[1], local_activation(generator, latents, [1]).curvature[1]
    )


def test_the_scores_by_hand() -> None:
    h = torch.tensor([[[[1.0, 2.0]], [[-1.0, 0.0]]]])
    c = torch.tensor([[[[-3.0, 4.0]], [[5.0, -6.0]]]])
    local = LocalActivation({2: c}, {2: h})
    # concave where positive counts 3, convex where negative counts 5; convex where positive and anything where 0 count nothing
    assert local.neuron_score(2).flatten().tolist() == [3.0, 0.0, 5.0, 0.0]
    assert local.score[2].tolist() == [8.0]
    assert local.unit_score[2].tolist() == [[1.5, 2.5]]
    assert local.unit_curvature[2].tolist() == [[0.5, -0.5]]
    assert local.score[2].dtype == local.unit_score[2].dtype == torch.float64
    assert local.layers == (2,)
    equation_3 = (c.clamp(max=0) * (h > 0) - c.clamp(min=0) * (h < 0)).abs().sum()
    assert float(local.score[2]) == float(equation_3)


@pytest.mark.parametrize(
    "settings",
    [
        {"bound": 0.0},
        {"bound": -1.0},
        {"bound": float("nan")},
        {"divisions": 3},
        {"divisions": 0},
        {"axes": []},
        {"axes": [0, 0]},
        {"axes": [5]},
        {"axes": [-1]},
    ],
)
def test_settings_out_of_range(settings: dict) -> None:
    generator = small_dcgan()
    with pytest.raises(InputError, match=r"cannot be divided|Not a choice of latent axes"):
        local_activation(generator, sample_latents(generator, range(2), 1), [0], **settings)


def test_layers_that_are_not_there_and_values_that_are_not_finite() -> None:
    generator = small_dcgan()
    latents = sample_latents(generator, range(2), 1)
    with pytest.raises(LayerError):
        local_activation(generator, latents, [9])
    with pytest.raises(LayerError, match="No layer was chosen"):
        local_activation(generator, latents, [])
    generator.bias[0][0] = torch.nan
    assert local_activation(generator, latents, [0]).score[0].isnan().all()


def test_axes_that_cannot_reach_a_layer_are_not_walked_and_still_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    from qualitygate.generators.families.biggan import BigGAN

    case = next(case for case in importlib.import_module("reference.cases_biggan").CASES if case.file == "biggan_r32_mybn")
    generator = assemble_contents(Contents("test", case.tree(load(case.file))), case.file).generator
    latents = sample_latents(generator, range(2), seed=5)
    layer = generator.layers[0].index
    assert len(generator.axes_reaching(layer)) < generator.latent_size
    skipping = local_activation(generator, latents, [layer]).curvature[layer]
    monkeypatch.setattr(BigGAN, "axes_reaching", lambda self, _: range(self.latent_size))
    walking = local_activation(generator, latents, [layer]).curvature[layer]
    assert torch.allclose(skipping, walking, rtol=1e-5, atol=1e-9)
    assert skipping.abs().max() > 0
