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
from qualitygate.features.module import ModuleExtractor
from qualitygate.features.registry import make_extractor

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


def test_the_key_is_of_the_weights(package: types.ModuleType) -> None:
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
        ("someones", "no import path"),
        ("nothing.there:net", "no nothing.there:net"),
        ("someones:nothing", "no someones:nothing"),
        ("someones:number", "cannot be used"),
        ("someones:net", r"fails on images of 64×64[\s\S]*@SIZE"),
        ("someones:maps", r"does not return features\n.*\(2, 2, 64, 64\)"),
    ],
)
def test_paths_that_do_not_do(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_extractor(f"module:{spec}")


def test_objects_are_named_by_who_gives_them() -> None:
    assert ModuleExtractor(Net(), "mine", size=8).key.startswith("mine, weights ")
