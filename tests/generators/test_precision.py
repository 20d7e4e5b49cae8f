"""Images in other numbers than float32: near those of float32, marked as made so, and never taken for them."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from reference.vectors import Case, load
from small import small_dcgan
from torch import nn

from qualitygate.checkpoints.contents import Contents
from qualitygate.checkpoints.load import assemble_contents
from qualitygate.errors import InputError, ProfileError
from qualitygate.gating.calibrate import calibrate
from qualitygate.gating.profile import Profile, load_profile
from qualitygate.gating.stage import GateStage, gate
from qualitygate.generators.base import Generator, sample_latents
from qualitygate.generators.families.stylegan2 import StyleGAN2
from qualitygate.generators.families.stylegan3 import StyleGAN3
from qualitygate.generators.module import ModuleGenerator
from qualitygate.latents import Latents
from qualitygate.policy.corrections import METHODS
from qualitygate.policy.model import Calibration, Detection, Limit, Policy, Rule
from qualitygate.scores.local_activation import local_activation

CASES: list[Case] = [
    case
    for path in sorted((Path(__file__).parents[1] / "reference").glob("cases_*.py"))
    for case in importlib.import_module(f"reference.{path.stem}").CASES
]


def recorded(name: str, settings: dict[str, object] | None = None) -> Generator:
    case = next(one for one in CASES if one.file == name)
    return assemble_contents(Contents("recorded", case.tree(load(case.file))), case.file, settings=settings).generator


def made(generator: Generator, latents: Latents) -> torch.Tensor:
    """Images of a few samples, not of a whole micro-batch: 16 bits are slow on the CPU."""
    with generator.scored_pass():
        return generator(latents)


@pytest.mark.parametrize("case", [pytest.param(one, id=one.file) for one in CASES])
def test_every_family_runs_in_16_bits(case: Case) -> None:
    generator = recorded(case.file)
    latents = sample_latents(generator, range(2), 1)
    exact = made(generator, latents)
    for precision, most in (("bfloat16", 0.02), ("float16", 0.0025)):
        lower = generator.at(precision)
        states = list(lower.states(lower.start(latents)))
        assert {state.activation.dtype for state in states} == {getattr(torch, precision)}
        images = made(lower, latents)
        assert images.dtype == torch.float32
        assert 0.0 < float((images - exact).square().mean().sqrt()) < most
        assert lower.identity() == generator.identity()
        assert lower.full is generator
    assert torch.equal(made(generator, latents), exact)


def test_tf32_is_on_in_the_passes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, seen = small_dcgan(), []
    advance = type(generator).advance

    def watched(self: Generator, state: object) -> object:
        seen.append(torch.backends.cuda.matmul.fp32_precision)
        return advance(self, state)

    monkeypatch.setattr(type(generator), "advance", watched)
    faster, before = generator.at("tf32"), torch.backends.cuda.matmul.fp32_precision
    seen.clear()
    images = faster.images(sample_latents(generator, range(3), 1))
    assert set(seen) == {"tf32"}
    assert torch.backends.cuda.matmul.fp32_precision == before
    assert torch.equal(images, generator.images(sample_latents(generator, range(3), 1)))  # the CPU has no such numbers
    assert seen[-1] == "ieee"


@pytest.mark.parametrize("name", ["nvlabs_stylegan2_r32_skip", "nvlabs_stylegan2_r32_resnet", "nvlabs_stylegan2_r32_orig"])
def test_the_sizes_that_nvidias_file_names_run_in_float16(name: str) -> None:
    plain, mixed = recorded(name), recorded(name, {"num_fp16_res": 2})
    assert mixed.settings == {**plain.settings, "num_fp16_res": 2}
    latents = sample_latents(plain, range(2), 1)
    exact = made(plain, latents)
    assert torch.equal(made(mixed, latents), exact)
    lower = mixed.at("float16")
    found = [state.activation.dtype for state in lower.states(lower.start(latents))]
    assert found == 3 * [torch.float32] + 4 * [torch.float16]  # up to 8×8, then 16×16 and 32×32
    error = (made(lower, latents) - exact).square().mean()
    assert 0.0 < error < (made(plain.at("float16"), latents) - exact).square().mean()
    states = list(mixed.at("bfloat16").states(mixed.at("bfloat16").start(latents)))
    assert {state.activation.dtype for state in states} == {torch.bfloat16}  # the setting is about float16


def test_stylegan3_goes_by_sampling_rates() -> None:
    mixed = recorded("nvlabs_stylegan3_t_r32", {"num_fp16_res": 1})
    assert isinstance(mixed, StyleGAN3)
    lower = mixed.at("float16")
    found = [state.activation.dtype for state in lower.states(lower.start(sample_latents(mixed, range(1), 1)))]
    assert found == [torch.float16 if rate > 16 else torch.float32 for rate in mixed._rates]
    assert {*found} == {torch.float16, torch.float32}
    assert lower.images(sample_latents(mixed, range(1), 1)).isfinite().all()


def test_settings_of_before_are_what_they_were() -> None:
    assert "num_fp16_res" not in StyleGAN2(4, [6, 6], [6, 5], 3, "skip").settings


def policy(method: str) -> Policy:
    rules = [Rule(id="counts", score="low_rate_0.3", limit=Limit(quantile=0.5), action="correct")]
    detection = Detection(rates=(0.3,))
    correction = {"method": method, "judged_at": 0.3}
    calibration = Calibration(rate_samples=128, score_samples=128)
    return Policy(calibration=calibration, rules=rules, detection=detection, correction=correction)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_the_gate_runs_in_it_with_every_correction(method: str, precision: str) -> None:
    generator = small_dcgan().at(precision)
    profile = calibrate(generator, policy(method))
    stage = GateStage(generator, profile, profile.policy, seed=1)
    block = stage.block(stage.latents(range(70)))
    assert len(block.images) + int(np.sum(block.decisions.verdict == "reject")) == 70
    assert {image.dtype for image in block.images.values()} == {np.dtype(np.float32)}
    assert block.decisions.strength[~np.isnan(block.decisions.strength)].size > 0
    assert stage.provenance.precision == precision


@pytest.fixture(scope="module")
def profiles() -> dict[str, Profile]:
    generator = small_dcgan()
    return {one: calibrate(generator.at(one), policy("sequential_ablation")) for one in ("float32", "tf32", "bfloat16", "float16")}


def test_a_profile_of_one_precision_does_not_gate_another(profiles: dict[str, Profile], tmp_path: Path) -> None:
    generator = small_dcgan()
    assert len({one.info.profile_id for one in profiles.values()}) == 4
    for precision, profile in profiles.items():
        profile.save(tmp_path / precision)
        read = load_profile(tmp_path / precision)
        assert read.info.precision == precision
        record, _ = next(gate(generator.at(precision), read, range(1)))
        assert record.provenance.precision == precision
        for other in profiles.keys() - {precision}:
            with pytest.raises(ProfileError, match=f"--precision {precision}"):
                next(gate(generator.at(other), read, range(1)))


def test_a_precision_written_over_is_seen(profiles: dict[str, Profile], tmp_path: Path) -> None:
    profiles["bfloat16"].save(tmp_path / "p")
    info = tmp_path / "p" / "profile.json"
    info.write_text(info.read_text().replace('"precision": "bfloat16"', '"precision": "float32"'))
    with pytest.raises(ProfileError, match="changed after it was written"):
        load_profile(tmp_path / "p")


def test_cla_is_that_of_float32_whatever_images_are_made_in() -> None:
    generator = small_dcgan()
    latents = sample_latents(generator, range(3), 1)
    exact = local_activation(generator, latents, [1]).curvature[1]
    assert torch.equal(local_activation(generator.at("float16"), latents, [1]).curvature[1], exact)


def test_float16_beyond_its_range_is_never_an_image() -> None:
    generator = small_dcgan()
    with torch.no_grad():
        generator.weight[1].mul_(1e5)
    assert generator.images(sample_latents(generator, range(4), 1)).isfinite().all()
    with pytest.raises(InputError, match="not finite"):
        calibrate(generator.at("float16"), policy("sequential_ablation"))


def test_both_are_moved_together() -> None:
    lower = small_dcgan().at("bfloat16")
    lower.to("meta")
    assert lower.full.device.type == lower.device.type == "meta"


def test_another_precision_of_another_precision() -> None:
    generator = small_dcgan()
    assert generator.at("bfloat16").at("float16").full is generator
    assert generator.at("bfloat16").at("float32") is generator
    with pytest.raises(InputError, match="float32, tf32, bfloat16, float16"):
        generator.at("float8")  # type: ignore[arg-type]


class OfItsOwn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(4, 3, 1), nn.Conv2d(3, 1, 1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.last(self.first(z).relu().float()))


def test_a_network_that_cannot_says_so() -> None:
    generator = ModuleGenerator(OfItsOwn(), ["first"], 4, latent_form="map")
    with pytest.raises(InputError, match="does not run in bfloat16"):
        generator.at("bfloat16")
