"""The schedule: what each stage says of the exact score, and what the margins promise."""

from __future__ import annotations

import numpy as np
import pytest
from small import small_dcgan, small_pggan

from qualitygate.errors import ProfileError
from qualitygate.generators.base import sample_latents
from qualitygate.scores.local_activation import local_activation
from qualitygate.scores.screening import SMALLEST, THIN, Pilot, Screen, SequentialEstimator, Stage, axes_order, schedule


def pilot_like(count: int, seed: int, tiers: int = 3, noise: tuple[float, ...] = (0.2, 0.1, 0.05, 0.02)) -> Pilot:
    """Scores whose evidence is the score with noise, biased upwards as estimates from few axes are."""
    random = np.random.default_rng(seed)
    exact = np.exp(random.normal(0.0, 0.25, count))
    seen = [exact * np.exp(random.normal(0.3 * one, one, count)) for one in noise[: tiers + 1]]
    return Pilot(np.log(seen[0])[:, None], np.column_stack(seen[1:]), exact)


def screened(screen: Screen, held: Pilot, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Whether each sample is judged over the limit, and the tier it left at."""
    over, left = held.exact > limit, np.full(len(held.exact), held.estimates.shape[1] + 1)
    for tier in range(held.estimates.shape[1], -1, -1):
        bounds = screen.bounds(tier, held.evidence, held.estimates)
        sure = (bounds.low > limit) == (bounds.high > limit)
        over[sure], left[sure] = bounds.value[sure] > limit, tier
    return over, left


@pytest.mark.parametrize("share", [0.7, 0.8, 0.9, 0.95])
def test_the_stated_error_holds_on_new_samples_over_pilots(share: float) -> None:
    """What is promised is an expectation over pilots; a single one can be lucky."""
    held = pilot_like(20_000, 1)
    wrong, recall, precision, free, exact = [], [], [], [], []
    for seed in range(10, 22):
        pilot = pilot_like(1000, seed)
        limit = float(np.quantile(pilot.exact, share))
        screen = Screen(pilot, [limit], 0.01)
        assert screen.certified
        over, left = screened(screen, held, limit)
        truth = held.exact > limit
        wrong.append(np.mean(over != truth))
        recall.append(np.mean(over[truth]))
        precision.append(np.mean(truth[over]))
        free.append(np.mean(left == 0))
        exact.append(np.mean(left == 4))
    assert np.mean(wrong) <= 0.01
    assert np.mean(recall) >= 0.95
    assert np.mean(precision) >= 0.95
    assert np.mean(free) > 0.2, "many samples leave on the free evidence"
    assert np.mean(exact) < 0.1, "few need the exact score"


def test_a_limit_too_rare_for_the_pilot_is_not_certified_and_gets_the_widest_margins() -> None:
    pilot = pilot_like(400, 0)
    rare = Screen(pilot, [float(np.quantile(pilot.exact, 0.99))], 0.01)
    common = Screen(pilot, [float(np.quantile(pilot.exact, 0.8))], 0.01)
    assert not rare.certified
    assert common.certified
    assert rare.width > common.width


def test_intervals_hold_at_all_tiers_at_once_where_the_score_is_used_elsewhere() -> None:
    pilot, held = pilot_like(1000, 2), pilot_like(20_000, 3)
    screen = Screen(pilot, [], 0.05, elsewhere=True)
    inside = np.ones(len(held.exact), dtype=bool)
    for tier in range(4):
        bounds = screen.bounds(tier, held.evidence, held.estimates)
        assert (bounds.low <= bounds.value).all()
        assert (bounds.value <= bounds.high).all()
        inside &= (bounds.low <= held.exact) & (held.exact <= bounds.high)
    assert inside.mean() >= 0.93  # 0.95 over all pilots; this is one


def test_the_bias_of_few_axes_is_learned() -> None:
    pilot, held = pilot_like(1000, 4), pilot_like(1000, 5)
    value = Screen(pilot, [1.0], 0.01).bounds(1, held.evidence, held.estimates).value
    assert np.mean(held.estimates[:, 0] / held.exact) > 1.02
    assert np.mean(value / held.exact) == pytest.approx(1.0, abs=0.01)


def test_scores_of_zero_and_evidence_that_never_varies() -> None:
    pilot = pilot_like(200, 6)
    flat = Pilot(np.column_stack([pilot.evidence, np.ones(200)]), pilot.estimates, np.where(pilot.exact < 1, 0.0, pilot.exact))
    bounds = Screen(flat, [1.5], 0.05).bounds(0, flat.evidence, flat.estimates)
    assert np.isfinite([bounds.value, bounds.low, bounds.high]).all()
    assert (bounds.low >= 0).all()
    nothing = Pilot(pilot.evidence, pilot.estimates, np.zeros(200))
    assert Screen(nothing, [0.0], 0.05).bounds(0, pilot.evidence, pilot.estimates).high.max() == pytest.approx(0.0, abs=1e-6)


def test_a_handful_of_exact_scores_is_refused() -> None:
    with pytest.raises(ProfileError, match="19 exact scores"):
        Screen(pilot_like(SMALLEST - 1, 0), [1.0], 0.01)


def test_samples_that_are_not_finite_stay_not_finite() -> None:
    pilot = pilot_like(200, 7)
    bounds = Screen(pilot, [1.0], 0.05).bounds(0, np.array([[np.nan], [0.0]]), np.empty((2, 0)))
    assert np.isnan(bounds.value[0])
    assert np.isfinite(bounds.value[1])


@pytest.mark.parametrize(
    ("latent_size", "axes"),
    [(2, [2]), (16, [5, 16]), (100, [5, 10, 20, 40, 64, 100]), (512, [5, 10, 20, 40, 80, 10, 160, 40, 320, 80, 512])],
)
def test_the_rungs(latent_size: int, axes: list[int]) -> None:
    stages = schedule(latent_size)
    assert [stage.axes for stage in stages] == axes
    assert stages[-1] == Stage(latent_size, None)
    work = sum(stage.passes(stages[:at], 20) for at, stage in enumerate(stages))
    thin = 6 * max([stage.axes for stage in stages if stage.points], default=0)
    assert work == 20 * latent_size + thin, "no axis is walked twice on the same grid"


def test_the_order_of_axes_never_changes() -> None:
    assert axes_order(8) == [4, 3, 1, 6, 7, 2, 5, 0]
    assert sorted(axes_order(512)) == list(range(512))


def test_margins_are_narrower_where_what_follows_is_dear() -> None:
    pilot = pilot_like(1000, 8)
    screen = Screen(pilot, [float(np.quantile(pilot.exact, 0.8))], 0.01)
    in_deviations = screen.margins / np.array(screen.spreads)
    assert in_deviations[0] == pytest.approx(in_deviations[2])
    assert in_deviations[3] < 0.9 * in_deviations[2]


def test_each_grid_goes_on_where_it_stopped() -> None:
    generator = small_dcgan()
    latents, order = sample_latents(generator, range(4), 3), axes_order(generator.latent_size)
    estimator = SequentialEstimator(generator, latents, [1])
    rows = np.arange(4)
    for stage in (Stage(1, THIN), Stage(2, THIN), Stage(1, None), Stage(4, THIN), Stage(5, None)):
        score = estimator.advance(stage)[1]
        direct = local_activation(generator, latents[rows], [1], axes=order[: stage.axes], points=stage.points).score[1]
        np.testing.assert_allclose(score, direct.numpy(), rtol=1e-5, atol=1e-7)
        if stage == Stage(1, None):
            rows = np.array([0, 3])
            estimator.select(rows)


@pytest.mark.parametrize("generator", [small_dcgan(latent_size=80), small_pggan()], ids=["dcgan", "pggan"])
def test_climbing_ends_at_the_exact_score(generator) -> None:  # type: ignore[no-untyped-def]
    latents = sample_latents(generator, range(6), 3)
    estimator = SequentialEstimator(generator, latents, [0, 1])
    stages = schedule(generator.latent_size)
    for stage in stages[:-1]:
        score = estimator.advance(stage)
        order = axes_order(generator.latent_size)[: stage.axes]
        direct = local_activation(generator, latents, [0, 1], axes=order, points=stage.points).score
        np.testing.assert_allclose(score[1], direct[1].numpy(), rtol=1e-5, atol=1e-7)
    estimator.select(np.array([1, 4]))
    exact = estimator.advance(stages[-1])
    whole = local_activation(generator, latents, [0, 1]).score
    for layer in (0, 1):
        np.testing.assert_allclose(exact[layer], whole[layer].numpy()[[1, 4]], rtol=1e-5, atol=1e-7)
