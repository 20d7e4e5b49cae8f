"""The gate: one record for every id, nothing unknown passes, and what is kept is what was judged."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import small_dcgan
from small_policy import small_policy
from torch import Tensor

import qualitygate
from qualitygate import names
from qualitygate.corrections.ablation import sequential_ablation
from qualitygate.errors import InputError, LatentsError, ProfileError
from qualitygate.gating import stage as stage_module
from qualitygate.gating.calibrate import calibrate
from qualitygate.gating.profile import Profile
from qualitygate.gating.stage import GateStage, gate
from qualitygate.generators.base import Generator, Origin, State, sample_latents
from qualitygate.generators.families.dcgan import DCGAN
from qualitygate.latents import load_latents
from qualitygate.policy.corrections import SequentialAblation
from qualitygate.policy.decide import decide
from qualitygate.policy.model import Calibration, Detection, Limit, Rule
from qualitygate.records.gate import SampleRecord, Verdict
from qualitygate.scores.local_activation import local_activation
from qualitygate.scores.low_rate import low_rate_counts
from qualitygate.testing import ToyGenerator, random_toy

Gated = list[tuple[SampleRecord, Tensor | None]]
IDS = range(200)


@pytest.fixture(scope="module")
def gated(generator: DCGAN, profile: Profile) -> Gated:
    return list(gate(generator, profile, IDS))


def of(gated: Gated, verdict: Verdict) -> Gated:
    return [(record, image) for record, image in gated if record.verdict is verdict]


def test_every_id_has_exactly_one_record_in_order(gated: Gated) -> None:
    assert [record.id for record, _ in gated] == list(IDS)
    shares = {verdict: len(of(gated, verdict)) for verdict in Verdict}
    assert all(share >= 10 for share in shares.values()), shares  # else the tests below say little


def test_only_what_is_kept_has_an_image(generator: DCGAN, gated: Gated) -> None:
    for record, image in gated:
        assert (image is None) == (record.verdict is Verdict.REJECT)
        if image is not None:
            assert image.shape == generator.image_shape
            assert image.dtype == torch.float32
            assert image.abs().max() <= 1.0


def test_accepted_images_are_those_of_the_generator(generator: DCGAN, gated: Gated) -> None:
    accepted = of(gated, Verdict.ACCEPT)
    images = generator(sample_latents(generator, [record.id for record, _ in accepted], 1))
    torch.testing.assert_close(torch.stack([image for _, image in accepted if image is not None]), images, rtol=0.0, atol=1e-5)


def test_corrected_images_are_ablated_at_their_strength(generator: DCGAN, profile: Profile, gated: Gated) -> None:
    strengths = set()
    for record, image in of(gated, Verdict.CORRECT):
        assert record.strength is not None
        latents = sample_latents(generator, [record.id], 1)
        expected = sequential_ablation(generator, latents, profile.rates, record.strength, [0, 1, 2])[0]
        torch.testing.assert_close(image, expected, rtol=0.0, atol=1e-5)
        moved = float((expected - generator(latents)[0]).abs().mean()) / 2.0
        assert record.moved == pytest.approx(moved, abs=1e-5)
        strengths.add(record.strength)
    assert len(strengths) > 1


def test_the_least_correction_wins(profile: Profile, gated: Gated) -> None:
    every = profile.limits(profile.policy).strengths
    for record, _ in gated:
        passed = [trial.passed for trial in record.trials]
        tried = [trial.strength for trial in record.trials]
        assert tried == list(every[: len(tried)])
        if record.verdict is Verdict.ACCEPT:
            assert tried == []
        elif record.verdict is Verdict.CORRECT:
            assert passed == [False] * (len(passed) - 1) + [True]
            assert record.strength == tried[-1]
        else:
            assert passed == [False] * len(every)
            assert record.reasons == ("over_limit:low_rate", "not_repaired")
            assert (record.strength, record.moved) == (None, None)


def test_scores_and_limits(generator: DCGAN, profile: Profile, gated: Gated) -> None:
    latents = sample_latents(generator, IDS, 1)
    limit = profile.limits(profile.policy).rules[0].limit
    for at in (0.1, 0.2, 0.3):
        counts = low_rate_counts(generator, latents, profile.rates, at, [0, 1, 2])
        for row, (record, _) in enumerate(gated):
            assert [record.scores[names.low_rate(at, layer)] for layer in range(3)] == counts[row].tolist()
            assert record.scores[names.low_rate(at)] == counts[row].sum()
    for record, _ in gated:
        assert (record.verdict is Verdict.ACCEPT) == (record.scores["low_rate_0.2"] <= limit)
        assert record.borderline or abs(record.scores["low_rate_0.2"] - limit) > 2


def judged_by_hand(generator: Generator, profile: Profile, sample: int, strength: float) -> dict[str, float]:
    """Counts at R = 0.1 in each layer, before that layer's own edit, after the edits of the layers before it."""
    state = generator.start(sample_latents(generator, [sample], 1))
    counts = {}
    for layer in range(4):
        state = generator.advance(state)
        counts[f"low_rate_0.1/layer_{layer}"] = float(((state.activation > 0) & profile.rates.low_rate(layer, 0.1)).sum())
        if layer in (0, 1, 2):
            gone = (state.activation > 0) & profile.rates.low_rate(layer, strength)
            state = state.edited(state.activation.masked_fill(gone, 0.0))
    del counts["low_rate_0.1/layer_0"]
    return counts


