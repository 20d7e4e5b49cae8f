from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from small import small_dcgan, small_pggan, small_stylegan2

from metrics.made_up import Squares
from qualitygate.errors import InputError
from qualitygate.generators.base import sample_latents
from qualitygate.latents import Latents
from qualitygate.metrics.path_length import PER_SAMPLE, PathSettings, inlier_mask, path_lengths, slerp
from qualitygate.testing.toys import random_toy

FEW = replace(PER_SAMPLE, paths=3)


def test_slerp_agrees(recorded) -> None:
    start, end, t = (recorded.tensors[f"input/slerp_{name}"] for name in ("z0", "z1", "t"))
    for at, key in ((t, "t"), (t + 1e-4, "t_plus_1e-4")):
        direction = torch.nn.functional.normalize(slerp(start, end, at), dim=1)
        torch.testing.assert_close(direction.float(), recorded.tensors[f"expected/slerp_out_{key}"], rtol=1e-5, atol=1e-6)


def test_slerp_keeps_its_ends() -> None:
    start, end = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(slerp(start, end, 0.0), start)
    torch.testing.assert_close(slerp(start, end, 1.0), end)
    torch.testing.assert_close(slerp(start, start, 0.3), start)
    halfway = torch.linalg.vector_norm(slerp(start, end, 0.5), dim=1)
    ends = torch.linalg.vector_norm(start, dim=1), torch.linalg.vector_norm(end, dim=1)
    torch.testing.assert_close(halfway, (ends[0] + ends[1]) / 2)


def test_the_set_agrees_with_the_reference(recorded, expected) -> None:
    distances = recorded.tensors["input/ppl_dist"]
    assert int(inlier_mask(distances).sum()) == expected["nvlabs_ppl"]["n_kept"]
    assert float(distances.double()[inlier_mask(distances)].mean()) == pytest.approx(expected["nvlabs_ppl"]["value"], rel=1e-6)
    assert torch.equal(inlier_mask(distances.view(100, 10)).view(-1), inlier_mask(distances))


def test_a_linear_generator_by_hand() -> None:
    """Image ``a·z``: a step of ε along the way from z to e changes it by ε times the rate of slerp there."""
    toy = random_toy(4, [(1, 1, 1)], slope=1.0)
    latents = sample_latents(toy, range(40), 1)
    lengths = path_lengths(toy, latents, Squares(), FEW)
    assert lengths.shape == (40, 3)
    finer = path_lengths(toy, latents, Squares(), replace(FEW, epsilon=1e-3))
    assert torch.allclose(lengths.mean(), finer.mean(), rtol=0.02)


@pytest.mark.parametrize("settings", [FEW, replace(FEW, where="full"), replace(FEW, space="w"), replace(FEW, space="w", where="full")])
def test_a_sample_has_its_lengths_whatever_it_is_measured_with(settings: PathSettings) -> None:
    generator = small_stylegan2()
    together = path_lengths(generator, sample_latents(generator, range(70), 3), Squares(), settings)
    ragged = path_lengths(generator, sample_latents(generator, [69, 5], 3), Squares(), settings)
    torch.testing.assert_close(ragged, together[[69, 5]], rtol=1e-2, atol=1e-3)
    assert together.unique().numel() == together.numel()


def test_every_setting_has_an_effect() -> None:
    generator = small_stylegan2()
    latents = sample_latents(generator, range(5), 3)
    base = path_lengths(generator, latents, Squares(), FEW)
    for change in ({"space": "w"}, {"where": "full"}, {"seed": 1}, {"epsilon": 1e-2}):
        assert not torch.allclose(path_lengths(generator, latents, Squares(), replace(FEW, **change)), base, rtol=1e-2)
    assert path_lengths(generator, latents, Squares()).shape == (5, 16)
    finished: list[int] = []
    path_lengths(generator, latents, Squares(), FEW, progress=finished.append)
    assert finished == [5]


def test_paths_start_at_the_sample_in_families_that_do_not_normalise() -> None:
    generator = small_dcgan()
    latents = sample_latents(generator, range(3), 0)
    seen: list[torch.Tensor] = []

    class Recorder(Squares):
        def __call__(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
            seen.append(first)
            return super().__call__(first, second)

    path_lengths(generator, latents, Recorder(), FEW)
    assert all(torch.equal(first, seen[0]) for first in seen)
    torch.testing.assert_close(seen[0][:3], generator(latents))


def test_labels_stay_with_their_path() -> None:
    toy = random_toy(3, [(2, 1, 1)], label_size=2)
    latents = sample_latents(toy, range(6), 0)
    first, second = (replace(latents, labels=torch.full((6,), label)) for label in (0, 1))
    assert not torch.equal(path_lengths(toy, first, Squares(), FEW), path_lengths(toy, second, Squares(), FEW))


def test_the_corrected_generator_has_paths_of_its_own() -> None:
    generator = small_dcgan()
    latents = sample_latents(generator, range(70), 0)
    asked: list[int] = []

    def edits(rows: np.ndarray) -> dict[int, Callable[[torch.Tensor], torch.Tensor]]:
        asked.extend(rows.tolist())
        return {0: lambda activation: activation * torch.from_numpy(rows < 5)[:, None, None, None]}

    untouched, edited = (path_lengths(generator, latents, Squares(), FEW, edits=one) for one in (None, edits))
    assert asked == [*range(70), *[69] * 58]
    torch.testing.assert_close(edited[:5], untouched[:5])
    assert float(edited[5:].max()) == 0.0


def test_refusals() -> None:
    generator = small_pggan()
    latents = sample_latents(generator, range(3), 0)
    with pytest.raises(InputError, match="no such paths in pggan"):
        path_lengths(generator, latents, Squares(), replace(FEW, space="w"))
    styled = small_stylegan2()
    with pytest.raises(InputError, match="from latents in w"):
        path_lengths(styled, Latents(np.arange(2), None, torch.zeros(2, 6), space="w"), Squares())
    with pytest.raises(InputError, match="1 of them not finite"):
        inlier_mask(torch.tensor([1.0, torch.nan]))
