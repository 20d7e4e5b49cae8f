"""What a calibration starts from where nothing is asked for; one that is cut off goes on, and ends with the same numbers."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import small_dcgan
from small_policy import small_policy

from qualitygate.gating import calibrate as calibration
from qualitygate.gating.calibrate import AFFORDABLE, calibrate, checkpoint_policy, default_policy, screening_share, with_curvature
from qualitygate.gating.profile import Profile
from qualitygate.generators.families.dcgan import DCGAN
from qualitygate.generators.passes import Progress, Reporter
from qualitygate.policy.model import Calibration, Policy
from qualitygate.scores.screening import typical_passes

POLICY = small_policy(calibration=Calibration(rate_samples=300, score_samples=200))  # 5 and 4 micro-batches
RATES, SCORES = "activation rates", "scores"


class Counted(Reporter):
    """Remembers what it is told; stops the work at the ``stop``-th report of a phase."""

    def __init__(self, phase: str = "", stop: int = 0) -> None:
        self.reports: dict[str, list[int]] = {RATES: [], SCORES: []}
        self._phase, self._stop = phase, stop

    @contextlib.contextmanager
    def phase(self, name: str, total: int) -> Iterator[Progress]:
        def report(done: int) -> None:
            self.reports[name].append(done)
            if name == self._phase and len([one for one in self.reports[name] if one]) == self._stop:
                raise KeyboardInterrupt

        yield report


@pytest.fixture(scope="module")
def generator() -> DCGAN:
    return small_dcgan()


@pytest.fixture(scope="module")
def whole(generator: DCGAN) -> Profile:
    return calibrate(generator, POLICY)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUALITYGATE_CACHE", str(tmp_path))
    monkeypatch.setattr(calibration, "INTERVAL", 0.0)
    return tmp_path / "unfinished"


def interrupted(generator: DCGAN, phase: str, stop: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        calibrate(generator, POLICY, reporter=Counted(phase, stop))


def assert_same(one: Profile, other: Profile) -> None:
    assert one.info.profile_id == other.info.profile_id
    assert one.info.scores == other.info.scores
    assert all(torch.equal(counts, other.rates.counts[layer]) for layer, counts in one.rates.counts.items())
    assert list(one.scores) == list(other.scores)
    for name, values in one.scores.items():
        np.testing.assert_array_equal(values, other.scores[name], err_msg=name)
    assert one.units == other.units


@pytest.mark.parametrize(
    ("phase", "stop", "again"),
    [
        (RATES, 1, ([64, 64, 64, 64, 44], [0, 64, 64, 64, 8])),
        (RATES, 3, ([192, 64, 44], [0, 64, 64, 64, 8])),
        (RATES, 5, ([300], [0, 64, 64, 64, 8])),
        (SCORES, 2, ([300], [128, 64, 8])),
        (SCORES, 4, ([300], [200])),
    ],
)
def test_nothing_that_was_kept_is_done_again(
    generator: DCGAN, whole: Profile, cache: Path, phase: str, stop: int, again: tuple[list[int], list[int]]
) -> None:
    interrupted(generator, phase, stop)
    reporter = Counted()
    assert_same(calibrate(generator, POLICY, reporter=reporter), whole)
    assert (reporter.reports[RATES], reporter.reports[SCORES]) == again
    assert not list(cache.iterdir()), "what is complete is not kept as unfinished"


def test_it_may_be_cut_off_again_and_again(generator: DCGAN, whole: Profile, cache: Path) -> None:
    for phase, stop in ((RATES, 2), (RATES, 2), (SCORES, 1), (SCORES, 2)):
        interrupted(generator, phase, stop)
    assert_same(calibrate(generator, POLICY), whole)


def test_what_was_seen_of_another_calibration_is_not_used(generator: DCGAN, cache: Path) -> None:
    interrupted(generator, SCORES, 2)
    others: dict[str, Any] = {
        "more samples": small_policy(calibration=Calibration(rate_samples=400, score_samples=200)),
        "another seed": small_policy(calibration=Calibration(rate_samples=300, score_samples=200, seed=7)),
    }
    for policy in others.values():
        reporter = Counted()
        calibrate(generator, policy, reporter=reporter)
        assert reporter.reports[RATES][0] == 64
    reporter = Counted()
    calibrate(small_dcgan(seed=3), POLICY, reporter=reporter)
    assert reporter.reports[RATES][0] == 64


def test_a_damaged_beginning_is_said_and_not_used(generator: DCGAN, whole: Profile, cache: Path) -> None:
    interrupted(generator, RATES, 3)
    (path,) = cache.iterdir()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    reporter = Counted()
    with pytest.warns(UserWarning, match=r"(?s)unfinished.*is computed anew.*contents were changed"):
        assert_same(calibrate(generator, POLICY, reporter=reporter), whole)
    assert reporter.reports[RATES][0] == 64


def test_a_beginning_of_other_work_is_said_and_not_used(generator: DCGAN, whole: Profile, cache: Path) -> None:
    interrupted(generator, RATES, 3)
    (ours,) = cache.iterdir()
    ours.unlink()
    interrupted(small_dcgan(seed=3), RATES, 2)
    (theirs,) = cache.iterdir()
    theirs.rename(ours)
    with pytest.warns(UserWarning, match="is something else than its name says"):
        assert_same(calibrate(generator, POLICY), whole)


def test_a_short_run_writes_nothing(generator: DCGAN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUALITYGATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(calibration, "INTERVAL", 1e6)
    with pytest.raises(KeyboardInterrupt):
        calibrate(generator, POLICY, reporter=Counted(SCORES, 2))
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written_costs_a_warning(
    generator: DCGAN, whole: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("QUALITYGATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(calibration, "INTERVAL", 0.0)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert_same(calibrate(generator, POLICY), whole)
    assert any("is not kept" in str(one.message) for one in said)


def test_the_default_of_a_checkpoint_follows_from_counted_operations() -> None:
    generator = small_dcgan()
    layer = generator.presets.curvature[0]
    share = screening_share(generator, layer)
    assert share == 65 * generator.layers[layer].operations / generator.operations
    assert checkpoint_policy(generator) == default_policy("dcgan")
    generator.operations = round(generator.operations * share / AFFORDABLE) + 1
    policy = checkpoint_policy(generator)
    assert policy.curvature_layers() == (layer,)
    assert policy.screens
    assert policy.rules == default_policy("dcgan").rules, "nothing acts on CLA before evidence says that it sees"
    assert with_curvature(default_policy("dcgan"), layer).rules[-1].score == f"cla/layer_{layer}"


@pytest.mark.parametrize(("latent_size", "passes"), [(2, 40), (64, 65), (100, 65), (512, 280), (1024, 280), (306, 172.5)])
def test_typical_passes(latent_size: int, passes: float) -> None:
    assert typical_passes(latent_size) == passes


def test_a_family_brings_its_rate() -> None:
    assert default_policy("dcgan") == Policy()
    assert default_policy("pggan").headline_rate == default_policy("a family that nobody knows").headline_rate == 0.3
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(calibration, "default_rate", lambda family: 0.15)
        assert default_policy("slow").detection.rates == (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
