"""Modules, functions and extractors by object and by import path."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator

import pytest
import torch
from features.small_extractor import Means
from torch import Tensor, nn

from qualitygate.errors import InputError
from qualitygate.features.extractor import Extractor, extract
from qualitygate.features.module import DiscriminatorExtractor, ModuleExtractor
from qualitygate.features.registry import make_extractor
from qualitygate.generators.base import Discriminator
from qualitygate.generators.families.biggan import BigGANDiscriminator, UNetDiscriminator
from qualitygate.generators.families.dcgan import DCGANDiscriminator
from qualitygate.generators.families.pggan import PGGANDiscriminator
from qualitygate.generators.families.stylegan2 import StyleGAN2Discriminator

IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


class Net(nn.Module):
    """Wants 8×8 and has a dropout that evaluation must switch off."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 64, 5)
        nn.init.constant_(self.linear.weight, 0.1)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(nn.functional.dropout(images.flatten(1), 0.5, self.training))


@pytest.fixture(autouse=True)
def package() -> Iterator[types.ModuleType]:
    module = types.ModuleType("someones")
    module.net, module.Net, module.Means = Net(), Net, Means  # type: ignore[attr-defined]
    module.mean = lambda images: images.mean(dim=(2, 3))  # type: ignore[attr-defined]
    module.number = 3  # type: ignore[attr-defined]
    module.maps = nn.Conv2d(3, 2, 1)  # type: ignore[attr-defined]
    sys.modules["someones"] = module
    yield module
    del sys.modules["someones"]


@pytest.mark.parametrize("attribute", ["net", "Net"])
def test_a_module_by_path(attribute: str) -> None:
    extractor = make_extractor(f"module:someones:{attribute}@8")
    assert extractor.features == 5
    assert extractor(IMAGES).shape == (3, 5)
    torch.testing.assert_close(extractor(IMAGES), extractor(IMAGES))
    assert extractor.key.startswith(f"someones:{attribute}, weights ")
    assert extractor.key.endswith("images smooth bilinear to 8, float32")


def test_the_key_of_a_module_is_of_the_weights(package: types.ModuleType) -> None:
    before = make_extractor("module:someones:net@8").key
    assert before == make_extractor("module:someones:net@8").key
    nn.init.constant_(package.net.linear.weight, 0.2)
    assert before != make_extractor("module:someones:net@8").key


def test_a_function_takes_images_as_they_are() -> None:
    extractor = make_extractor("module:someones:mean")
    torch.testing.assert_close(extractor(IMAGES), IMAGES.mean(dim=(2, 3)))
    torch.testing.assert_close(extractor(IMAGES[:, :1]), IMAGES[:, :1].mean(dim=(2, 3)).expand(-1, 3))
    assert extractor.key == "someones:mean, a function, images as they are, float32"


def test_an_extractor_by_path() -> None:
    assert isinstance(make_extractor("module:someones:Means"), Means)


@pytest.mark.parametrize("attribute", ["net@8", "Net@8", "mean", "Means"])
def test_code_that_may_be_edited_keeps_nothing(attribute: str) -> None:
    assert not make_extractor(f"module:someones:{attribute}").kept
    assert Means().kept  # an object whose key is its author's word


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("someones", "not an import path"),
        ("nothing.there:net", "Cannot import nothing.there:net"),
        ("someones:nothing", "Cannot import someones:nothing"),
        ("someones:number", "cannot be used"),
        ("someones:net", r"fails on images of 64×64[\s\S]*@SIZE"),
        ("someones:maps", r"does not return features\n.*\(2, 2, 64, 64\)"),
    ],
)
def test_paths_that_do_not_do(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_extractor(f"module:{spec}")


class Restless(Extractor):
    """Draws its features anew each time."""

    key, features = "restless", 2

    def __call__(self, images: Tensor) -> Tensor:
        return torch.rand(len(images), 2)


def in_train_mode(images: Tensor) -> Tensor:
    return nn.functional.dropout(images.flatten(1)[:, :8], 0.5, training=True)


def across_the_batch(images: Tensor) -> Tensor:
    means = images.mean(dim=(2, 3))
    return means - means.mean(dim=0)


def by_place(images: Tensor) -> Tensor:
    return images.mean(dim=(2, 3)) * torch.arange(1.0, len(images) + 1.0)[:, None]


def not_a_number(images: Tensor) -> Tensor:
    return images.mean(dim=(2, 3)) / 0.0 * 0.0


@pytest.mark.parametrize(
    ("made", "how"),
    [
        (in_train_mode, "run a second time"),
        (Restless, "run a second time"),
        (not_a_number, "once"),
        (by_place, "in another order"),
        (across_the_batch, "each alone"),
        (nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3 * 64 * 64, track_running_stats=False)), "each alone"),
    ],
)
def test_features_that_depend_on_chance_or_neighbours_are_refused(package: types.ModuleType, made: object, how: str) -> None:
    package.made = made  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=rf"{how}\n  found: [\s\S]*eval\(\)"):
        make_extractor("module:someones:made")


