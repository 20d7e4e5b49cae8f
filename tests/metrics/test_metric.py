from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.metrics.measured_set import Population, RealSet
from qualitygate.metrics.metric import Ruler, inception_measurement
from qualitygate.records.metrics import Outcome, compare
from qualitygate.studies.metrics.groups import Group, group_row, histogram, orders, random_row

AGAINST_REAL = {names.FID, names.KID, names.PRECISION, names.RECALL, names.DENSITY, names.COVERAGE, names.REALISM}


@pytest.fixture(scope="module")
def real(recorded) -> RealSet:
    return RealSet("recorded", "d" * 64, recorded.tensors["input/real"])


@pytest.fixture(scope="module")
def ruler(real: RealSet) -> Ruler:
    return Ruler(real, "recorded features", "recorded distances")


@pytest.fixture(scope="module")
def subject(recorded, ruler: Ruler):
    lengths = torch.full((400, 10), torch.nan, dtype=torch.float64)
    lengths[:100] = recorded.tensors["input/ppl_dist"].double().view(100, 10)
    return ruler.subject(Population(400, recorded.tensors["input/fake"], np.linspace(0.0, 1.0, 400), lengths))


def test_the_whole_set_agrees_with_the_references(expected, ruler: Ruler, subject) -> None:
    found = ruler.measure(subject)
    assert set(found) == AGAINST_REAL | {names.PPL, names.DISCRIMINATOR}
    wanted = expected["prdc_k3"] | {
        names.FID: expected["nvlabs_fid"]["value"],
        names.PPL: expected["nvlabs_ppl"]["value"],
        names.REALISM: expected["realism_rule"]["mean_paper"],
        names.DISCRIMINATOR: 0.5,
    }
    for name, value in wanted.items():
        assert found[name].value == pytest.approx(value, rel=1e-6), name
    for one in found.values():
        assert one.low < one.value < one.high
    assert found[names.FID].samples == 400
    assert found[names.FID].real_samples == 500
    assert found[names.PPL].samples == 100
    assert found[names.PPL].extractor == "recorded distances"
    assert found[names.KID].extractor == "recorded features"


def test_a_group_is_what_it_would_be_by_itself(recorded, ruler: Ruler, subject) -> None:
    rows = np.arange(50, 200)
    alone = ruler.subject(Population(150, recorded.tensors["input/fake"][50:200]))
    ours, theirs = ruler.measure(subject, rows), ruler.measure(alone)
    for name in AGAINST_REAL:
        assert ours[name].value == pytest.approx(theirs[name].value, rel=1e-9), name


def test_the_stated_bias_is_there_and_the_jackknife_holds_the_truth(recorded, ruler: Ruler, subject) -> None:
    half = ruler.measure(subject, np.arange(200))[names.FID]
    whole = ruler.measure(subject)[names.FID]
    assert half.value > whole.value
    assert "too large by about" in whole.note


def test_too_few_says_so_and_gives_no_number(ruler: Ruler, subject) -> None:
    found = ruler.measure(subject, np.arange(64))
    assert found[names.FID].value is None
    assert found[names.FID].note == "too few: 64 samples for 64 features; KID has no such limit"
    assert found[names.KID].value is not None
    two = ruler.measure(subject, np.arange(2))
    assert names.RECALL not in two
    assert two[names.KID].value is None
    assert ruler.extrapolated_fid(subject.population.features[:100]).note.startswith("too few")
    assert ruler.extrapolated_fid(subject.population.features).value < ruler.measure(subject)[names.FID].value


def test_bare_values_are_the_same_without_intervals(ruler: Ruler, subject) -> None:
    full, bare = ruler.measure(subject), replace(ruler, intervals=False).measure(subject)
    assert {name: one.value for name, one in bare.items()} == {name: one.value for name, one in full.items()}
    assert all(one.low is None for one in bare.values())


def test_one_sample_has_no_interval(ruler: Ruler, subject) -> None:
    found = ruler.measure(subject, np.arange(1))
    for name in (names.PPL, names.PRECISION, names.DENSITY, names.REALISM, names.DISCRIMINATOR):
        assert found[name].value is not None
        assert (found[name].low, found[name].high) == (None, None)
        assert found[name].note == "one sample: no interval"


def test_path_samples_bound_a_group(ruler: Ruler, subject) -> None:
    assert replace(ruler, path_samples=20).measure(subject)[names.PPL].samples == 20
    assert names.PPL not in ruler.measure(subject, np.arange(200, 300))


def test_without_real_images_only_what_needs_none(subject) -> None:
    alone = Ruler()
    assert set(alone.measure(alone.subject(subject.population))) == {names.PPL, names.DISCRIMINATOR}


def test_copies_of_real_images_are_left_out_of_realism_only(ruler: Ruler, real: RealSet) -> None:
    features = real.features[real.radii <= real.radii.median()][:50]
    everything = ruler.measure(ruler.subject(Population(50, features)))
    assert everything[names.REALISM].value is None
    assert everything[names.PRECISION].value == 1.0
    mixed = torch.cat((features[:10], features[10:] + 0.5))
    assert "10 of infinite value" in ruler.measure(ruler.subject(Population(50, mixed)))[names.REALISM].note


def test_a_degraded_set_is_worse_in_every_metric(real: RealSet, ruler: Ruler) -> None:
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(real.features.shape, generator=random)
    good, bad = (ruler.measure(ruler.subject(Population(500, real.features + amount * noise))) for amount in (0.2, 3.0))
    for name in AGAINST_REAL - {names.RECALL}:  # wide noise makes wide balls
        assert compare(bad[name], good[name]) is Outcome.WORSE, name


def test_chance_and_the_papers_order(ruler: Ruler, subject) -> None:
    realism = subject.standing.realism
    best, worst = np.sort(np.argsort(-realism)[:40]), np.sort(np.argsort(realism)[:40])
    chance = random_row(ruler, subject, 40, path_rows=np.arange(100), path_size=20)
    assert chance.spread[names.REALISM] == pytest.approx(realism.std() / 40**0.5, rel=0.5)
    assert chance.measurements[names.REALISM].value == pytest.approx(realism.mean(), rel=0.02)
    assert chance.measurements[names.PPL].samples == 20
    assert chance.measurements[names.FID].value is None
    again = random_row(ruler, subject, 40, path_rows=np.arange(100), path_size=20)
    assert again == chance
    assert random_row(ruler, subject, 40, path_rows=np.arange(100), path_size=20, seed=5) != chance
    rows = [
        chance,
        *(group_row(ruler, Group(name, "", subject, chosen)) for name, chosen in ((names.LOWEST, best), (names.HIGHEST, worst))),
    ]
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
    found = inception_measurement(recorded.tensors["input/probs"], "classes")
    assert found.value == pytest.approx(expected["nvlabs_is_splits10"]["mean"], rel=1e-6)
    assert found.low < found.value < found.high
    assert inception_measurement(recorded.tensors["input/probs"][:9], "classes").note == "too few: 9 samples for 10 splits"


def test_too_few_real_images() -> None:
    with pytest.raises(InputError, match="too few real images in three"):
        RealSet("three", "d", torch.zeros(3, 2))
