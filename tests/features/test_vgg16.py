"""VGG16 and LPIPS from NVIDIA's and torchvision's files, under the names that those have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from features.weight_files import random_tensors, save_plain, save_script
from torch import Tensor, nn

from qualitygate.errors import CheckpointError, InputError
from qualitygate.features import vgg16
from qualitygate.features.extractor import averaged_down, extract
from qualitygate.features.registry import make_distance, make_extractor
from qualitygate.features.vgg16 import VGG16, StageDistance, random_vgg16

UNITS = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
PLACES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
"""Of the convolutions among torchvision's features."""
LAST = (64, 128, 256, 512, 512)
SMALL = 6
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1
OTHER = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(4)) * 2 - 1


@pytest.fixture(scope="module")
def convolutions() -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {}
    for place, inputs, outputs in zip(PLACES, UNITS[:-1], UNITS[1:], strict=True):
        shapes |= {f"features.{place}.weight": (outputs, inputs, 3, 3), f"features.{place}.bias": (outputs,)}
    return random_tensors(shapes)


@pytest.fixture
def dense(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Fully connected layers of few units: those of the real files are half a gigabyte."""
    monkeypatch.setattr(vgg16, "DENSE", SMALL)
    shapes = {"classifier.0.weight": (SMALL, 25088), "classifier.0.bias": (SMALL,), "classifier.3.weight": (SMALL, SMALL)}
    return random_tensors({**shapes, "classifier.3.bias": (SMALL,)}, seed=1)


LINEAR = random_tensors({f"lin{index}.model.1.weight": (1, units, 1, 1) for index, units in enumerate(LAST)}, seed=2)
LINEAR = {name: tensor.abs() for name, tensor in LINEAR.items()}


def as_nvidia(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, tensor in tensors.items():
        kind, place, *rest = name.split(".")
        if kind == "features":
            found[f"layers.conv{PLACES.index(int(place)) + 1}.{rest[0]}"] = tensor
        elif kind == "classifier":
            found[f"layers.fc{1 + int(place) // 3}.{rest[0]}"] = tensor
        else:
            found[f"lpips{kind[3:]}"] = tensor[0]
    return found


def stages(tensors: dict[str, Tensor], images: Tensor) -> list[Tensor]:
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (images / 2 + 0.5 - mean[:, None, None]) / deviation[:, None, None]
    found = []
    for place in PLACES:
        if place in (5, 10, 17, 24):
            found.append(x)
            x = F.max_pool2d(x, 2)
        x = F.relu(F.conv2d(x, tensors[f"features.{place}.weight"], tensors[f"features.{place}.bias"], padding=1))
    return [*found, x]


@pytest.mark.parametrize("scripted", [False, True])
def test_features(convolutions: dict[str, Tensor], dense: dict[str, Tensor], scripted: bool, tmp_path: Path) -> None:
    tensors = convolutions | dense
    path = tmp_path / "vgg16.pt"
    path = save_script(as_nvidia(tensors), path) if scripted else save_plain(tensors, path)
    images = F.interpolate(IMAGES[:1], size=(224, 224), mode="nearest")
    x = F.max_pool2d(stages(tensors, images)[-1], 2).flatten(1)
    for place in (0, 3):
        x = F.relu(F.linear(x, tensors[f"classifier.{place}.weight"], tensors[f"classifier.{place}.bias"]))
    extractor = make_extractor("vgg16", weights=path)
    torch.testing.assert_close(extractor(images), x, rtol=1e-3, atol=1e-3)
    assert x.any()
    assert extractor.key.endswith("TF1 bilinear to 224, float32")


@pytest.mark.parametrize("form", ["nvidia", "two files", "lpips package"])
def test_lpips(convolutions: dict[str, Tensor], form: str, tmp_path: Path) -> None:
    path = tmp_path / "vgg16.pt"
    if form == "nvidia":
        distance = make_distance("lpips", weights=save_script(as_nvidia(convolutions | LINEAR), path))
    elif form == "two files":
        files = [save_plain(convolutions, path), save_plain(LINEAR, tmp_path / "vgg.pth")]
        distance = make_distance("lpips", weights=files)
    else:
        renamed = {name.replace("features", "net.slice1"): one for name, one in convolutions.items()}
        distance = make_distance("lpips", weights=save_plain(renamed | LINEAR, path))
    expected = torch.zeros(2)
    pairs = zip(stages(convolutions, IMAGES), stages(convolutions, OTHER), LINEAR.values(), strict=True)
    for a, b, weight in pairs:
        expected += (weight * (F.normalize(a) - F.normalize(b)).square()).sum(dim=1).mean(dim=(1, 2))
    torch.testing.assert_close(distance(IMAGES, OTHER), expected, rtol=1e-3, atol=1e-5)
    assert distance.key.startswith("lpips-vgg16, weights ")


def test_lpips_averages_large_images_down(convolutions: dict[str, Tensor], tmp_path: Path) -> None:
    image = torch.rand(1, 1, 300, 300, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(averaged_down(F.interpolate(image, scale_factor=3, mode="nearest")), image)
    assert averaged_down(image) is image
    distance = make_distance("lpips", weights=save_plain(convolutions | LINEAR, tmp_path / "all.pth"))
    assert "averaged down to 256" in distance.key


def test_weights_that_do_not_do(convolutions: dict[str, Tensor], tmp_path: Path) -> None:
    path = save_plain(convolutions, tmp_path / "vgg16.pth")
    with pytest.raises(CheckpointError, match=r"no LPIPS weights[\s\S]*together"):
        make_distance("lpips", weights=path)
    with pytest.raises(CheckpointError, match=r"without a tensor classifier\.0\.weight"):
        make_extractor("vgg16", weights=path)
    with pytest.raises(CheckpointError, match=r"vgg16\.pt of NVIDIA"):
        make_extractor("vgg16", weights=save_plain(LINEAR, tmp_path / "vgg.pth"))
    with pytest.raises(CheckpointError, match="holds no tensors"):
        make_extractor("vgg16", weights=save_plain({}, tmp_path / "empty.pth"))


def test_a_key_is_of_all_files(convolutions: dict[str, Tensor], tmp_path: Path) -> None:
    first = save_plain(convolutions, tmp_path / "a.pth")
    keys = set()
    for number, scale in enumerate((1.0, 2.0)):
        lin = {name: scale * tensor for name, tensor in LINEAR.items()}
        keys.add(make_distance("lpips", weights=[first, save_plain(lin, tmp_path / f"{number}.pth")]).key)
    assert len(keys) == 2


def test_names() -> None:
    for make in (make_extractor, make_distance):
        with pytest.raises(InputError, match=r"no .* of this name[\s\S]*one of .*random-vgg16-SIZE"):
            make("resnet")
        with pytest.raises(InputError, match="reads no weight file"):
            make("random-vgg16-32", weights="vgg16.pt")
    with pytest.raises(InputError, match="lpips needs its weights"):
        make_distance("lpips")


MORE_IMAGES = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


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
    maps, vectors = plain_forward(network, MORE_IMAGES)
    torch.testing.assert_close(extractor(MORE_IMAGES), vectors)
    torch.testing.assert_close(extractor.spatial(MORE_IMAGES), maps)  # type: ignore[attr-defined]
    assert (extractor.features, maps.shape[1:]) == (4096, (512, 2, 2))
    assert extractor.key == "random-vgg16-32, float32"


def test_an_image_alone_has_the_same_features() -> None:
    extractor = make_extractor("random-vgg16-32")
    together, alone = extract(extractor, MORE_IMAGES), extract(extractor, MORE_IMAGES[5:])
    np.testing.assert_allclose(alone[0], together[5], rtol=1e-4, atol=1e-4)


def test_other_sizes_and_grey_images_are_brought_to_the_networks() -> None:
    extractor = make_extractor("random-vgg16-32")
    large = F.interpolate(MORE_IMAGES, scale_factor=2, mode="nearest")
    assert extractor(large).shape == (6, 4096)
    torch.testing.assert_close(extractor(MORE_IMAGES[:, :1]), extractor(MORE_IMAGES[:, :1].repeat(1, 3, 1, 1)))
    with pytest.raises(InputError, match="no images"):
        extractor(MORE_IMAGES[:, :2])


def test_spatial_features_have_gradients() -> None:
    images = MORE_IMAGES[:2].clone().requires_grad_()
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
    other = (MORE_IMAGES + 0.1 * torch.randn(MORE_IMAGES.shape, generator=torch.Generator().manual_seed(2))).clamp(-1, 1)
    found = distance(MORE_IMAGES, other)
    expected = torch.zeros(6)
    for a, b in zip(network.convolutions.stages(MORE_IMAGES), network.convolutions.stages(other), strict=True):
        expected += (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(found, expected)
    assert (distance(MORE_IMAGES, MORE_IMAGES) == 0).all()
    assert (distance(MORE_IMAGES, MORE_IMAGES.flip(0)) > found).all()
    with pytest.raises(InputError, match="one size"):
        distance(MORE_IMAGES, MORE_IMAGES[:3])
    least = StageDistance(network.convolutions, "mine", lambda images: images)
    assert least(MORE_IMAGES[:, :, :16, :16], MORE_IMAGES[:, :, :16, :16]).shape == (6,)
    with pytest.raises(InputError, match=r"too small[\s\S]*15×16[\s\S]*at least 16×16"):
        least(MORE_IMAGES[:, :, :15, :16], MORE_IMAGES[:, :, :15, :16])
