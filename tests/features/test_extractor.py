"""Features do not depend on batches, and are of images as a file of them would be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from features.small_extractor import Means
from torch import nn

from qualitygate.errors import InputError
from qualitygate.features.extractor import extract, rebatched
from qualitygate.features.module import DiscriminatorExtractor, ModuleExtractor
from qualitygate.features.registry import make_distance, make_extractor
from qualitygate.generators.families.stylegan2 import StyleGAN2Discriminator
from qualitygate.generators.passes import MICRO_BATCH
from qualitygate.metrics.measured_set import Observer

IMAGES = torch.rand(150, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("sizes", [[150], [1] * 150, [2, 3] * 30, [64, 64, 22], [128, 22], [0, 100, 0, 50]])
def test_batches_have_no_say(sizes: list[int]) -> None:
    extractor = Means()
    found = extract(extractor, iter(IMAGES.split(sizes)))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, extract(Means(), IMAGES))
    assert extractor.passes == [MICRO_BATCH] * 3


def test_features_are_of_eight_bit_images_in_their_order() -> None:
    written = np.rint((IMAGES.double().numpy() + 1) * 127.5) / 127.5 - 1
    np.testing.assert_allclose(extract(Means(), IMAGES)[:, :3], written.mean(axis=(2, 3)), atol=1e-6)


def test_equal_pixels_have_equal_features_however_they_lie_in_memory() -> None:
    """Generators hand out images pixel by pixel, readers channel by channel; a grey image is one that has three equal channels."""
    pixels = torch.randint(0, 256, (4, 3, 40, 40), generator=torch.Generator().manual_seed(0)).float() / 127.5 - 1.0
    network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    judge = StyleGAN2Discriminator([4, 5, 6], 3, "resnet")
    for parameter in (*network.parameters(), *judge.parameters()):
        nn.init.normal_(parameter, 0.0, 0.4, generator=torch.Generator().manual_seed(1))
    judge.eval()
    for extractor in (make_extractor("random-vgg16-32"), ModuleExtractor(network, "mine"), DiscriminatorExtractor(judge)):
        for real in (pixels, pixels[:, :1].expand(-1, 3, -1, -1), pixels[:, :1]):
            generated = real.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
            assert torch.equal(extractor(generated), extractor(real.contiguous()))
    np.testing.assert_array_equal(extract(extractor, generated), extract(extractor, real))
    distance = make_distance("random-vgg16-32")
    found = [distance(one, one.flip(0)) for one in (pixels, pixels.contiguous(memory_format=torch.channels_last))]
    assert torch.equal(*found)


def test_progress_counts_images() -> None:
    counts: list[int] = []
    extract(Means(), IMAGES, counts.append)
    assert counts == [64, 64, 22]


def test_no_gradients() -> None:
    assert isinstance(extract(Means(), IMAGES.clone().requires_grad_()), np.ndarray)


def test_no_images() -> None:
    with pytest.raises(InputError, match="no images to extract"):
        extract(Means(), [])


def test_features_that_are_not_finite_are_named() -> None:
    broken = IMAGES.clone()
    broken[70, 0, 0, 0] = torch.nan
    with pytest.raises(InputError, match="image 70 are not finite"):
        extract(Means(), broken)


def test_it_is_called_what_the_caller_calls_it() -> None:
    broken = IMAGES.clone()
    broken[70] = torch.nan
    observer = Observer(Means(), None, "cpu", known=np.zeros((3, 4), np.float32))
    with pytest.raises(InputError, match="image 70 are not finite"):
        list(map(observer.add, broken.split(5)))
    with pytest.raises(InputError, match="photo 70 are not finite"):
        extract(Means(), broken, called="photo {}".format)


def test_rebatched_keeps_everything() -> None:
    batches = list(rebatched(IMAGES.split([10, 130, 10]), 64))
    assert [len(batch) for batch in batches] == [64, 64, 22]
    torch.testing.assert_close(torch.cat(batches), IMAGES, rtol=0, atol=0)
