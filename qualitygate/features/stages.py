"""Distances between the activations of a VGG16, stage by stage: LPIPS, and the same without learned weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from qualitygate.errors import InputError
from qualitygate.features.extractor import PerceptualDistance
from qualitygate.features.preparation import in_colour
from qualitygate.features.vgg16 import STAGES, Convolutions
from qualitygate.generators.passes import scored_pass

_EPSILON = 1e-10


class StageDistance(PerceptualDistance):
    """LPIPS (Zhang et al. 2018, equation 1): at each of VGG16's five stages, activations are scaled to length 1 over units,
    and the squared differences are weighed by unit, averaged over positions and summed over stages.

    Args:
        network: on the device to use.
        weights: weight of each unit (units,), one tensor a stage.
        key: what identifies network, weights and resizing.
        resize: brings images to the size at which they are compared.
    """

    def __init__(self, network: Convolutions, weights: Sequence[Tensor], key: str, resize: Callable[[Tensor], Tensor]) -> None:
        self.key = key
        device = next(network.parameters()).device
        self._network, self._resize = network, resize
        self._weights = [weight.to(device) for weight in weights]

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        if first.shape != second.shape:
            raise InputError("Only images of one size can be compared", f"{tuple(first.shape)} and {tuple(second.shape)}", "one shape")
        with scored_pass():
            pairs = zip(self._stages(first), self._stages(second), self._weights, strict=True)
            return torch.stack([_distance(a, b, weight) for a, b, weight in pairs]).sum(dim=0)

    def _stages(self, images: Tensor) -> list[Tensor]:
        return list(self._network.stages(self._resize(in_colour(images.to(self._weights[0].device)))))


def even_weights() -> list[Tensor]:
    """Weights under which every unit of a stage counts the same, and every stage as much as another."""
    return [torch.full((stage[-1],), 1.0 / stage[-1]) for stage in STAGES]


def _distance(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Distance (N,) of activations (N, units, height, width)."""
    difference = (_scaled(a) - _scaled(b)).square()
    return torch.einsum("nuhw,u->nhw", difference, weight).mean(dim=(1, 2))


def _scaled(activation: Tensor) -> Tensor:
    return activation / (activation.norm(dim=1, keepdim=True) + _EPSILON)
