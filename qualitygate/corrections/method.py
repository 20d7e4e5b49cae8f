"""A correction that is ready to be used: at a strength, on any samples.

Some edits are the same for every sample, others follow from what a sample says of itself. Both are asked in two steps: `Method.of` looks at
some samples, once and for all strengths; the result makes the edits of a batch of them.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from qualitygate.corrections.ablation import random_ablation
from qualitygate.corrections.attenuation import UnitScores, attenuate, unit_attenuation, unit_factors
from qualitygate.corrections.local_region import fade
from qualitygate.generators.base import Edits
from qualitygate.latents import Latents


@dataclass(frozen=True)
class OfSamples:
    """A correction of N samples.

    Attributes:
        edits: edits of a batch, from a strength and the rows (B,) of its samples among the N; a row may stand more than once.
        selects: bool (N,): whether there is anything to edit in the sample. Where there is not, it cannot count as corrected.
    """

    edits: Callable[[float, np.ndarray], Edits]
    selects: np.ndarray


class Method(abc.ABC):
    """A correction of any samples. It never touches a generator."""

    @abc.abstractmethod
    def of(self, latents: Latents) -> OfSamples:
        """The correction of these samples."""


class SameForAll(Method):
    """Edits that do not depend on the sample.

    Args:
        edits: by strength.
    """

    def __init__(self, edits: Mapping[float, Edits]) -> None:
        self._edits = edits

    def of(self, latents: Latents) -> OfSamples:
        return OfSamples(lambda strength, rows: self._edits[strength], np.ones(len(latents), dtype=bool))


class RandomNeurons(Method):
    """Random ablation, by sample id; the strength is the share.

    Args:
        layers: layers to edit.
        seed: of the choice.
    """

    def __init__(self, layers: Iterable[int], seed: int) -> None:
        self._layers, self._seed = tuple(layers), seed

    def of(self, latents: Latents) -> OfSamples:
        def edits(share: float, rows: np.ndarray) -> Edits:
            return random_ablation(latents[rows], self._layers, share, self._seed)

        return OfSamples(edits, np.ones(len(latents), dtype=bool))


Amount = Callable[[float], tuple[float, float]]
"""Size and λ of a correction of units, from its strength."""


def same_units(scores: UnitScores, strengths: Iterable[float], amount: Amount, *, in_shares: bool) -> Method:
    """Attenuation by one ranking of the units for all samples, ``scores`` being (units,) by layer.

    Raises:
        InputError: no unit is suspect.
    """
    return SameForAll({at: unit_attenuation(scores, *amount(at), in_shares=in_shares) for at in strengths})


class OwnUnits(Method):
    """Attenuation by the ranking of each sample's own units.

    Args:
        look: scores (N, units) by layer, of N samples.
        amount: size and λ from the strength.
        in_shares: whether the size is a share of the layer's units.
        device: where the activations are.
    """

    def __init__(self, look: Callable[[Latents], UnitScores], amount: Amount, *, in_shares: bool, device: torch.device | str) -> None:
        self._look, self._amount, self._in_shares, self._device = look, amount, in_shares, device

    def of(self, latents: Latents) -> OfSamples:
        scores = {layer: one.to(self._device) for layer, one in self._look(latents).items()}

        def edits(strength: float, rows: np.ndarray) -> Edits:
            size, lambda_ = self._amount(strength)
            picked = torch.from_numpy(rows).to(self._device)
            return {
                layer: partial(attenuate, factors=unit_factors(one[picked], size, lambda_, in_shares=self._in_shares))
                for layer, one in scores.items()
            }

        suspect = torch.stack([(one > 0).any(dim=1) for one in scores.values()]).any(dim=0)
        return OfSamples(edits, suspect.cpu().numpy())


class OwnRegion(Method):
    """Local region correction by each sample's own mask; the strength is the mask's weight.

    Args:
        look: masks (N, H, W) in [0, 1], of N samples.
        layers: layers to edit.
    """

    def __init__(self, look: Callable[[Latents], Tensor], layers: Iterable[int]) -> None:
        self._look, self._layers = look, tuple(layers)

    def of(self, latents: Latents) -> OfSamples:
        masks = self._look(latents)

        def edits(weight: float, rows: np.ndarray) -> Edits:
            of_rows = masks[torch.from_numpy(rows).to(masks.device)]
            return {layer: partial(fade, masks=of_rows, weight=weight) for layer in self._layers}

        return OfSamples(edits, (masks.amax(dim=(1, 2)) > 0).cpu().numpy())
