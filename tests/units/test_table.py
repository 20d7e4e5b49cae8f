"""What unit scores are made from: what is missing is said, and what is dear is made once."""

from __future__ import annotations

import pytest
import torch
from small import small_dcgan

from qualitygate.errors import InputError
from qualitygate.features.extractor import Extractor
from qualitygate.generators.base import sample_latents
from qualitygate.generators.passes import Progress, Reporter
from qualitygate.scores.low_rate import activation_rates
from qualitygate.testing.toys import random_patches
from qualitygate.units.table import UNIT_SCORES, UnitInputs


class Flat(Extractor):
    """Features without a place in the image."""

    key, features = "flat", 1

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(1, 2, 3))[:, None]


def inputs(**more: object) -> UnitInputs:
    generator = small_dcgan()
    samples, artifacts, normal = (sample_latents(generator, ids, 0) for ids in (range(40), range(40, 60), range(60, 80)))
    return UnitInputs(generator, activation_rates(generator, [0, 1], 100, seed=0), 0.3, (0, 1), samples, artifacts, normal, **more)


def test_what_is_missing_is_said() -> None:
    bare, flat = inputs(), inputs(given_extractor=Flat())
    available = {name: [one.has(score.needs) for one in (bare, flat)] for name, score in UNIT_SCORES.items()}
    both, neither = [True, True], [False, False]
    assert available == {"cla": both, "low_rate": both, "defective": neither, "frechet": [False, True], "contribution": neither}
    for made, name, words in (
        (bare, "frechet", "no extractor"),
        (flat, "defective", "a place in the image"),
        (bare, "contribution", "need a disc"),
    ):
        with pytest.raises(InputError, match=words):
            UNIT_SCORES[name].compute(made)


def test_top_samples_are_found_once_and_images_are_those_of_files() -> None:
    phases: list[str] = []

    class Listed(Reporter):
        def phase(self, name: str, total: int) -> Progress:
            phases.append(name)
            return super().phase(name, total)

    made = inputs(given_extractor=random_patches(1), unit_images=5, reporter=Listed())
    for _ in range(2):
        scores = UNIT_SCORES["frechet"].compute(made)
    assert phases == ["features", "top images", "features"]
    assert scores.layers == (0, 1)
    assert scores.settings["images"] == 5
    pixels = (next(made.images(made.samples)) + 1.0) * 127.5
    torch.testing.assert_close(pixels, pixels.round(), rtol=0, atol=1e-3)
