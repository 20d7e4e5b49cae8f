"""The random VGG16: the same numbers everywhere and for ever, features and distances that behave."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualitygate.errors import InputError
from qualitygate.features.extractor import extract
from qualitygate.features.registry import make_distance, make_extractor
from qualitygate.features.vgg16 import VGG16, random_vgg16

IMAGES = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture(scope="module")
def network() -> VGG16:
    return random_vgg16(32)


GOLDEN = (
    *(0.09458324, -0.02517241, 0.07937039, 0.08093342, -0.03886909, -0.03722895, 0.05462184, -0.001429308),
    *(0.005128329, -0.04022802, 0.02200766, -0.00320621, 0.01243737, 0.03905692, 0.008852418),
)
"""The last weight of each layer."""


def test_the_embedding_never_changes(network: VGG16) -> None:
    found = [layer.weight.flatten()[-1].item() for layer in (*network.convolutions.layers, *network.dense)]
    np.testing.assert_allclose(found, GOLDEN, rtol=1e-6)
    vector = network(torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32))[0]
    np.testing.assert_allclose(vector[:6], [0.0, 0.541308, 0.0, 0.0, 0.754761, 1.332384], rtol=1e-3)
    assert vector.sum().item() == pytest.approx(950.6552, rel=1e-4)


def test_weights_are_he_normal(network: VGG16) -> None:
    for layer in (*network.convolutions.layers, *network.dense):
        assert isinstance(layer, (nn.Conv2d, nn.Linear))
        assert layer.bias is not None
        expected = (2.0 / layer.weight[0].numel()) ** 0.5
        assert layer.weight.std().item() == pytest.approx(expected, rel=0.05)
        assert layer.weight.mean().item() == pytest.approx(0.0, abs=0.1 * expected)
        assert not layer.bias.any()


def plain_forward(network: VGG16, images: Tensor) -> tuple[Tensor, Tensor]:
    """VGG16 written down once more, from the paper's table D."""
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    x = ((images + 1) / 2 - mean) / deviation
    weights = iter(network.convolutions.layers)
    for place in (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512):
        if place == "M":
            x = F.max_pool2d(x, kernel_size=2, stride=2)
        else:
            x = torch.relu(next(weights)(x))
            assert x.shape[1] == place
    vectors = F.max_pool2d(x, kernel_size=2, stride=2).reshape(len(x), -1)
    for layer in network.dense:
        vectors = torch.relu(layer(vectors))
    return x, vectors


def test_against_a_plain_forward(network: VGG16) -> None:
    extractor = make_extractor("random-vgg16-32")
    maps, vectors = plain_forward(network, IMAGES)
    torch.testing.assert_close(extractor(IMAGES), vectors)
    torch.testing.assert_close(extractor.spatial(IMAGES), maps)  # type: ignore[attr-defined]
    assert (extractor.features, maps.shape[1:]) == (4096, (512, 2, 2))
    assert extractor.key == "random-vgg16-32, float32"


def test_an_image_alone_has_the_same_features() -> None:
    extractor = make_extractor("random-vgg16-32")
    together, alone = extract(extractor, IMAGES), extract(extractor, IMAGES[5:])
    np.testing.assert_allclose(alone[0], together[5], rtol=1e-4, atol=1e-4)


def test_other_sizes_and_grey_images_are_brought_to_the_networks() -> None:
    extractor = make_extractor("random-vgg16-32")
    large = F.interpolate(IMAGES, scale_factor=2, mode="nearest")
    assert extractor(large).shape == (6, 4096)
    torch.testing.assert_close(extractor(IMAGES[:, :1]), extractor(IMAGES[:, :1].repeat(1, 3, 1, 1)))
    with pytest.raises(InputError, match="no images"):
        extractor(IMAGES[:, :2])


def test_spatial_features_have_gradients() -> None:
    images = IMAGES[:2].clone().requires_grad_()
    make_extractor("random-vgg16-32").spatial(images).sum().backward()  # type: ignore[attr-defined]
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_the_size_is_part_of_the_name() -> None:
    assert VGG16(64).dense[0].weight.shape == (4096, 2048)
    with pytest.raises(InputError, match="multiple of 32"):
        make_extractor("random-vgg16-33")


def test_distance(network: VGG16) -> None:
    distance = make_distance("random-vgg16-32")
    assert "random-vgg16-32" in distance.key
    other = (IMAGES + 0.1 * torch.randn(IMAGES.shape, generator=torch.Generator().manual_seed(2))).clamp(-1, 1)
    found = distance(IMAGES, other)
    expected = torch.zeros(6)
    for a, b in zip(network.convolutions.stages(IMAGES), network.convolutions.stages(other), strict=True):
        expected += (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(found, expected)
    assert (distance(IMAGES, IMAGES) == 0).all()
    assert (distance(IMAGES, IMAGES.flip(0)) > found).all()
    with pytest.raises(InputError, match="one size"):
        distance(IMAGES, IMAGES[:3])
