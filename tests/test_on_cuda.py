"""What runs on a GPU does so with tensors of its own, without a wait in the middle: every family, score and correction, and the gate."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_cuda import CUDA, fake_cuda, on_cuda
from reference.vectors import Case, load
from small import small_dcgan

from qualitygate.checkpoints.contents import Contents
from qualitygate.checkpoints.load import assemble_contents
from qualitygate.gating.calibrate import calibrate
from qualitygate.gating.stage import GateStage
from qualitygate.generators.base import Generator
from qualitygate.generators.convolutions import binomial
from qualitygate.generators.passes import scored_pass
from qualitygate.latents import Latents
from qualitygate.policy.corrections import METHODS
from qualitygate.policy.model import Calibration, Detection, Limit, Policy, Rule
from qualitygate.scores.local_activation import local_activation
from qualitygate.scores.low_rate import activation_rates, low_rate_counts, low_rate_heatmap

CASES: list[Case] = [
    case
    for path in sorted((Path(__file__).parent / "reference").glob("cases_*.py"))
    for case in importlib.import_module(f"reference.{path.stem}").CASES
]
ONE_OF_EACH = (
    "biggan_r32_mybn",
    "unetgan_uncond_r128",
    "hf_biggan_deep_r32",
    "genforce_pggan_r32_fused_label",
    "nvlabs_stylegan2_r32_resnet",
)
ONE_OF_EACH += ("nvlabs_stylegan2_r32_skip_cond", "nvlabs_stylegan3_t_r32")


@pytest.fixture(autouse=True)
def no_filter_is_kept() -> None:
    binomial.cache_clear()


def on_host(generator: Generator) -> Latents:
    """Latents, as they are before they are brought to the device."""
    labels = torch.zeros(3, dtype=torch.int64) if generator.label_size else None
    return Latents(np.arange(3), None, torch.randn(3, generator.latent_size), labels)


@pytest.mark.parametrize(
    "case", [pytest.param(one, id=one.file, marks=[pytest.mark.slow] * (one.file not in ONE_OF_EACH)) for one in CASES]
)
def test_every_family(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = assemble_contents(Contents("recorded", case.tree(load(case.file))), case.file)
    generator, discriminator = loaded.generator, loaded.discriminator
    latents = on_host(generator)
    layer = generator.layers[generator.presets.curvature[0]]
    made = {"float32": generator, "bfloat16": generator.at("bfloat16"), "float16": generator.at("float16")}
    monkeypatch.setattr(Generator, "at", lambda _, precision: made[precision])  # fake tensors cannot be converted without CUDA
    with fake_cuda(monkeypatch):
        for one in made.values():
            on_cuda(one)
        with scored_pass():
            for one in made.values():
                image = one(latents)
                assert (image.device, image.dtype) == (CUDA, torch.float32)
            moved = generator.begin_moved(latents.to(CUDA), torch.zeros(2, dtype=torch.int64, device=CUDA), torch.zeros(4, device=CUDA))
            assert generator.resume(moved).shape == (4 * 3 * 2, *generator.image_shape)
            if discriminator is not None:
                on_cuda(discriminator)
                labels = None if latents.labels is None else latents.labels.to(CUDA)
                assert discriminator(image, labels).device == CUDA
        for precision, one in made.items():
            rates = activation_rates(one, [layer.index], 64)
            assert low_rate_counts(one, latents, rates).device.type == "cpu"
            assert low_rate_heatmap(one, latents, rates).device.type == "cpu"
            if precision == "float16":
                continue
            found = local_activation(generator, latents[:1], [layer.index], axes=[0, 1], precision=precision)
            assert found.curvature[layer.index].device.type == "cpu"


CURVATURE = {
    "calibration": Calibration(rate_samples=256, score_samples=256, curvature_samples=256),
    "detection": Detection(curvature_layers=(1,)),
}


@pytest.mark.parametrize("method", METHODS)
def test_the_gate_with_every_correction(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = small_dcgan()
    generator.origin = generator.identity()
    rules = [Rule(id="counts", score="low_rate_0.1", limit=Limit(value=0.5), action="correct")]  # what leaves the device is 1
    policy = Policy(calibration=Calibration(rate_samples=256, score_samples=256), rules=rules, correction={"method": method})
    profile = calibrate(generator, policy)
    with fake_cuda(monkeypatch):
        on_cuda(generator)
        block = GateStage(generator, profile, policy, seed=1).block(GateStage(generator, profile, policy, seed=1).latents(range(70)))
    assert set(block.decisions.verdict) <= {"correct", "reject"}


def test_the_gate_that_accepts_and_screens(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = small_dcgan()
    generator.origin = generator.identity()
    policy = Policy(rules=[Rule(id="counts", score="low_rate_0.1", limit=Limit(value=1e9), action="reject")], correction=None, **CURVATURE)
    profile = calibrate(generator, policy)
    with fake_cuda(monkeypatch):
        on_cuda(generator)
        assert (generator.micro_batch, generator.most_rows.device) == (1024, CUDA)  # it was calibrated on the CPU
        stage = GateStage(generator, profile, policy, seed=1, as_pixels=True)
        assert stage.provenance.micro_batch == stage.block_size == 1024
        block = stage.block(stage.latents(range(70)))
    assert set(block.decisions.verdict) == {"accept"}
    assert {image.shape for image in block.images.values()} == {(64, 64, 1)}
    assert {image.dtype for image in block.images.values()} == {np.dtype(np.uint8)}
