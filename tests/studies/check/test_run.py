"""A check without real images: other images of the baseline serve as the reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small import small_dcgan
from small_policy import small_policy
from torch import Tensor

from qualitygate.checkpoints.load import load_generator
from qualitygate.checkpoints.save import save_generator
from qualitygate.features.extractor import Extractor
from qualitygate.generators.base import Generator
from qualitygate.generators.passes import Reporter
from qualitygate.metrics.estimate import Resampling
from qualitygate.metrics.measured_set import RealSet
from qualitygate.policy.model import TO_BASELINE, Check, CheckRule, Margin
from qualitygate.records.check import CheckRecord, RuleOutcome, RuleState
from qualitygate.studies.check.model import CheckedModel, CheckInputs, cached_profile, early_outcome, needs_reference
from qualitygate.studies.check.run import check
from qualitygate.studies.check.sample import REFERENCE_FROM, Sample, reference_set

SEED = 1


class Thumbnail(Extractor):
    """Four pixels of the only channel; counts how often it was asked."""

    key, features = "thumbnail", 4

    def __init__(self) -> None:
        self.passes = 0

    def __call__(self, images: Tensor) -> Tensor:
        self.passes += 1
        return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1).float()


def rule(metric: str = "precision_to_baseline", **more: Any) -> CheckRule:
    limit = more or {"worse_by": Margin(absolute=0.1)}
    return CheckRule(id=metric, metric=metric, severity="warning", optional=True, **limit)


RULES = tuple(map(rule, TO_BASELINE))
POLICY = small_policy(check=Check(samples=128, budget={"samples": 128}, seed=SEED, rules=RULES))
REAL = RealSet("photos", "r", torch.arange(10.0)[:, None])


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUALITYGATE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def model(generator: Generator, path: Path) -> CheckedModel:
    save_generator(generator, path)
    loaded = load_generator(path)
    return CheckedModel(path.name, cached_profile(loaded, POLICY), loaded)


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> CheckedModel:
    return model(small_dcgan(), tmp_path_factory.mktemp("check") / "baseline.safetensors")


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> CheckedModel:
    """Brighter in every pixel: no image is one that the baseline could have made."""
    generator = small_dcgan()
    with torch.no_grad():
        generator.bias[-1].add_(3.0)
    return model(generator, tmp_path_factory.mktemp("check") / "damaged.safetensors")


def states(record: CheckRecord) -> dict[str, RuleState]:
    return {one.metric: one.state for one in record.rules}


def rules_of(record: CheckRecord) -> dict[str, RuleOutcome]:
    return {one.metric: one for one in record.rules}


def test_numbers_by_hand() -> None:
    """A reference at 0, 1 … 9: the third neighbour is 2 away, and 3 at both ends, so that the balls reach from −3 to 12."""
    sample, how = object.__new__(Sample), Resampling(1, 100, 0.05)
    sample.__dict__ |= {
        "features": torch.tensor([0.5, 4.5, 11.9, 12.1, 50.0])[:, None],
        "discriminator": None,
        "lengths": None,
        "_sets": {},
    }
    found = {name: sample.estimate(name, REAL, how).value for name in ("precision_to_baseline", "coverage_to_baseline")}
    # 0.5, 4.5 and 11.9 lie in a ball; the balls of 7 and 8, from 5 to 10, hold none
    assert found == {"precision_to_baseline": 0.6, "coverage_to_baseline": 0.8}


def test_damage_fails_and_the_baseline_itself_scores_below_1(baseline: CheckedModel, damaged: CheckedModel) -> None:
    record = check(damaged, baseline, POLICY, CheckInputs(extractor=Thumbnail())).record
    assert states(record)["precision_to_baseline"] is RuleState.FAILED
    assert states(record)["coverage_to_baseline"] is RuleState.FAILED
    one = rules_of(record)["precision_to_baseline"]
    assert one.value == 0.0
    assert one.baseline is not None
    assert 0.5 < one.baseline < 1.0
    assert "for better or worse" in (one.advice or "")
    assert record.verdict is RuleState.PASSED
    assert record.warned


def test_a_reference_is_made_once_and_shares_no_id_with_a_sample(baseline: CheckedModel, damaged: CheckedModel) -> None:
    extractor = Thumbnail()
    check(damaged, baseline, POLICY, CheckInputs(extractor=extractor))
    passes = extractor.passes
    again = reference_set(baseline, extractor, 128, SEED, Reporter())
    check(damaged, baseline, POLICY, CheckInputs(extractor=extractor))
    assert extractor.passes == passes
    assert POLICY.check.budget.samples < REFERENCE_FROM
    assert not torch.equal(again.features, reference_set(baseline, extractor, 128, SEED + 1, Reporter()).features)
    assert len(reference_set(baseline, extractor, 64, SEED, Reporter()).features) == 64


def test_the_same_file_passes_and_no_image_is_made(baseline: CheckedModel) -> None:
    extractor = Thumbnail()
    same = replace(baseline, source="copy")
    assert not needs_reference(RULES, same, baseline, real=False)
    record = check(same, baseline, POLICY, CheckInputs(extractor=extractor)).record
    assert set(states(record).values()) == {RuleState.PASSED}
    assert record.verdict is RuleState.PASSED
    assert extractor.passes == 0


def test_an_absolute_limit_is_looked_at_even_of_the_same_file(baseline: CheckedModel) -> None:
    absolute = (rule(min=0.2),)
    assert needs_reference(absolute, baseline, baseline, real=False)
    policy = POLICY.model_copy(update={"check": POLICY.check.model_copy(update={"rules": absolute})})
    (one,) = check(baseline, baseline, policy, CheckInputs(extractor=Thumbnail())).record.rules
    assert one.state is RuleState.PASSED
    assert one.value is not None
    assert one.baseline is None


def test_what_is_left_out_says_why(baseline: CheckedModel, damaged: CheckedModel) -> None:
    bare, inputs = replace(baseline, generator=None), CheckInputs(extractor=Thumbnail())
    asked = rule()
    asks = (asked, rule("precision", min=0.1))
    for held, given, said in (
        (None, inputs, "no baseline"),
        (bare, inputs, "a profile alone"),
        (baseline, CheckInputs(), "no extractor"),
        (baseline, replace(inputs, real=REAL), "real images were given"),
    ):
        found = early_outcome(asked, asks, damaged, held, given)
        assert found is not None
        assert found[0] is RuleState.LEFT_OUT
        assert said in found[1]
    assert early_outcome(asked, asks, damaged, baseline, inputs) is None
    alone = early_outcome(asked, (asked,), damaged, baseline, replace(inputs, real=REAL))
    assert alone is None, "no rule looks at the real images instead"
    insisted = asked.model_copy(update={"optional": False})
    assert early_outcome(insisted, asks, damaged, baseline, replace(inputs, real=REAL)) is None
    assert early_outcome(insisted, asks, damaged, bare, inputs) == (
        RuleState.INCONCLUSIVE,
        early_outcome(asked, asks, damaged, bare, inputs)[1],
    )  # type: ignore[index]


def test_a_reference_is_needed_only_where_it_will_be_used(baseline: CheckedModel, damaged: CheckedModel) -> None:
    assert needs_reference(RULES, damaged, baseline, real=False)
    assert not needs_reference((*RULES, rule("precision", min=0.1)), damaged, baseline, real=True)
    assert not needs_reference(RULES, damaged, None, real=False)
    assert not needs_reference(RULES, damaged, replace(baseline, generator=None), real=False)
    assert not needs_reference((CheckRule(id="y", metric="yield", min=0.5),), damaged, baseline, real=False)


def test_where_real_images_cannot_be_compared_the_counts_still_decide(baseline: CheckedModel, damaged: CheckedModel) -> None:
    """A profile makes no images: with it as a baseline the rules on real images are left out, and the counts may not be mere warnings."""
    bare = replace(baseline, generator=None)
    policy = POLICY.model_copy(update={"check": POLICY.check.model_copy(update={"rules": None})})
    real = RealSet("photos", "r", torch.randn(10, 4, generator=torch.Generator().manual_seed(0)))
    record = check(damaged, bare, policy, CheckInputs(real=real, extractor=Thumbnail())).record
    severities = {one.id: one.severity for one in record.rules}
    assert severities["low_rate_tail"] == severities["dead_units"] == "critical"
    assert record.policy_hash == policy.check_hash()


def test_hand_written_expectations_see_samples_though_no_rule_needs_one(baseline: CheckedModel) -> None:
    suite = {"format": 1, "summary": [], "samples": [{"type": "expect_column_to_exist", "kwargs": {"column": "low_rate_0.1"}}]}
    policy = POLICY.model_copy(update={"check": POLICY.check.model_copy(update={"rules": (rule(),)})})
    record = check(baseline, baseline, policy, CheckInputs(suite=suite)).record
    assert record.suite.passed
    assert record.samples == policy.check.samples