def test_a_module_in_train_mode_is_put_in_evaluation_mode(package: types.ModuleType) -> None:
    package.made = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3 * 64 * 64), nn.Dropout(0.5)).train()  # type: ignore[attr-defined]
    extract(make_extractor("module:someones:made"), torch.zeros(2, 3, 64, 64))
    assert not any(one.training for one in package.made.modules())


def test_objects_are_named_by_who_gives_them() -> None:
    assert ModuleExtractor(Net(), "mine", size=8).key.startswith("mine, weights ")


FAMILIES: dict[str, tuple[Discriminator, int, int]] = {
    "dcgan": (DCGANDiscriminator([4, 6], 1), 6 * 16, 6),
    "pggan": (PGGANDiscriminator([4, 4, 5, 6, 7]), 7, 5),
    "stylegan2": (StyleGAN2Discriminator([4, 5, 6], 3, "resnet"), 6, 6),
    "biggan": (BigGANDiscriminator(16, [4, 5], [True, False], True, [], 3), 5, 5),
    "unet": (UNetDiscriminator([4, 5], [5, 4], [], 0), 5, 5),
}
"""With the number of features and of channels."""


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> tuple[Discriminator, int, int]:
    discriminator, features, channels = FAMILIES[request.param]
    random = torch.Generator().manual_seed(0)
    for parameter in discriminator.parameters():
        nn.init.normal_(parameter, 0.0, 0.4, generator=random)
    return discriminator.eval(), features, channels


def images_for(discriminator: Discriminator, count: int = 12) -> torch.Tensor:
    return torch.rand(count, *discriminator.image_shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_shapes(family: tuple[Discriminator, int, int]) -> None:
    discriminator, features, channels = family
    extractor = DiscriminatorExtractor(discriminator)
    assert (extractor.features, extractor.channels) == (features, channels)
    large = torch.zeros(2, 3, 50, 40)
    assert extractor(large).shape == (2, features)
    assert extractor.spatial(large).shape[:2] == (2, channels)
    assert discriminator.family in extractor.key


def test_the_value_is_linear_in_the_features(family: tuple[Discriminator, int, int]) -> None:
    discriminator, features, _ = family
    images = images_for(discriminator, 2 * features + 8)
    labels = torch.zeros(len(images), dtype=torch.int64) if discriminator.label_size else None
    with torch.no_grad():
        found = DiscriminatorExtractor(discriminator)(images).double()
        values = discriminator.alone()(images, labels).double()
    design = torch.cat((found, torch.ones(len(found), 1, dtype=torch.float64)), dim=1)
    fitted = design @ torch.linalg.lstsq(design, values[:, None], driver="gelsd").solution
    torch.testing.assert_close(fitted[:, 0], values, rtol=1e-3, atol=1e-3 * values.abs().max().item())


def test_neighbours_have_no_say(family: tuple[Discriminator, int, int]) -> None:
    discriminator, _, _ = family
    extractor = DiscriminatorExtractor(discriminator)
    images = images_for(discriminator)
    with torch.no_grad():
        together = extractor(images)
        torch.testing.assert_close(extractor(images[3:4]), together[3:4], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(extractor(images.flip(0)), together.flip(0), rtol=1e-4, atol=1e-5)


def test_spatial_features_have_gradients(family: tuple[Discriminator, int, int]) -> None:
    discriminator, _, _ = family
    images = images_for(discriminator, 2).requires_grad_()
    DiscriminatorExtractor(discriminator).spatial(images).square().sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_the_key_of_a_discriminator_is_of_the_weights(family: tuple[Discriminator, int, int]) -> None:
    discriminator, _, _ = family
    before = DiscriminatorExtractor(discriminator).key
    with torch.no_grad():
        next(discriminator.parameters()).add_(1.0)
    assert DiscriminatorExtractor(discriminator).key != before


@pytest.mark.parametrize("name", ["pggan", "stylegan2"])
def test_alone_leaves_the_discriminator_as_it_was(name: str) -> None:
    discriminator = FAMILIES[name][0]
    with torch.no_grad():
        images = images_for(discriminator)
        before = discriminator(images)
        alone = discriminator.alone()
        assert not torch.allclose(alone(images), before)
        torch.testing.assert_close(alone(images[:1]), discriminator(images[:1]), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(discriminator(images), before)
