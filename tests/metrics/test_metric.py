from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.metrics.compare import Outcome, compare_records
from qualitygate.metrics.measured_set import MeasuredSet, RealSet
from qualitygate.metrics.metric import Evaluator
from qualitygate.records.metrics import Measurement
from qualitygate.studies.metrics.groups import group_row, histogram, orders, random_row

DIRECTED = {names.FID, names.KID, names.PRECISION, names.RECALL, names.DENSITY, names.COVERAGE, names.REALISM}
AGAINST_REAL = DIRECTED | {names.RARITY, names.RARE_SHARE, names.COPIES}


@pytest.fixture(scope="module")
def real(recorded) -> RealSet:
    return RealSet("recorded", "d" * 64, recorded.tensors["input/real"])


@pytest.fixture(scope="module")
def evaluator() -> Evaluator:
    return Evaluator("recorded features", "recorded distances")


@pytest.fixture(scope="module")
def measured(recorded, real: RealSet) -> MeasuredSet:
    lengths = torch.full((400, 10), torch.nan, dtype=torch.float64)
    lengths[:100] = recorded.tensors["input/ppl_dist"].double().view(100, 10)
    return MeasuredSet(400, recorded.tensors["input/fake"], np.linspace(0.0, 1.0, 400), lengths, real=real)


def test_the_whole_set_agrees_with_the_references(expected, evaluator: Evaluator, measured) -> None:
    found = evaluator.measure(measured)
    assert set(found) == AGAINST_REAL | {names.PPL, names.DISCRIMINATOR}
    wanted = expected["prdc_k3"] | {
        names.FID: expected["nvlabs_fid"]["value"],
        names.PPL: expected["nvlabs_ppl"]["value"],
        names.REALISM: expected["realism_rule"]["mean_paper"],
        names.RARITY: expected["rarity_rule"]["k3"]["mean_inside"],
        names.DISCRIMINATOR: 0.5,
    }
    for name, value in wanted.items():
        assert found[name].value == pytest.approx(value, rel=1e-6), name
    for name, one in found.items():
        assert one.low < one.value < one.high or name == names.COPIES
    assert (found[names.COPIES].low, found[names.COPIES].value) == (0.0, 0.0)
    assert 0.0 < found[names.COPIES].high < 0.01
    assert found[names.FID].samples == 400
    assert found[names.FID].real_samples == 500
    assert found[names.PPL].samples == 100
    assert found[names.PPL].extractor == "recorded distances"
    assert found[names.KID].extractor == "recorded features"


def test_the_interval_of_a_share_is_one_of_shares(evaluator: Evaluator, measured) -> None:
    """A jackknife of few samples, and a bootstrap in which all are alike, reach further than there is anything."""
    ends = [evaluator.measure(measured, np.arange(start, start + 9)) for start in range(0, 90, 9)]
    shares = [one[name] for one in ends for name in (names.PRECISION, names.RECALL, names.COVERAGE)]
    assert all(0.0 <= one.low <= one.value <= one.high <= 1.0 for one in shares)
    assert any(one.low == 0.0 for one in shares)


def test_a_share_of_none_may_be_more_than_none(recorded, evaluator: Evaluator, measured) -> None:
    """What no sample of 60 did, and no block of them changes, one in sixteen may do."""
    far = evaluator.measure(MeasuredSet(60, recorded.tensors["input/fake"][:60] + 1e3, real=measured.real))
    for name in (names.PRECISION, names.RECALL, names.COVERAGE):
        assert (far[name].value, far[name].low) == (0.0, 0.0), name
        assert far[name].high == pytest.approx(-np.log(0.025) / 60), name


def test_a_group_is_what_it_would_be_by_itself(recorded, evaluator: Evaluator, measured) -> None:
    rows = np.arange(50, 200)
    alone = MeasuredSet(150, recorded.tensors["input/fake"][50:200], real=measured.real)
    ours, theirs = evaluator.measure(measured, rows), evaluator.measure(alone)
    for name in AGAINST_REAL:
        assert ours[name].value == pytest.approx(theirs[name].value, rel=1e-9), name


def test_the_stated_bias_is_there_and_the_jackknife_holds_the_truth(recorded, evaluator: Evaluator, measured) -> None:
    half = evaluator.measure(measured, np.arange(200))[names.FID]
    whole = evaluator.measure(measured)[names.FID]
    assert half.value > whole.value
    assert "too large by about" in whole.note


