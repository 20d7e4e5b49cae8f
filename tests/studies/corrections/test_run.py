"""Corrections side by side: the same verdicts as the gate's, and numbers that can be worked out again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_policy import small_policy

from qualitygate.checkpoints.load import load_generator
from qualitygate.checkpoints.save import save_generator
from qualitygate.corrections.ablation import sequential_ablation
from qualitygate.errors import InputError
from qualitygate.gating.calibrate import calibrate
from qualitygate.gating.profile import Profile
from qualitygate.gating.stage import gate
from qualitygate.generators.base import Edits, Generator, sample_latents
from qualitygate.generators.families.dcgan import DCGAN
from qualitygate.latents import Latents
from qualitygate.policy.corrections import METHODS, Correction, LocalRegion, SequentialAblation, SequentialCorrection, ZeroAblation
from qualitygate.policy.model import Policy
from qualitygate.records.gate import Verdict
from qualitygate.scores.low_rate import low_rate_counts
from qualitygate.studies.corrections import CorrectionsRequest
from qualitygate.studies.corrections.result import AtStrength, Outcome, StudySamples
from qualitygate.studies.corrections.run import compare, run, worst_samples
from qualitygate.testing.toys import random_patches


@pytest.fixture(scope="module")
def samples(generator: DCGAN, profile: Profile) -> StudySamples:
    return worst_samples(generator, profile, profile.policy, 40, 200, seed=1)


def test_the_worst_of_the_pool(generator: DCGAN, profile: Profile, samples: StudySamples) -> None:
    counts = low_rate_counts(generator, sample_latents(generator, range(200), 1), profile.rates, 0.2, [0, 1, 2]).sum(dim=1)
    assert samples.score == "low_rate_0.2"
    assert samples.scores.tolist() == counts.sort(descending=True).values[:40].tolist()
    assert samples.scores.tolist() == [float(counts[one]) for one in samples.latents.ids]
    with pytest.raises(InputError, match="seed of the calibration"):
        worst_samples(generator, profile, profile.policy, 4, 20, seed=0)
    with pytest.raises(InputError, match="30 of 20"):
        worst_samples(generator, profile, profile.policy, 30, 20, seed=1)


def test_verdicts_are_those_of_the_gate(generator: DCGAN, profile: Profile, samples: StudySamples) -> None:
    for correction in (profile.policy.correction, SequentialCorrection(units=(1, 2), judged_at=0.1)):
        policy = small_policy(correction=correction)
        outcome = compare(generator, profile, policy, {"one": correction}, samples.latents).outcomes[0]
        records = {record.id: record for record, _ in gate(generator, profile, samples.latents.ids.tolist(), policy=policy)}
        checked = 0
        for row, sample in enumerate(samples.latents.ids.tolist()):
            record = records[sample]
            if record.verdict is Verdict.ACCEPT:
                continue
            checked += 1
            assert (outcome.least[row] >= 0) == (record.verdict is Verdict.CORRECT)
            if record.moved is not None:
                assert record.strength == outcome.at[outcome.least[row]].strength
                assert outcome.at[outcome.least[row]].moved[row] == pytest.approx(record.moved, abs=1e-5)
        assert checked > 20


def test_numbers_of_one_strength(generator: DCGAN, profile: Profile, samples: StudySamples) -> None:
    correction = SequentialAblation(rates=(0.3,))
    found = compare(generator, profile, profile.policy, {"a": correction}, samples.latents, show=3)
    assert found.left_out == {}
    outcomes, at = found.outcomes, found.outcomes[0].at[0]
    images = sequential_ablation(generator, samples.latents, profile.rates, 0.3, [0, 1, 2])
    untouched = generator(samples.latents)
    np.testing.assert_allclose(at.moved, (images - untouched).abs().mean(dim=(1, 2, 3)).numpy() / 2.0, atol=1e-5)
    spread = [(made - made.mean(dim=0)).square().mean().sqrt() for made in (images, untouched)]
    assert at.diversity == pytest.approx(float(spread[0] / spread[1]), rel=1e-4)
    assert len(at.shown) == 3
    assert outcomes[0].edited == (0, 1, 2)
    assert outcomes[0].judged == (1, 2, 3)


def outcome(correction: SequentialAblation, passed: list[list[bool]], look: int = 0) -> Outcome:
    at = [
        AtStrength(float(index), np.array(one), np.full(len(one), 0.1 * (index + 1)), 1.0, [np.full((1, 1, 1), index)] * 2)
        for index, one in enumerate(passed)
    ]
    return Outcome("made up", correction, (0,), (1,), look, tuple(at))


def test_least_correction_by_hand() -> None:
    made = outcome(SequentialAblation(), [[True, False, False], [True, True, False]], look=5)
    assert made.least.tolist() == [0, 1, -1]
    assert made.passed_share == pytest.approx(2 / 3)
    assert made.moved == pytest.approx(0.15)
    assert made.early_passes == pytest.approx(5 + (1 + 2 + 2) / 3)
    assert [int(one.flatten()[0]) for one in made.shown] == [0, 1]
    nothing = outcome(SequentialAblation(), [[False, False]])
    assert np.isnan(nothing.moved)
    assert nothing.passed_share == 0.0


def corrections(policy: Policy, **options: object) -> dict[str, Correction]:
    return CorrectionsRequest(checkpoint="model.pt", profile="profile", **options).corrections(policy, (0, 2))


def test_what_is_compared() -> None:
    policy = small_policy()
    chosen = corrections(policy)
    assert chosen["sequential_ablation, the policy's"] is policy.correction
    assert {one.method for one in chosen.values()} == set(METHODS)
    assert all(one.judged_at == 0.1 and one.limit.quantile == 0.8 for one in chosen.values())
    assert all(one.look != "walk" for one in chosen.values())
    assert len({repr(one) for one in chosen.values()}) == len(chosen)  # nothing twice
    assert any(one.look == "walk" for one in corrections(policy, own_cla=True).values())
    assert set(corrections(policy, method=("random_ablation",))) == {"random_ablation"}
    grid = corrections(policy, grid="0.1,0.5")
    assert [(one.method[:4], one.layers, one.rates) for one in grid.values()][:2] == [("sequ", (0,), (0.1,)), ("high", (0,), (0.1,))]
    assert len(grid) == 3 * 2 * 2


def test_what_cannot_be_used_is_left_out_and_says_why(generator: Generator, profile: Profile, samples: StudySamples) -> None:
    asked = {
        "by CLA": ZeroAblation(ranking="profile", score="cla"),
        "dead": ZeroAblation(ranking="profile", score="nothing"),
        "fine": LocalRegion(),
    }
    found = compare(generator, profile, profile.policy, asked, samples.latents)
    assert [one.name for one in found.outcomes] == ["fine"]
    assert "set calibration.curvature_samples" in found.left_out["by CLA"]
    assert "does not rank the units so" in found.left_out["dead"]


def test_each_untouched_image_is_made_once(generator: DCGAN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many corrections and strengths there are, and whatever is measured, drawn and kept of them."""
    save_generator(generator, tmp_path / "model.safetensors")
    calibrate(load_generator(tmp_path / "model.safetensors"), small_policy()).save(tmp_path / "profile")
    made: list[int] = []
    forward = Generator.forward

    def counted(self: Generator, latents: Latents, edits: Edits | None = None) -> torch.Tensor:
        if not edits:
            made.extend(set(latents.ids.tolist()))  # the last one of a batch is padding
        return forward(self, latents, edits)

    monkeypatch.setattr(Generator, "forward", counted)
    monkeypatch.setattr(CorrectionsRequest, "load_extractor", lambda *_: random_patches(generator.image_shape[0]))
    request = CorrectionsRequest(
        checkpoint=str(tmp_path / "model.safetensors"),
        profile=tmp_path / "profile",
        method=("sequential_ablation", "random_ablation", "local_region"),
        samples=40,
        pool=200,
        harm=8,
        extractor="patches",
        show=3,
        keep="random_ablation",
        out=tmp_path / "study",
        device="cpu",
    )
    result = run(request)
    assert len(result.outcomes) == 3
    assert result.rows[0]["fid"] > 0
    assert len(list((tmp_path / "study" / "before").iterdir())) == 40
    assert set(made) >= {*result.samples.latents.ids.tolist(), *result.samples.normal.ids.tolist()}
    assert len(made) == len(set(made))