def test_what_a_corrected_sample_is_judged_on(generator: DCGAN, profile: Profile, gated: Gated) -> None:
    limits = {name: rule.limit for name, rule in profile.limits(profile.policy).recheck_limits.items()}
    trials = [(record.id, trial) for record, _ in gated for trial in record.trials]
    assert any(trial.scores["low_rate_0.1/layer_2"] > 0 for _, trial in trials)
    for sample, trial in trials:
        assert trial.scores == judged_by_hand(generator, profile, sample, trial.strength)
        assert trial.passed == all(score <= limits[name] for name, score in trial.scores.items())


def test_provenance(generator: DCGAN, profile: Profile, gated: Gated) -> None:
    provenance = gated[0][0].provenance
    assert all(record.provenance == provenance for record, _ in gated)
    assert provenance.checkpoint_sha256 == generator.identity().sha256
    assert provenance.profile_id == profile.info.profile_id
    assert provenance.policy_hash == profile.policy.hash
    assert (provenance.family, provenance.seed, provenance.device) == ("dcgan", 1, "cpu")
    assert (provenance.package_version, provenance.torch_version) == (qualitygate.__version__, torch.__version__)
    assert (provenance.precision, provenance.latents) == ("float32", None)
    for changed in (small_policy(rules=(Rule(id="a", score="low_rate_0.1", limit=Limit(value=3.0)),)), profile.policy):
        record, _ = next(iter(gate(generator, profile, [0], policy=changed)))
        assert (record.provenance.policy_hash == provenance.policy_hash) == (changed is profile.policy)


# independence


def outcome(gated: Gated) -> list[tuple[Any, ...]]:
    return [
        (record.id, record.verdict, record.strength, record.reasons, record.borderline, record.scores, record.trials) for record, _ in gated
    ]