def test_fid_of_few_stands_beside_that_of_as_many_real_images(recorded, evaluator: Evaluator, measured) -> None:
    """One rule for `metrics` and `corrections`: the number, what of it is bias, and no interval."""
    found = evaluator.measure(measured, np.arange(64))[names.FID]
    assert found.value is not None
    assert found.value > evaluator.measure(measured)[names.FID].value
    assert found.low is None
    assert found.note.startswith(
        "too few for an interval: 57 samples for 64 features; KID has no such limit; mostly bias: 64 of the real images themselves are at "
    )
    floor = float(found.note.rpartition(" ")[2])
    assert 0.0 < floor < found.value
    four = RealSet("four", "f", recorded.tensors["input/real"][:4], k=3)
    alone = evaluator.measure(MeasuredSet(9, recorded.tensors["input/fake"][:9], real=four))[names.FID]
    assert alone.note.endswith("mostly bias: compare it at this number of samples alone")


def test_the_bias_of_both_sides_is_stated_and_none_beside_0(recorded, evaluator: Evaluator, measured) -> None:
    note = evaluator.measure(measured, np.arange(200))[names.FID].note
    assert re.fullmatch(r"too large by about \S+ of the 200 generated images, and by \S+ of the 500 real ones, if they vary as much", note)
    same = evaluator.measure(MeasuredSet(500, recorded.tensors["input/real"], real=measured.real))[names.FID]
    assert same.value == pytest.approx(0.0, abs=1e-6)
    assert same.note == "0 within rounding: both sides have the same mean and covariance"


def test_too_few_says_so_and_gives_no_number(evaluator: Evaluator, measured) -> None:
    found = evaluator.measure(measured, np.arange(64))
    assert found[names.KID].value is not None
    two = evaluator.measure(measured, np.arange(2))
    assert two[names.RECALL].value is None
    assert two[names.RECALL].note == "too few: 2 samples for 3 neighbours"
    assert two[names.KID].value is None
    few, all_of_it = (evaluator.measurement(names.FID_INFINITY, measured.group(rows)) for rows in (np.arange(100), None))
    assert few.note.startswith("too few")
    assert all_of_it.value < evaluator.measure(measured)[names.FID].value
    scarce = evaluator.measure(measured, np.arange(70))[names.FID]
    assert scarce.value is not None
    assert scarce.low is None
    assert scarce.note.startswith(
        "too few for an interval: 63 samples for 64 features; KID has no such limit; mostly bias: 70 of the real images"
    )


def test_bare_values_are_the_same_without_intervals(evaluator: Evaluator, measured) -> None:
    full, bare = evaluator.measure(measured), replace(evaluator, intervals=False).measure(measured)
    assert {name: one.value for name, one in bare.items()} == {name: one.value for name, one in full.items()}
    assert all(one.low is None for one in bare.values())


def test_one_sample_has_no_interval(evaluator: Evaluator, measured) -> None:
    found = evaluator.measure(measured, np.arange(1))
    for name in (names.PPL, names.PRECISION, names.DENSITY, names.REALISM, names.DISCRIMINATOR):
        assert found[name].value is not None
        assert (found[name].low, found[name].high) == (None, None)
        assert found[name].note == "one sample: no interval"


def test_path_samples_bound_a_group(evaluator: Evaluator, measured) -> None:
    assert replace(evaluator, path_samples=20).measure(measured)[names.PPL].samples == 20
    assert names.PPL not in evaluator.measure(measured, np.arange(200, 300))


def test_without_real_images_only_what_needs_none(measured) -> None:
    alone = Evaluator()
    assert set(alone.measure(measured.against(None))) == {names.PPL, names.DISCRIMINATOR}


def test_copies_of_real_images_are_left_out_of_realism_only(evaluator: Evaluator, real: RealSet) -> None:
    features = real.features[real.radii <= real.radii.median()][:50]
    everything = evaluator.measure(MeasuredSet(50, features, real=real))
    assert everything[names.REALISM].value is None
    assert everything[names.PRECISION].value == 1.0
    mixed = torch.cat((features[:10], features[10:] + 0.5))
    assert "10 of 50 samples are copies of real images" in evaluator.measure(MeasuredSet(50, mixed, real=real))[names.REALISM].note


