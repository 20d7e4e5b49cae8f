"""How many samples go into a pass: chosen for the device, and of no account to what a sample is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from small import small_dcgan, small_pggan, small_stylegan2
from small_policy import small_policy

from qualitygate.errors import InputError
from qualitygate.gating.calibrate import calibrate
from qualitygate.gating.stage import GatedBlock, GateStage
from qualitygate.generators import passes
from qualitygate.generators.base import Generator
from qualitygate.generators.passes import LIVE, MICRO_BATCH, micro_batch_within
from qualitygate.policy.model import Calibration, Detection, Limit, Rule
from qualitygate.policy.scores import parse

GIB = 2**30
PIXEL, SIGMA = 1e-5, 1e-4  # what docs/tutorial-production.md states, of values in [-1, 1] and of a score's deviation


@pytest.mark.parametrize("memory", [6, 12, 16, 24, 40, 80, 141])
@pytest.mark.parametrize("widest", [2**10, 2**16, 2**19, 96 * 128**2, 2**23, 2**25])
def test_a_gpu_has_work_and_no_more_than_it_holds(memory: int, widest: int) -> None:
    chosen = micro_batch_within(memory * GIB, widest)
    assert chosen & (chosen - 1) == 0
    assert 1 <= chosen <= 1024
    assert chosen == 1 or 4 * LIVE * 4 * widest * chosen <= memory * GIB
    larger = 4 * LIVE * 4 * widest * 2 * chosen > memory * GIB  # or it has work enough
    assert larger or chosen == 1024 or (chosen >= MICRO_BATCH and 2 * chosen * widest > 2**26)


def test_small_images_and_large_ones() -> None:
    assert micro_batch_within(16 * GIB, 64 * 32**2) == 1024  # DCGAN at 64×64
    assert micro_batch_within(24 * GIB, 512 * 64**2) == 64  # StyleGAN2 at 64×64
    assert micro_batch_within(24 * GIB, 32 * 1024**2) == 8  # and at 1024×1024
    assert micro_batch_within(80 * GIB - 2**28, 32 * 1024**2) == micro_batch_within(80 * GIB - 2**29, 32 * 1024**2) == 16


def test_of_a_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = small_dcgan()
    assert generator.widest == 64 * 64  # the image
    assert generator.micro_batch == MICRO_BATCH
    memory = {torch.device("cuda", 0): GIB, torch.device("cuda", 1): 2**21}
    monkeypatch.setattr(passes, "total_memory", memory.__getitem__)
    monkeypatch.setattr(passes, "free_memory", lambda device: memory[device] // 2)
    rows = []
    for device in (*memory, torch.device("cpu")):
        monkeypatch.setattr(type(generator), "device", device)
        rows.append((generator.micro_batch, generator.most_rows[3]))
    assert rows[:2] == [(1024, GIB // 2 // (LIVE * 4 * 3072)), (4, 2**20 // (LIVE * 4 * 3072))]
    assert rows[2][0] == MICRO_BATCH
    assert rows[2][1] > 2**40
    generator.micro_batch = 32
    assert generator.micro_batch == 32
    with pytest.raises(InputError, match="at least 1"):
        generator.micro_batch = 0


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("make", [small_dcgan, small_pggan, small_stylegan2])
def test_same_sample_same_verdict(make: Callable[[], Generator], threads: Callable[[int], None]) -> None:
    threads(1)
    generator = make()
    rules = (Rule(id="cla", score="cla/layer_1", limit=Limit(quantile=0.7)),)
    calibration = Calibration(rate_samples=200, score_samples=100, curvature_samples=64)
    detection = Detection(rates=(0.1, 0.2, 0.3), curvature="exact", curvature_layers=(1,))
    profile = calibrate(generator, small_policy(rules=rules, calibration=calibration, detection=detection))

    def gated(micro_batch: int) -> GatedBlock:
        generator.micro_batch = micro_batch
        stage = GateStage(generator, profile, profile.policy, seed=1)
        block = stage.block(stage.latents(range(70)))
        assert stage.record(block, 0).provenance.micro_batch == micro_batch
        return block

    first = gated(64)
    assert len({*first.decisions.verdict}) > 1
    for micro_batch, of_threads in ((16, 1), (128, 2)):
        threads(of_threads)
        other = gated(micro_batch)
        clear = ~(first.decisions.borderline | other.decisions.borderline)
        assert clear.mean() > 0.5
        assert (other.decisions.verdict == first.decisions.verdict)[clear].all()
        for name, column in first.columns.items():
            score = parse(name)
            counts = score is not None and not score.score.relative
            allowed = score.score.tolerance if counts and score else SIGMA * np.nanstd(column)
            np.testing.assert_allclose(other.columns[name], column, rtol=0, atol=max(allowed, 1e-6))
        for row in first.images.keys() & other.images.keys():
            assert np.abs(other.images[row] - first.images[row]).max() < PIXEL
