from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from metrics.made_up import Projection
from qualitygate.generators.base import Discriminator
from qualitygate.metrics.measured_set import MeasuredSet, Observer


class Brightness(Discriminator):
    """Mean of the image and the label; sees whether passes have one size."""

    family = "brightness"
    settings: dict[str, object] = {}  # noqa: RUF012
    image_shape = (1, 4, 4)

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1), requires_grad=False)
        self.sizes: set[int] = set()

    def forward(self, images: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        self.sizes.add(len(images))
        mean = images.mean(dim=(1, 2, 3))
        return mean if labels is None else mean + labels


def test_nothing_depends_on_the_parts_that_images_come_in() -> None:
    images = torch.rand(70, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    labels = torch.arange(70)
    discriminator = Brightness()
    seen = []
    for size in (1, 3, 70):
        observer = Observer(Projection(), discriminator, "cpu")
        for part, own in zip(images.split(size), labels.split(size), strict=True):
            observer.add(part, own)
        observer.add(images[:0])
        seen.append(observer.measured())
    assert discriminator.sizes == {64}
    for one in seen:
        assert one.count == 70
        torch.testing.assert_close(one.features, seen[0].features)
        np.testing.assert_allclose(one.discriminator, images.mean(dim=(1, 2, 3)).double() + labels.double(), rtol=1e-6)


def test_with_nothing_to_look_with_only_the_count_is_known() -> None:
    observer = Observer(None, None, "cpu")
    observer.add(torch.zeros(5, 1, 4, 4))
    found = observer.measured()
    assert (found.count, found.features, found.discriminator) == (5, None, None)


def test_what_all_groups_share_is_worked_out_once_a_set() -> None:
    asked: list[int] = []

    def work(measured: MeasuredSet) -> int:
        asked.append(measured.count)
        return 2 * measured.count

    images = MeasuredSet(3)
    assert [images.once(work), images.group(np.arange(2)).of.once(work), replace(images, count=4).once(work)] == [6, 6, 8]
    assert asked == [3, 4]
