"""A discriminator as the metrics and the contributions of units use it: a value of each image, and the features behind it."""

from __future__ import annotations

import abc
from typing import Self

from torch import Tensor

from qualitygate.generators.network import Network


class Discriminator(Network, abc.ABC):
    """Base of the discriminators that come with a family.

    Each passes two inner tensors through `tap`: as ``"features"`` the last features that still have a place in the image, (N, units,
    height, width), the same for an image whatever else is in the batch; as ``"vector"`` what its value is a linear function of, (N, …).
    """

    @abc.abstractmethod
    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Value of each image (N,), higher = more real, before any sigmoid. Images are (N, channels, height, width) in the raw range
        of the family's generator; labels are classes (int64) or label vectors."""

    def alone(self) -> Self:
        """The same discriminator judging each image as if it were the only one in its batch; the weights are shared.

        Only families that look at how much a batch varies have to say anything here.
        """
        return self
