"""Does the score mean anything: found where a defect was planted, denied where labels are noise, and remembered by the profile."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from metrics.made_up import Projection
from small import image_set, small_dcgan
from small_policy import small_policy

from qualitygate.errors import InputError, PolicyError, ProfileError
from qualitygate.gating.calibrate import calibrate
from qualitygate.gating.profile import EVIDENCE, INFO, BlindScoreWarning, Profile, check_validated, load_profile, write_evidence
from qualitygate.gating.scoring import class_counts, class_rates
from qualitygate.gating.stage import GateStage
from qualitygate.generators.base import Discriminator, sample_latents
from qualitygate.metrics.estimate import auc
from qualitygate.policy.decide import Risk
from qualitygate.policy.model import Policy, parse_policy
from qualitygate.records import Interval
from qualitygate.records.validation import Evidence, EvidenceKind, Finding, ScoreSetting, Sight, ValidationReport, named_setting
from qualitygate.scores.low_rate import activation_rates, low_rate_counts
from qualitygate.studies.validate import ValidationSizes
from qualitygate.studies.validate.findings import logistic_weights
from qualitygate.studies.validate.run import validate, write_validation
from qualitygate.studies.validate.samples import ValidationInputs
from qualitygate.testing.planted import Defect, Planted, plant
from qualitygate.units.labels import Labels

QUICK = ValidationSizes(samples=200, curvature=0)
SEED = 5
RULE = named_setting("low_rate_0.2", (0, 1, 2))


@pytest.fixture(scope="module")
def profile() -> Profile:
    return calibrate(small_dcgan(), small_policy())


@pytest.fixture(scope="module")
def planted() -> Planted:
    return plant(small_dcgan(), Defect(layer=1, units=1, share=0.15, edge="soft"), 1)


@pytest.fixture(scope="module")
def learned(planted: Planted) -> Profile:
    return calibrate(planted.generator, small_policy())


def labels(planted: Planted, *, noise: bool = False) -> Labels:
    ids = np.arange(400)
    artifact = planted.truth.defective(sample_latents(planted.generator, ids, SEED)).numpy()
    return Labels(ids, np.random.default_rng(0).permutation(artifact) if noise else artifact, "a test")


def labelled(planted: Planted, learned: Profile, *, noise: bool = False) -> ValidationReport:
    inputs = ValidationInputs(planted.generator, learned, labels=labels(planted, noise=noise), label_seed=SEED)
    return validate(inputs, QUICK)


@pytest.fixture(scope="module")
def seen(planted: Planted, learned: Profile) -> ValidationReport:
    return labelled(planted, learned)


def test_a_score_that_sees_is_found_and_recommended(seen: ValidationReport, learned: Profile) -> None:
    assert seen.best is not None
    assert seen.best.sight is Sight.SEES
    assert seen.best.kind is EvidenceKind.LABELS
    assert seen.best.samples == 200  # the other half
    assert seen.best.bad_highest > seen.best.bad_lowest
    assert seen.fitted is not None
    assert seen.fitted.chosen_by is None
    assert seen.evidence.recommended is not None
    advice = yaml.safe_load(seen.evidence.recommended)
    policy = parse_policy(
        advice | {"detection": {"rates": [0.1, 0.2, 0.3], **advice.get("detection", {})}, "correction": {"judged_at": 0.1}}, "advice"
    )
    assert policy.require_validated
    with_evidence = replace(learned, evidence=seen.evidence)
    check_validated(with_evidence, policy)
    (first,) = seen.yields[:1]
    bad = [point.bad.value for point in first.points]
    assert bad[-1] < bad[0]
    assert [point.accepted for point in first.points] == sorted((point.accepted for point in first.points), reverse=True)


def test_noise_is_called_blind_and_gating_warns(planted: Planted, learned: Profile, tmp_path: Path) -> None:
    report = labelled(planted, learned, noise=True)
    own = report.evidence.of(RULE)
    assert own is not None
    assert own.sight is Sight.BLIND
    assert "BLIND" in report.remarks[0]
    assert report.evidence.recommended is None
    learned.save(tmp_path / "profile")
    write_evidence(tmp_path / "profile", report.evidence)
    again = load_profile(tmp_path / "profile")
    with pytest.warns(BlindScoreWarning, match=r"low_rate_0\.2, layers 0, 1, 2 is blind to what is bad by labels"):
        GateStage(planted.generator, again, again.policy, seed=1)
    with pytest.raises(PolicyError, match="requires validated scores"):
        GateStage(planted.generator, again, again.policy.model_copy(update={"require_validated": True}), seed=1)


def evidence_of(profile: Profile, *findings: Finding) -> Evidence:
    return Evidence(profile_id=profile.info.profile_id, package_version="0", seed=1, sources=(), findings=findings, recommended=None)


def finding(low: float, value: float, kind: EvidenceKind = EvidenceKind.LABELS, setting: ScoreSetting = RULE) -> Finding:
    auc = Interval(value=value, low=low, high=1.0)
    return Finding(
        setting=setting, kind=kind, samples=100, bad=50, chosen_by=auc, auc=auc, correlation=None, bad_lowest=0.0, bad_highest=1.0
    )


def test_sight() -> None:
    assert finding(0.4, 0.9).sight is Sight.BLIND
    assert finding(0.51, 0.6).sight is Sight.HARDLY
    assert finding(0.51, 0.7).sight is Sight.SEES
    assert "weak evidence" in str(finding(0.51, 0.7, EvidenceKind.PLANTED))


def test_the_strongest_evidence_counts(profile: Profile) -> None:
    evidence = evidence_of(
        profile, finding(0.6, 0.9, EvidenceKind.DISCRIMINATOR), finding(0.4, 0.5), finding(0.6, 0.9, EvidenceKind.REALISM)
    )
    found = evidence.of(RULE)
    assert found is not None
    assert found.kind is EvidenceKind.LABELS
    assert evidence.of(named_setting("low_rate_0.2", (0, 1))) is None
    assert evidence.of(RULE.model_copy(update={"by_class": True})) is None
    assert named_setting("low_rate_0.2", (1,)) == ScoreSetting(score="low_rate_0.2/layer_1")


@pytest.mark.parametrize(
    ("findings", "refused"),
    [
        ((), "nothing is known"),
        ((finding(0.6, 0.9),), None),
        ((finding(0.51, 0.6),), "hardly sees"),
        ((finding(0.6, 0.9, EvidenceKind.PLANTED),), "weak evidence"),
    ],
)
def test_a_policy_can_demand_validated_scores(profile: Profile, findings: tuple[Finding, ...], refused: str | None) -> None:
    policy = small_policy(require_validated=True)
    known = replace(profile, evidence=evidence_of(profile, *findings))
    if refused is None:
        check_validated(known, policy)
    else:
        with pytest.raises(PolicyError, match=refused):
            check_validated(known, policy)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_validated(known, small_policy())
    with pytest.raises(PolicyError, match="nothing is known"):
        check_validated(profile, policy)
    assert policy.hash == small_policy().hash


def test_a_risk_is_known_by_its_weights(profile: Profile) -> None:
    weights = {"low_rate_0.1/layer_0": 1.5, "never_seen_active/layer_1": 0.5}
    fitted = finding(0.6, 0.9, setting=ScoreSetting(score="risk", weights=weights, fitted=True))
    known = replace(profile, evidence=evidence_of(profile, fitted))
    rule = {"id": "r", "score": "risk", "limit": {"quantile": 0.9}}
    document = {"detection": {"rates": [0.1, 0.2, 0.3]}, "rules": [rule], "correction": {"judged_at": 0.1}, "require_validated": True}
    check_validated(known, parse_policy(document | {"risk": {"weights": weights}}, "p"))
    with pytest.raises(PolicyError, match="nothing is known"):
        check_validated(known, parse_policy(document, "p"))


def test_evidence_is_sealed(profile: Profile, tmp_path: Path) -> None:
    folder = tmp_path / "profile"
    profile.save(folder)
    assert load_profile(folder).evidence is None
    for value in (0.7, 0.9):  # written, and written again
        write_evidence(folder, evidence_of(profile, finding(0.6, value)))
        evidence = load_profile(folder).evidence
        assert evidence == evidence_of(profile, finding(0.6, value))
    load_profile(folder).save(tmp_path / "copy")
    assert load_profile(tmp_path / "copy").evidence == evidence
    with pytest.raises(ProfileError, match="another profile"):
        write_evidence(folder, evidence_of(profile).model_copy(update={"profile_id": "x"}))
    shutil.copy(folder / INFO, tmp_path / INFO)
    (folder / EVIDENCE).write_text((folder / EVIDENCE).read_text().replace("0.9", "0.8"))
    with pytest.raises(ProfileError, match=r"changed after it was written\n  found: evidence\.json"):
        load_profile(folder)
    (folder / EVIDENCE).unlink()
    with pytest.raises(ProfileError, match="Cannot read the profile"):
        load_profile(folder)


class Red(Discriminator):
    """Dislikes red images."""

    family = "red"
    settings: dict[str, object] = {}  # noqa: RUF012
    image_shape = (3, 32, 32)

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, images: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        return -images[:, 0].mean(dim=(1, 2))


def test_real_images_classes_and_a_discriminator(
    planted: Planted, learned: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUALITYGATE_CACHE", str(tmp_path / "cache"))
    clean = planted.truth.repaired(sample_latents(planted.generator, range(150), 9))
    real, classes = image_set("clean", clean), np.arange(150) % 3
    inputs = ValidationInputs(planted.generator, learned, Red(), Projection(), real, classes)
    report = validate(inputs, QUICK.model_copy(update={"curvature": 60, "class_samples": 120}))
    kinds = [source.kind for source in report.evidence.sources]
    assert kinds[0] is EvidenceKind.REALISM
    assert kinds[-1] is EvidenceKind.DISCRIMINATOR
    assert EvidenceKind.PLANTED not in kinds  # there is better evidence
    settings = {str(one.setting) for one in report.evidence.findings if one.kind is EvidenceKind.REALISM}
    assert {"low_rate_0.2, layers 0, 1, 2", "low_rate_0.1/layer_0", "never_seen_active/layer_1", "low_rate_0.3, layers 0, 1"} <= settings
    assert "low_rate_0.2, layers 0, 1, 2, by class" in settings
    assert any(one.startswith("risk") for one in settings)
    assert report.by_class is not None
    assert any("rates by class: 3 classes" in one for one in report.remarks)
    rarity = {str(one.setting): one for one in report.evidence.rarity}
    assert rarity.keys() >= {"low_rate_0.2, layers 0, 1, 2", "low_rate_0.2, layers 0, 1, 2, by class", str(report.best.setting)}
    assert any(one.startswith(f"{report.best.setting} ") and "with rarity" in one for one in report.remarks)
    first = report.yields[0]
    assert {"precision", "realism", "recall", "coverage", "kid", "fid"} <= set(first.points[0].measurements)
    assert sum(first.points[0].classes.values()) == pytest.approx(1.0)
    assert first.points[3].chance.keys() >= {"precision", "recall"}
    assert [row.group for row in report.groups[0].rows] == ["all", "random", "lowest", "highest"]
    write_validation(tmp_path / "out", report)
    assert {str(one.relative_to(tmp_path / "out")) for one in (tmp_path / "out").rglob("*.*")} >= {
        "validation.json",
        "findings.parquet",
        "figures/auc.png",
        "figures/yield.png",
    }
    assert ValidationReport.model_validate_json((tmp_path / "out/validation.json").read_bytes()) == report


def test_without_evidence_a_defect_is_planted(profile: Profile) -> None:
    inputs = ValidationInputs(small_dcgan(), profile)
    report = validate(inputs, QUICK.model_copy(update={"samples": 500}))
    assert [source.kind for source in report.evidence.sources] == [EvidenceKind.PLANTED]
    assert any("weak" in one for one in report.remarks)
    assert "require_validated" not in (report.evidence.recommended or "")
    with pytest.raises(InputError, match="no evidence"):
        validate(inputs, QUICK.model_copy(update={"planted": False}))
    with pytest.raises(InputError, match="seed of the calibration"):
        validate(inputs, QUICK.model_copy(update={"seed": 0}))


def test_rates_by_class_are_those_of_its_samples() -> None:
    generator, layers = small_dcgan(), (0, 1)
    latents = sample_latents(generator, range(90), 2)
    same = np.zeros(90, dtype=np.int64)
    rates = class_rates(generator, latents, same, layers)
    whole = activation_rates(generator, layers, 90, 2)
    for layer in layers:
        torch.testing.assert_close(rates[0].counts[layer], whole.counts[layer])
    classes = np.arange(90) % 2
    two = class_rates(generator, latents, classes, layers)
    torch.testing.assert_close(two[0].counts[1] + two[1].counts[1], whole.counts[1])
    found = class_counts(generator, latents, classes, two, (0.2,), layers)
    odd = latents[classes == 1]
    expected = low_rate_counts(generator, odd, two[1], 0.2, layers)[:, 1].double().numpy()
    np.testing.assert_array_equal(found["low_rate_0.2/layer_1"][classes == 1], expected)


def test_policies_are_hashed_without_it() -> None:
    assert Policy(require_validated=True).hash == Policy().hash


def test_weights_tell_bad_samples_from_good_ones() -> None:
    random = np.random.default_rng(0)
    bad = random.random(2000) < 0.2
    parts = {
        "tells": random.normal(size=2000) + 1.5 * bad,
        "noise": random.normal(size=2000),
        "against": random.normal(size=2000) - 1.0 * bad,
    }
    reference = {name: random.normal(size=1000) for name in parts}
    risk = Risk(reference, dict.fromkeys(parts, 1.0))
    found = logistic_weights(np.column_stack([risk.surprise(part, values) for part, values in parts.items()]), bad)
    assert found is not None
    weights = dict(zip(parts, found.tolist(), strict=True))
    assert weights["against"] == 0.0
    assert weights["tells"] > 5 * weights["noise"] >= 0.0
    assert sum(weights.values()) == pytest.approx(3.0)
    fitted, plain = (auc(one(parts), bad) for one in (Risk(reference, weights), risk))
    assert fitted.value > plain.value


@pytest.mark.parametrize(("values", "bad"), [([0.0, 1.0], [0, 0]), ([0.0, 1.0], [1, 1]), ([4.0, 3.0, 1.0, 2.0], [0, 0, 1, 1])])
def test_weights_where_nothing_can_be_told(values: list[float], bad: list[int]) -> None:
    assert logistic_weights(np.array(values)[:, None], np.array(bad, dtype=bool)) is None
