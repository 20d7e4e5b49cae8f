"""A device without the memory for a whole pass: the pass is halved, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from small import small_dcgan

from qualitygate.gating.profile import Profile
from qualitygate.gating.scoring import Scorer
from qualitygate.gating.stage import GatedBlock, GateStage
from qualitygate.generators.base import State, sample_latents
from qualitygate.generators.families.dcgan import DCGAN
from qualitygate.generators.passes import MostRows, in_halves


class Cramped(DCGAN):
    """Holds ``most`` samples in a pass; remembers the sizes of passes that worked."""

    most = 16

    def advance(self, state: State) -> State:
        if len(state.activation) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().advance(state)


def gated(profile: Profile, most: int | None) -> GatedBlock:
    generator = small_dcgan()
    if most is not None:
        generator.__class__, generator.most = Cramped, most
    (block,) = GateStage(generator, profile, profile.policy, seed=1).blocks(range(100))
    return block


def test_verdicts_and_images_are_those_of_whole_passes(profile: Profile) -> None:
    whole, halved = gated(profile, None), gated(profile, 16)
    assert halved.decisions.verdict.tolist() == whole.decisions.verdict.tolist()
    assert halved.columns.keys() == whole.columns.keys()
    for name, column in whole.columns.items():
        assert np.allclose(halved.columns[name], column, atol=1e-6, equal_nan=True)
    assert halved.images.keys() == whole.images.keys()
    for row, image in whole.images.items():
        assert np.abs(halved.images[row] - image).max() < 1e-5


def test_edits_that_differ_from_sample_to_sample_are_halved_with_their_samples(profile: Profile) -> None:
    def edits(rows: np.ndarray) -> dict[int, Callable[[torch.Tensor], torch.Tensor]]:
        factors = torch.from_numpy(rows).float()[:, None, None, None] / 64
        return {0: lambda activation: activation * factors}

    found = []
    for most in (64, 16):
        generator = small_dcgan()
        generator.__class__, generator.most = Cramped, most
        score = Scorer(generator, profile.rates, (0.1,), (0, 1))
        ((_, columns, state),) = score.over(sample_latents(generator, range(64), 1), edits=edits)
        found.append((*columns.values(), state.activation.numpy()))
    for whole, halved in zip(*found, strict=True):
        assert np.allclose(whole, halved, atol=1e-6)


def test_a_device_without_memory_for_one_sample_is_an_error(profile: Profile) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        gated(profile, 0)


def test_halves_are_in_order_and_only_where_needed() -> None:
    def run(rows: slice) -> list[int]:
        if rows.stop > 6 and rows.stop - rows.start > 2:
            raise torch.OutOfMemoryError
        return list(range(rows.start, rows.stop))

    most = MostRows(torch.device("cpu"), [1])
    assert in_halves(run, 12, most, 0) == [[0, 1, 2, 3, 4, 5], [6], [7, 8], [9], [10, 11]]
    # what memory was there for is where the next begins
    assert in_halves(run, 5, most, 0) == [[0, 1], [2], [3, 4]]
    assert in_halves(run, 5, MostRows(torch.device("cpu"), [1]), 0) == [[0, 1, 2, 3, 4]]


def test_a_device_that_was_short_of_memory_once_is_not_asked_for_as_much_again(profile: Profile) -> None:
    refused = []

    class Counting(DCGAN):
        def advance(self, state: State) -> State:
            if len(state.activation) > 16:
                refused.append(state.layer)
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().advance(state)

    generator = small_dcgan()
    generator.__class__ = Counting
    for _ in GateStage(generator, profile, profile.policy.model_copy(update={"correction": None}), seed=1).blocks(range(640)):
        pass
    assert len(refused) == 2 * 2  # 64 and 32 samples, once in the early layers, once in the remaining ones
