"""How good corrected images are: against real images, or normal ones of the generator; and against the truth of a planted defect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qualitygate import names
from qualitygate.features.compute import extract
from qualitygate.features.extractor import Extractor
from qualitygate.latents import Latents
from qualitygate.metrics import manifold
from qualitygate.metrics.frechet import frechet_distance_of_few
from qualitygate.metrics.measured_set import RealSet
from qualitygate.studies.corrections.table import Observer

FEATURES = "features"
"""What the yardstick's observer is called."""
REPAIRED_BELOW = 0.5
"""Share of a defect that may be left in an image that counts as repaired."""
LEFT, MARK_LEFT, DAMAGE = "left", "mark_left", "damage"


@dataclass(frozen=True)
class Yardstick:
    """What sets of images are held against. Numbers of one yardstick and one number of samples can be compared, no others.

    Attributes:
        extractor: makes the features.
        reference: the real images, or what stands in for them.
        real: whether they are real.
    """

    extractor: Extractor
    reference: RealSet
    real: bool

    def observe(self, latents: Latents, untouched: Tensor, corrected: Tensor) -> np.ndarray:
        """Features float32 (N, F) of corrected images, an `Observer`."""
        return extract(self.extractor, corrected)

    def __call__(self, features: np.ndarray) -> dict[str, float]:
        """FID, mean realism and precision of a set, by name.

        Args:
            features: (N, F), of its images.
        """
        of_set = torch.from_numpy(features).to(self.reference.features.device)
        real, radii = self.reference.features, self.reference.radii
        realism = manifold.realism(of_set, real, radii)
        inside = manifold.balls_around(of_set, real, radii) > 0
        return {
            names.FID: frechet_distance_of_few(of_set, real),
            names.REALISM: float(realism[realism.isfinite()].mean()),
            names.PRECISION: float(inside.double().mean()),
        }


def truth_observers(repair: Callable[[Latents], Tensor], pixels: Tensor) -> dict[str, Observer]:
    """Observers of planted samples, each float64 (N,).

    - ``left``: distance to the true repair, over that of the untouched image: below `REPAIRED_BELOW` it counts as repaired;
    - ``mark_left``: the same inside the mark's pixels alone;
    - ``damage``: distance to the true repair outside of the mark, as a share of the range of values.

    Args:
        repair: the true repair (N, channels, height, width) of samples.
        pixels: where the mark is, bool (height, width).
    """

    def left(where: Tensor) -> Observer:
        def observe(latents: Latents, untouched: Tensor, corrected: Tensor) -> np.ndarray:
            best = right(latents)
            return (_distance(corrected, best, where) / _distance(untouched, best, where)).numpy()

        return observe

    def damage(latents: Latents, untouched: Tensor, corrected: Tensor) -> np.ndarray:
        return _distance(corrected, right(latents), ~pixels).numpy()

    made: dict[bytes, Tensor] = {}  # one correction after the other looks at the same micro-batches

    def right(latents: Latents) -> Tensor:
        key = latents.ids.tobytes()
        if key not in made:
            made[key] = repair(latents)
        return made[key]

    observers = {LEFT: left(torch.ones_like(pixels)), MARK_LEFT: left(pixels)}
    return observers if pixels.all() else {**observers, DAMAGE: damage}


def against_truth(seen: dict[str, np.ndarray]) -> dict[str, float]:
    """What `truth_observers` saw, as numbers of the set: shares repaired and without mark, and mean damage."""
    shares = {"repaired": LEFT, "mark_gone": MARK_LEFT}
    found = {name: float((seen[of] < REPAIRED_BELOW).mean()) for name, of in shares.items() if of in seen}
    return found | ({DAMAGE: float(seen[DAMAGE].mean())} if DAMAGE in seen else {})


def _distance(images: Tensor, others: Tensor, where: Tensor) -> Tensor:
    """Mean absolute difference over some pixels, as a share of the range of values: float64 (N,)."""
    return (images - others)[..., where].abs().double().mean(dim=(1, 2)) / 2.0
