"""A discriminator as a backbone: its features, whatever else is in the batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from qualitygate.errors import InputError
from qualitygate.generators.base import Discriminator
from qualitygate.generators.biggan_discriminator import BigGANDiscriminator
from qualitygate.generators.dcgan_discriminator import DCGANDiscriminator
from qualitygate.generators.pggan_discriminator import PGGANDiscriminator
from qualitygate.generators.stylegan2_discriminator import StyleGAN2Discriminator
from qualitygate.generators.unet_discriminator import UNetDiscriminator
from qualitygate.units.backbone import DiscriminatorFeatures

KINDS = [
    lambda: DCGANDiscriminator([8, 6], 3),
    lambda: PGGANDiscriminator([4, 4, 5, 5, 6]),
    lambda: StyleGAN2Discriminator([4, 6], 3, "resnet"),
    lambda: StyleGAN2Discriminator([4, 6], 3, "skip", label_size=3),
    lambda: BigGANDiscriminator(16, [8, 8, 8], [True, True, False], True, [], 3),
    lambda: UNetDiscriminator([8, 8], [8, 8], [], 0),
]


def filled(discriminator: Discriminator) -> Discriminator:
    draw = torch.Generator().manual_seed(0)
    for tensor in [*discriminator.parameters(), *discriminator.buffers()]:
        tensor.data.normal_(0.0, 0.3, generator=draw)
    return discriminator.eval().requires_grad_(False)


def images(discriminator: Discriminator, count: int = 4) -> Tensor:
    return torch.rand(count, *discriminator.image_shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("make", KINDS)
def test_features_of_an_image_whatever_else_is_in_the_batch(make) -> None:
    judge = filled(make())
    backbone = DiscriminatorFeatures(judge)
    batch = images(judge)
    features = backbone.spatial(batch)
    assert features.shape[:2] == (4, backbone.channels)
    assert features.shape[2] > 1
    torch.testing.assert_close(features[1:2], backbone.spatial(batch[1:2]))
    torch.testing.assert_close(backbone(batch), features.mean(dim=(2, 3)))


@pytest.mark.parametrize("make", KINDS)
def test_differentiable_in_the_images(make) -> None:
    judge = filled(make())
    batch = images(judge).requires_grad_()
    DiscriminatorFeatures(judge).spatial(batch).sum().backward()
    assert batch.grad is not None
    assert batch.grad.abs().max() > 0


def test_the_key_follows_the_weights() -> None:
    first, second = filled(KINDS[0]()), filled(KINDS[0]())
    assert DiscriminatorFeatures(first).key == DiscriminatorFeatures(second).key
    second.bias[0].data += 1.0
    assert DiscriminatorFeatures(first).key != DiscriminatorFeatures(second).key


def test_images_of_another_shape() -> None:
    with pytest.raises(InputError, match="cannot read these images"):
        DiscriminatorFeatures(filled(KINDS[0]())).spatial(torch.zeros(1, 1, 16, 16))
