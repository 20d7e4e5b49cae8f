"""A correction that is ready to be used: at a strength, on any samples. Some edits are the same for every sample, others follow from what a
sample says of itself. Both are asked in two steps: a `Method` looks at some samples, once and for all strengths; the result makes the edits
of a batch of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from qualitygate.generators.base import Edits, Generator
from qualitygate.latents import Latents
from qualitygate.scores.low_rate import ActivationRates


class Learned(Protocol):
    """What a correction may need to know of the checkpoint: a `qualitygate.Profile`, or its equal."""

    @property
    def rates(self) -> ActivationRates: ...

    def unit_scores(self, column: str, layers: tuple[int, ...]) -> dict[int, Tensor]:
        """A column of the table of units, float64 (units,) by layer."""


@dataclass(frozen=True)
class SampleEdits:
    """A correction of N samples.

    Attributes:
        edits: edits of a batch, from a strength and the rows (B,) of its samples among the N; a row may stand more than once.
        selects: bool (N,): whether there is anything to edit in the sample. Where there is not, it cannot count as corrected.
    """

    edits: Callable[[float, np.ndarray], Edits]
    selects: np.ndarray


Method = Callable[[Latents], SampleEdits]
"""The correction of any samples. It never touches a generator."""


def same_for_all(edits: Mapping[float, Edits]) -> Method:
    """Edits by strength that do not depend on the sample."""
    return lambda latents: SampleEdits(lambda strength, rows: edits[strength], np.ones(len(latents), dtype=bool))


def corrected_images(generator: Generator, latents: Latents | Tensor, method: Method, strength: float) -> Tensor:
    """Images (N, channels, height, width), float32 in [-1, 1], of samples corrected at one strength, whether that repairs them or not."""
    latents = generator.checked(latents)
    correction = method(latents)
    return generator.images(latents, lambda rows: correction.edits(strength, rows))
