"""How the grid is walked: which points, in which numbers, in which batches; none of it may show in an exact score."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from small import small_dcgan, small_pggan, small_stylegan2
from torch import Tensor

from qualitygate.errors import InputError
from qualitygate.gating.calibrate import calibrate
from qualitygate.gating.stage import GateStage
from qualitygate.generators.base import Generator, State, sample_latents
from qualitygate.latents import Latents, draw_latents
from qualitygate.policy.model import Calibration, Detection, Limit, Policy, Rule
from qualitygate.scores.local_activation import in_parts, local_activation, walked_in
from qualitygate.scores.screening import SequentialEstimator, schedule
from qualitygate.testing import ToyGenerator


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        # h = relu(r + 1.5), grid of 4 points a side at distance 1: the left change is at r = −2, the right bound at 4
        ([1, 2, 3, 4], (1.0 - 0.75) / 6.0),
        ([4, 2], (1.0 - 0.75) / 6.0),
        ([3, 4], (1.0 - 0.5) / 7.0),
        ([1, 4], (1.0 - 0.375) / 8.0),
        ([4], (1.0 - 0.375) / 8.0),
    ],
)
def test_change_points_are_looked_for_where_the_grid_is_walked(points: Sequence[int], expected: float) -> None:
    toy, latents = ToyGenerator([[[1.0]]], [[1.5]]), draw_latents([0], 0, 1)
    latents.z.zero_()
    local = local_activation(toy, latents, [0], bound=4.0, divisions=8, points=points)
    assert float(local.curvature[0]) == pytest.approx(expected)


@pytest.mark.parametrize("points", [[], [1, 2], [0, 4], [4, 5], [4, 4], [-4, 4]])
def test_points_that_are_no_part_of_the_grid(points: Sequence[int]) -> None:
    generator = small_dcgan()
    with pytest.raises(InputError, match=r"(?s)Not a choice of grid points.*\[1, 4\], 4 included"):
        local_activation(generator, sample_latents(generator, range(1), 1), [0], divisions=8, points=points)


# numbers


def wide() -> Generator:
    return small_dcgan((64, 32), latent_size=12)


def float64_scores(generator: Generator, latents: Latents) -> Tensor:
    exact = replace(latents, z=latents.z.double())
    return local_activation(copy.deepcopy(generator).double(), exact, [1]).score[1]


@pytest.mark.parametrize(("precision", "bound"), [("float32", 1e-5), ("tf32", 1e-5), ("bfloat16", 0.02)])
def test_what_a_precision_does_to_the_scores(precision: str, bound: float) -> None:
    generator = wide()
    latents = sample_latents(generator, range(8), 3)
    local = local_activation(generator, latents, [1], precision=precision)  # type: ignore[arg-type]
    assert local.precision == precision
    assert local.curvature[1].dtype == local.activation[1].dtype == torch.float32
    truth = float64_scores(generator, latents)
    assert ((local.score[1] - truth).abs() / truth).max() < bound
    exact = local_activation(generator, latents, [1])
    assert exact.precision == "float32"
    assert torch.equal(exact.score[1], local.score[1]) == (precision != "bfloat16")
    assert torch.equal(exact.activation[1], local.activation[1])  # the samples' own passes are in float32
    assert generator.device.type == "cpu"
    assert next(generator.parameters()).dtype == torch.float32


def test_weights_are_copied_once_for_all_parts_and_all_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, copies, lowered = wide(), [0], Generator.lowered

    def counted(copied: Generator, dtype: torch.dtype) -> torch.dtype:
        copies[0] += 1
        return lowered(copied, dtype)

    monkeypatch.setattr(Generator, "lowered", counted)
    latents = sample_latents(generator, range(70), 3)
    parts = list(in_parts(generator, latents, [1], precision="bfloat16"))
    assert [len(part.score[1]) for part in parts] == [64, 6]
    assert copies == [1]
    estimator = SequentialEstimator(walked_in(generator, "bfloat16"), latents[64:], [1], "bfloat16")
    for stage in schedule(generator.latent_size):
        score = estimator.advance(stage)[1]
    assert copies == [2]
    torch.testing.assert_close(torch.from_numpy(score), parts[1].score[1])
    assert parts[1].precision == "bfloat16"


def test_the_gate_copies_weights_once_for_exact_cla(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, copies, lowered = small_dcgan(), [0], Generator.lowered

    def counted(copied: Generator, dtype: torch.dtype) -> torch.dtype:
        copies[0] += 1
        return lowered(copied, dtype)

    rule = Rule(id="cla", score="cla/layer_0", limit=Limit(value=1e9), action="reject")
    detection = Detection(layers=(0,), curvature="exact", curvature_precision="bfloat16")
    policy = Policy(calibration=Calibration(rate_samples=100, score_samples=100), detection=detection, rules=(rule,), correction=None)
    stage = GateStage(generator, calibrate(generator, policy), policy, seed=1)
    monkeypatch.setattr(Generator, "lowered", counted)
    for first in (0, 4):
        stage.block(stage.latents(range(first, first + 4)))
    assert copies == [1]


def test_no_such_precision() -> None:
    generator = small_dcgan()
    with pytest.raises(InputError, match="float32, tf32, bfloat16"):
        local_activation(generator, sample_latents(generator, range(1), 1), [0], precision="float16")  # type: ignore[arg-type]


def test_the_same_call_gives_the_same_bits() -> None:
    generator = wide()
    latents = sample_latents(generator, range(3), 3)
    first, second = (local_activation(generator, latents, [0, 1]) for _ in range(2))
    assert all(torch.equal(first.curvature[layer], second.curvature[layer]) for layer in (0, 1))


# batches


def watched(monkeypatch: pytest.MonkeyPatch, generator: Generator, most: int, error: Exception) -> list[int]:
    """Rows of each pass; passes of more than ``most`` rows fail."""
    rows: list[int] = []
    begin_moved = type(generator).begin_moved

    def begin(self: Generator, latents: Latents, axes: Tensor, distances: Tensor) -> State:
        rows.append(len(latents) * len(axes) * len(distances))
        if rows[-1] > most:
            raise error
        return begin_moved(self, latents, axes, distances)

    monkeypatch.setattr(type(generator), "begin_moved", begin)
    return rows


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_running_out_of_memory_halves_the_batch(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = small_dcgan((6, 4), latent_size=7)
    latents = sample_latents(generator, range(5), 7)
    whole = local_activation(generator, latents, [0, 1])
    rows = watched(monkeypatch, generator, 3 * 20, error)
    finished: list[int] = []
    halved = local_activation(generator, latents, [0, 1], progress=finished.append)
    assert rows[:4] == [5 * 7 * 20, 2 * 7 * 20, 7 * 20, 3 * 20]
    assert sum(finished) == 5
    for layer in (0, 1):
        torch.testing.assert_close(halved.score[layer], whole.score[layer], rtol=1e-5, atol=0.0)
        torch.testing.assert_close(halved.activation[layer], whole.activation[layer], rtol=1e-5, atol=1e-7)


def test_one_axis_that_does_not_fit_and_other_errors_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = small_dcgan((6, 4))
    latents = sample_latents(generator, range(2), 7)
    with monkeypatch.context() as patch:
        watched(patch, generator, 0, MemoryError())
        with pytest.raises(MemoryError):
            local_activation(generator, latents, [1])
    with monkeypatch.context() as patch:
        rows = watched(patch, generator, 0, RuntimeError("broken"))
        with pytest.raises(RuntimeError, match="broken"):
            local_activation(generator, latents, [1])
        assert len(rows) == 1


def test_memory_bounds_the_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = small_dcgan((6, 4))
    latents = sample_latents(generator, range(2), 7)
    rows = watched(monkeypatch, generator, 10**9, MemoryError())
    largest = []
    for memory in (1, 500_000, 1_000_000, None):
        rows.clear()
        local_activation(generator, latents, [1], memory=memory)
        largest.append(max(rows))
        assert sum(rows) == 2 * 5 * 20
    assert largest == sorted(largest)
    assert largest[0] == 20
    assert largest[0] < largest[1] < largest[-1]


# shared steps


@pytest.mark.parametrize("make", [wide, small_pggan, small_stylegan2], ids=["dcgan", "pggan", "stylegan2"])
def test_moved_latents_are_the_latents_of_moved_z(make: Callable[[], Generator]) -> None:
    generator = make()
    latents = sample_latents(generator, range(3), 7)
    axes, distances = torch.tensor([2, 0]), torch.tensor([30.0, -3.0, 0.5])
    with torch.no_grad():
        moved = generator.begin_moved(latents, axes, distances)
        z = torch.stack([sample + r * torch.eye(len(sample))[axis] for r in distances for sample in latents.z for axis in axes])
        ran = generator.run(generator.start(z), 2 if len(generator.layers) > 2 else 1)
        torch.testing.assert_close(generator.run(moved, ran.layer).activation, ran.activation, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(moved.activation, generator.run(generator.start(z), 0).activation, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [wide, small_pggan, small_stylegan2], ids=["dcgan", "pggan", "stylegan2"])
def test_layers_by_position_are_the_layers(make: Callable[[], Generator]) -> None:
    generator = make()
    start = generator.start(sample_latents(generator, range(4), 7))
    by_position = [layer for layer in range(len(generator.layers)) if generator.by_position(layer) is not None]
    assert by_position
    with torch.no_grad():
        whole = {state.layer: state.activation.flatten(2).transpose(1, 2) for state in (start, *generator.states(start))}
        for layer in by_position:
            parts: dict[int, list[torch.Tensor]] = {index: [] for index, _, _ in generator.parts(start, layer)}
            for index, _, activation in generator.parts(start, layer):
                parts[index].append(activation.clone())
            assert len(parts[layer]) == generator.layers[layer].height * generator.layers[layer].width
            for index, seen in parts.items():
                torch.testing.assert_close(torch.cat(seen, dim=1), whole[index], rtol=1e-4, atol=1e-5)