def test_a_degraded_set_is_worse_in_every_metric(real: RealSet, evaluator: Evaluator) -> None:
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(real.features.shape, generator=random)
    good, bad = (evaluator.measure(MeasuredSet(500, real.features + amount * noise, real=real)) for amount in (0.2, 3.0))
    for name in DIRECTED - {names.RECALL}:  # wide noise makes wide balls
        assert compare_records(bad[name], good[name]).outcome is Outcome.WORSE, name


def test_rarity_is_of_the_samples_inside_and_says_how_many_are_not(real: RealSet, evaluator: Evaluator, measured) -> None:
    found = evaluator.measure(measured)
    inside = np.isfinite(measured.rarity)
    assert found[names.RARITY].note == "70 of 400 samples lie in no ball of a real image and have none"
    assert found[names.PRECISION].value == pytest.approx(inside.mean())
    limit = float(real.radii.quantile(0.9))
    assert found[names.RARE_SHARE].value == pytest.approx((measured.rarity[inside] > limit).sum() / 400)
    assert 0.0 < found[names.RARE_SHARE].value < 0.1
    rare, common = np.argsort(-np.nan_to_num(measured.rarity))[:100], np.argsort(np.nan_to_num(measured.rarity, nan=np.inf))[:100]
    first, second = (evaluator.measure(measured, np.sort(rows))[names.RARITY] for rows in (rare, common))
    assert compare_records(first, second).outcome is Outcome.HIGHER  # neither is better
    assert compare_records(second, first).outcome is Outcome.LOWER
    outside = evaluator.measure(MeasuredSet(3, real.features[:3] + 1e6, real=real))
    assert outside[names.RARITY].value is None
    assert outside[names.RARITY].note == "none of 3 samples lies in a ball of a real image"
    assert outside[names.RARE_SHARE].value == 0.0


def test_chance_and_the_papers_order(evaluator: Evaluator, measured) -> None:
    realism = measured.realism
    best, worst = np.sort(np.argsort(-realism)[:40]), np.sort(np.argsort(realism)[:40])
    chance = random_row(evaluator, measured, 40, path_rows=np.arange(100), path_size=20)
    assert chance.spread[names.REALISM] == pytest.approx(realism.std() / 40**0.5, rel=0.5)
    assert chance.measurements[names.REALISM].value == pytest.approx(realism.mean(), rel=0.02)
    assert chance.measurements[names.PPL].samples == 20
    assert chance.measurements[names.FID].low < chance.measurements[names.FID].value  # of 40, all the same
    again = random_row(evaluator, measured, 40, path_rows=np.arange(100), path_size=20)
    assert again == chance
    assert random_row(evaluator, measured, 40, path_rows=np.arange(100), path_size=20, seed=5) != chance
    rows = [chance, *(group_row(evaluator, name, "", measured, chosen) for name, chosen in ((names.LOWEST, best), (names.HIGHEST, worst)))]
    order = {one.metric: one for one in orders(rows)}
    assert order[names.REALISM].holds
    assert order[names.REALISM].clear
    turned = [
        row.model_copy(update={"group": {names.LOWEST: names.HIGHEST, names.HIGHEST: names.LOWEST}.get(row.group, row.group)})
        for row in rows
    ]
    assert not {one.metric: one for one in orders(turned)}[names.REALISM].holds
    assert orders(rows[:2]) == ()


def test_histograms_have_common_bins() -> None:
    found = histogram({"all": np.array([0.0, 1.0, np.nan]), "lowest": np.array([1.0])}, bins=2)
    assert found.edges == (0.0, 0.5, 1.0)
    assert found.counts == {"all": (1, 1), "lowest": (0, 1)}
    assert histogram({}) is None


def test_the_inception_score_with_its_interval(recorded, expected) -> None:
    def score(probabilities: torch.Tensor) -> Measurement:
        group = MeasuredSet(len(probabilities), classes=probabilities).group()
        return Evaluator("classes").measurement(names.INCEPTION_SCORE, group)

    found, (mean, spread) = score(recorded.tensors["input/probs"]), (expected["nvlabs_is_splits10"][name] for name in ("mean", "std"))
    assert found.value == pytest.approx(mean, rel=1e-6)
    assert found.high - mean == pytest.approx(2.2622 * spread / 3.0, rel=1e-4) == mean - found.low
    assert score(recorded.tensors["input/probs"][:9]).note == "too few: 9 samples for 10 splits"


def test_too_few_real_images() -> None:
    with pytest.raises(InputError, match="too few real images in three"):
        RealSet("three", "d", torch.zeros(3, 2))