def same_images(ours: Gated, theirs: Gated) -> None:
    for (_, one), (_, other) in zip(ours, theirs, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("cuts", [(0, 1, 50, 200), (0, 64, 128, 200), (0, 199, 200)])
def test_verdicts_do_not_depend_on_the_range(generator: DCGAN, profile: Profile, gated: Gated, cuts: Sequence[int]) -> None:
    pieces = [one for start, stop in pairwise(cuts) for one in gate(generator, profile, range(start, stop))]
    assert outcome(pieces) == outcome(gated)
    same_images(pieces, gated)


@pytest.mark.parametrize("constants", [{"_BLOCK_MOST": 64}, {"_BLOCK_MOST": 128}, {"_BLOCK_BYTES": 1}])
def test_verdicts_do_not_depend_on_blocks(
    generator: DCGAN, profile: Profile, gated: Gated, constants: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in constants.items():
        monkeypatch.setattr(stage_module, name, value)
    blocks = list(GateStage(generator, profile, profile.policy, seed=1).blocks(IDS))
    assert len(blocks) == (2 if constants.get("_BLOCK_MOST") == 128 else 4)
    again = list(gate(generator, profile, IDS))
    assert outcome(again) == outcome(gated)
    same_images(again, gated)


def test_ids_in_any_order(generator: DCGAN, profile: Profile, gated: Gated) -> None:
    ids = [150, 3, 77, 3, 199, 0]
    again = list(gate(generator, profile, ids))
    assert outcome(again) == [outcome(gated)[one] for one in ids]
    same_images(again, [gated[one] for one in ids])


def test_the_seed_matters(generator: DCGAN, profile: Profile, gated: Gated) -> None:
    other = list(gate(generator, profile, range(20), seed=2))
    assert outcome(other) != outcome(gated[:20])


def test_the_verdicts_are_those_of_the_records(generator: DCGAN, profile: Profile) -> None:
    """Deciding again from what is written down gives the same."""
    stage = GateStage(generator, profile, profile.policy, seed=1)
    block = next(iter(stage.blocks(IDS)))
    again = decide(stage.limits, block.columns)
    assert again.verdict.tolist() == block.decisions.verdict.tolist()
    assert again.reasons == block.decisions.reasons


# failing closed


def test_what_no_strength_repairs_is_rejected(generator: DCGAN, profile: Profile) -> None:
    impossible = small_policy(correction=SequentialAblation(rates=(0.1, 0.2, 0.3), limit=Limit(value=-1.0)))
    gated = list(gate(generator, profile, range(100), policy=impossible))
    assert not of(gated, Verdict.CORRECT)
    rejected = of(gated, Verdict.REJECT)
    assert len(rejected) > 10
    for record, image in rejected:
        assert image is None
        assert record.reasons == ("over_limit:low_rate", "not_repaired")
        assert [(trial.strength, trial.passed) for trial in record.trials] == [(0.1, False), (0.2, False), (0.3, False)]


def test_a_correction_that_everything_passes_takes_the_first_strength(generator: DCGAN, profile: Profile) -> None:
    lenient = small_policy(correction=SequentialAblation(rates=(0.1, 0.2, 0.3), limit=Limit(value=1e6)))
    gated = list(gate(generator, profile, range(100), policy=lenient))
    assert not of(gated, Verdict.REJECT)
    assert {record.strength for record, _ in of(gated, Verdict.CORRECT)} == {0.1}


def test_without_a_correction(generator: DCGAN, profile: Profile, gated: Gated) -> None:
    rule = Rule(id="low_rate", score="low_rate_0.2", limit=Limit(quantile=0.7), action="reject")
    strict = list(gate(generator, profile, IDS, policy=small_policy(rules=(rule,), correction=None)))
    assert {record.verdict for record, _ in strict} == {Verdict.ACCEPT, Verdict.REJECT}
    for (ours, image), (theirs, _) in zip(strict, gated, strict=True):
        assert (ours.verdict is Verdict.ACCEPT) == (theirs.verdict is Verdict.ACCEPT)
        assert (image is None) == (ours.verdict is Verdict.REJECT)
        assert ours.trials == ()


class Moody(ToyGenerator):
    """NaN in one neuron of layer ``bad_layer`` for every sample with a positive first component of z."""

    bad_layer = -1

    def begin(self, latents: Any) -> State:
        state = super().begin(latents)
        return State(state.layer, state.activation, (latents.z[:, 0] > 0,))

    def advance(self, state: State) -> State:
        after = super().advance(state)
        if after.layer == self.bad_layer:
            after.activation[state.carry[0], 0, 0, 0] = torch.nan
        return State(after.layer, after.activation, state.carry)

    def finish(self, state: State) -> Tensor:
        image = super().finish(state)
        return image.masked_fill(state.carry[0][:, None, None, None], torch.inf) if self.bad_layer == 99 else image


@pytest.fixture
def moody() -> tuple[Moody, Profile]:
    toy = random_toy(4, [(6, 2, 2), (5, 2, 2), (5, 2, 2), (4, 2, 2), (3, 4, 4)], shift=-0.6, seed=3)
    generator = Moody(list(toy.weight), list(toy.bias), toy.shapes)
    generator.origin = Origin("moody.pt", "ab" * 32)
    return generator, calibrate(generator, small_policy())


@pytest.mark.parametrize("bad_layer", range(5))
def test_nan_inside_never_passes(moody: tuple[Moody, Profile], bad_layer: int) -> None:
    """Layers 0 to 2 are scored; 3 is looked at only when a correction is judged; 4 only in the image."""
    generator, profile = moody
    before = list(gate(generator, profile, range(150)))
    assert {record.verdict for record, _ in before} == set(Verdict)
    generator.bad_layer = bad_layer
    after = list(gate(generator, profile, range(150)))
    ill = (sample_latents(generator, range(150), 1).z[:, 0] > 0).tolist()
    for (record, image), (healthy, _), broken in zip(after, before, ill, strict=True):
        if not broken:
            assert record == healthy
            continue
        assert record.verdict is Verdict.REJECT
        assert image is None
        if bad_layer <= 2:
            assert record.reasons == ("score_not_finite:low_rate",)
            assert np.isnan(record.scores[f"low_rate_0.1/layer_{bad_layer}"])
            assert np.isnan(record.scores["low_rate_0.2"])
        else:
            assert record.reasons[-1] in ("image_not_finite", "not_repaired")


def test_an_image_that_is_not_finite(moody: tuple[Moody, Profile], monkeypatch: pytest.MonkeyPatch) -> None:
    generator, profile = moody
    generator.bad_layer = 99
    monkeypatch.setattr(Generator, "resume", lambda self, state, edits=None: self.finish(self.run(state, 4, edits)))  # no clamping
    ill = (sample_latents(generator, range(100), 1).z[:, 0] > 0).tolist()
    reasons = set()
    for (record, image), broken in zip(gate(generator, profile, range(100)), ill, strict=True):
        if broken:
            assert record.verdict is Verdict.REJECT
            assert image is None
            reasons.add(record.reasons[-1])
    assert "image_not_finite" in reasons


# what is refused


def test_the_seed_of_the_calibration_is_refused(generator: DCGAN, profile: Profile) -> None:
    with pytest.raises(InputError, match="the seed of the calibration\n  found: seed 0"):
        next(iter(gate(generator, profile, range(3), seed=0)))


def test_another_checkpoint_is_refused(profile: Profile) -> None:
    with pytest.raises(ProfileError, match="another checkpoint"):
        next(iter(gate(small_dcgan(seed=1), profile, range(3))))
    changed = small_dcgan()
    changed.weight[3][0, 0, 0, 0] += 1e-3
    with pytest.raises(ProfileError, match="another checkpoint"):
        next(iter(gate(changed, profile, range(3))))


def test_a_policy_beyond_the_profile_is_refused(generator: DCGAN, profile: Profile) -> None:
    policy = small_policy(detection={"rates": (0.1, 0.15, 0.2)})
    with pytest.raises(ProfileError, match=r"R = 0\.15"):
        next(iter(gate(generator, profile, range(3), policy=policy)))


def test_ids_or_latents(generator: DCGAN, profile: Profile) -> None:
    with pytest.raises(InputError, match="neither"):
        next(iter(gate(generator, profile)))
    with pytest.raises(InputError, match="both"):
        next(iter(gate(generator, profile, range(2), latents=sample_latents(generator, range(2), 1))))
    with pytest.raises(LatentsError):
        next(iter(gate(generator, profile, [-1])))
    assert list(gate(generator, profile, [])) == []


# other ways in


def test_own_latents(generator: DCGAN, profile: Profile, gated: Gated, tmp_path: Path) -> None:
    np.savez(tmp_path / "z.npz", z=sample_latents(generator, range(40, 110), 1).z.numpy())
    own = list(gate(generator, profile, latents=load_latents(tmp_path / "z.npz")))
    assert [record.id for record, _ in own] == list(range(70))
    assert [one[1:] for one in outcome(own)] == [one[1:] for one in outcome(gated[40:110])]
    same_images(own, gated[40:110])
    assert own[0][0].provenance.seed is None


def test_labels_are_recorded() -> None:
    toy = random_toy(3, [(4, 2, 2)] * 4, label_size=3, shift=-0.5)
    profile = calibrate(toy, small_policy(calibration=Calibration(rate_samples=300, score_samples=100)))
    latents = sample_latents(toy, range(80), 1)
    assert latents.labels is not None
    records = [record for record, _ in gate(toy, profile, range(80))]
    assert [record.label for record in records] == latents.labels.tolist()
    images = toy(latents)
    for row, (record, image) in enumerate(gate(toy, profile, range(80))):
        if record.verdict is Verdict.ACCEPT:
            torch.testing.assert_close(image, images[row])


@pytest.mark.parametrize("action", ["reject", "correct"])
def test_a_rule_on_local_activation(action: str) -> None:
    toy = random_toy(3, [(6, 2, 2), (5, 2, 2), (5, 2, 2), (4, 2, 2)], shift=-0.5, seed=2)
    policy = small_policy(
        calibration=Calibration(rate_samples=400, score_samples=100, curvature_samples=60),
        rules=(Rule(id="cla", score="cla/layer_1", limit=Limit(quantile=0.7), action=action),),
    )
    profile = calibrate(toy, policy)
    limit = profile.limits(policy).rules[0].limit
    exact = local_activation(toy, sample_latents(toy, range(80), 1), [1]).score[1].numpy()
    over = 0
    for record, image in gate(toy, profile, range(80)):
        score = record.scores["cla/layer_1"]
        assert score == pytest.approx(exact[record.id], rel=1e-5)
        assert "low_rate_0.1" in record.scores
        if score <= limit:
            assert (record.verdict, record.reasons) == (Verdict.ACCEPT, ())
            continue
        over += 1
        assert record.reasons[0] == "over_limit:cla"
        assert (image is None) == (record.verdict is Verdict.REJECT)
        assert bool(record.trials) == (action == "correct")
    assert over > 10


def test_the_generator_is_left_as_it_was(profile: Profile) -> None:
    generator = small_dcgan()
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    list(gate(generator, profile, range(100)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in generator.state_dict().items())


def test_a_rule_on_a_single_layer_outside_the_detection_is_counted_there() -> None:
    policy = small_policy(
        detection=Detection(layers=(0,), rates=(0.1, 0.2)),
        rules=(Rule(id="deep", score="low_rate_0.2/layer_1", limit=Limit(quantile=0.8)),),
    )
    generator = small_dcgan()
    profile = qualitygate.calibrate(generator, policy)
    gated = list(qualitygate.gate(generator, profile, ids=range(64), seed=1))
    assert {"low_rate_0.2", "low_rate_0.2/layer_0", "low_rate_0.2/layer_1"} <= gated[0][0].scores.keys()
    assert any(record.verdict is not Verdict.ACCEPT for record, _ in gated)
