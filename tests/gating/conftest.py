"""A small DCGAN with its profile, made once."""

from __future__ import annotations

import pytest
from small import small_dcgan
from small_policy import small_policy

from qualitygate.gating.calibrate import calibrate
from qualitygate.gating.profile import Profile
from qualitygate.generators.families.dcgan import DCGAN


@pytest.fixture(scope="session")
def generator() -> DCGAN:
    return small_dcgan()


@pytest.fixture(scope="session")
def profile(generator: DCGAN) -> Profile:
    return calibrate(generator, small_policy())
