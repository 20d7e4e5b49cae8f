"""Inception-v3 of 2015-12-05 against a forward written down once more, from both kinds of files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from checkpoints.nvidia_files import dump, persistent_network
from features.weight_files import random_tensors, save_plain, save_script
from torch import Tensor

from qualitygate.errors import CheckpointError, InputError
from qualitygate.features.inception import Inception, InceptionExtractor, units
from qualitygate.features.registry import make_extractor
from qualitygate.features.weights import read_weights

NORM = ("bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
IMAGES = torch.rand(2, 3, 40, 48, generator=torch.Generator().manual_seed(3)) * 2 - 1


@pytest.fixture(scope="module")
def plain() -> dict[str, Tensor]:
    """Random weights as pytorch-fid's file has them."""
    shapes: dict[str, tuple[int, ...]] = {}
    for unit, _, theirs in units(Inception()):
        shapes[f"{theirs}.conv.weight"] = tuple(unit.weight.shape)
        shapes |= {f"{theirs}.{part}": (len(unit.bias),) for part in NORM}
    tensors = random_tensors(shapes | {"fc.weight": (1008, 2048), "fc.bias": (1008,)})
    # the graph's batch norms have no scale
    return {name: torch.ones_like(one) if name.endswith("bn.weight") else one for name, one in tensors.items()}


@pytest.fixture(scope="module")
def extractor(plain: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> InceptionExtractor:
    made = make_extractor("inception", weights=save_plain(plain, tmp_path_factory.mktemp("fid") / "fid.pth"))
    assert isinstance(made, InceptionExtractor)
    return made


def as_nvidia(plain: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {"output.weight": plain["fc.weight"], "output.bias": plain["fc.bias"]}
    for _, ours, theirs in units(Inception()):
        found[f"{ours}.weight"] = plain[f"{theirs}.conv.weight"]
        for part, other in (("beta", "bias"), ("mean", "running_mean"), ("var", "running_var")):
            found[f"{ours}.{part}"] = plain[f"{theirs}.bn.{other}"]
    return found


class Reference:
    """pytorch-fid's network, on images (N, 3, 299, 299) as it sees them."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors

    def unit(self, x: Tensor, name: str, padding: int | tuple[int, int] = 0, stride: int = 1) -> Tensor:
        x = F.conv2d(x, self.tensors[f"{name}.conv.weight"], None, stride, padding)
        scale, shift, mean, variance = (self.tensors[f"{name}.{part}"] for part in NORM)
        return F.relu(F.batch_norm(x, mean, variance, scale, shift, eps=0.001))

    def chain(self, x: Tensor, prefix: str, *paddings: int | tuple[int, int]) -> Tensor:
        """Units called prefix_1, prefix_2, …"""
        for number, padding in enumerate(paddings, start=1):
            x = self.unit(x, f"{prefix}_{number}", padding)
        return x

    def averaged(self, x: Tensor, block: str) -> Tensor:
        pooled = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        return self.unit(pooled, f"{block}.branch_pool")

    def a(self, x: Tensor, block: str) -> Tensor:
        five = self.chain(x, f"{block}.branch5x5", 0, 2)
        double = self.chain(x, f"{block}.branch3x3dbl", 0, 1, 1)
        return torch.cat([self.unit(x, f"{block}.branch1x1"), five, double, self.averaged(x, block)], 1)

    def b(self, x: Tensor, block: str) -> Tensor:
        double = self.chain(x, f"{block}.branch3x3dbl", 0, 1)
        double = self.unit(double, f"{block}.branch3x3dbl_3", stride=2)
        return torch.cat([self.unit(x, f"{block}.branch3x3", stride=2), double, F.max_pool2d(x, 3, 2)], 1)

    def c(self, x: Tensor, block: str) -> Tensor:
        row, column = (0, 3), (3, 0)
        seven = self.chain(x, f"{block}.branch7x7", 0, row, column)
        double = self.chain(x, f"{block}.branch7x7dbl", 0, column, row, column, row)
        return torch.cat([self.unit(x, f"{block}.branch1x1"), seven, double, self.averaged(x, block)], 1)

    def d(self, x: Tensor, block: str) -> Tensor:
        three = self.unit(self.unit(x, f"{block}.branch3x3_1"), f"{block}.branch3x3_2", stride=2)
        seven = self.unit(self.chain(x, f"{block}.branch7x7x3", 0, (0, 3), (3, 0)), f"{block}.branch7x7x3_4", stride=2)
        return torch.cat([three, seven, F.max_pool2d(x, 3, 2)], 1)

    def e(self, x: Tensor, block: str, maximum: bool) -> Tensor:
        three = self.unit(x, f"{block}.branch3x3_1")
        double = self.chain(x, f"{block}.branch3x3dbl", 0, 1)
        last = self.averaged(x, block)
        if maximum:
            last = self.unit(F.max_pool2d(x, 3, stride=1, padding=1), f"{block}.branch_pool")
        parts = [self.unit(x, f"{block}.branch1x1")]
        for inner, name in ((three, "branch3x3_2"), (double, "branch3x3dbl_3")):
            parts.append(self.unit(inner, f"{block}.{name}a", (0, 1)))
            parts.append(self.unit(inner, f"{block}.{name}b", (1, 0)))
        return torch.cat([*parts, last], 1)

    def __call__(self, x: Tensor) -> Tensor:
        x = self.unit(x, "Conv2d_1a_3x3", stride=2)
        x = self.unit(self.unit(x, "Conv2d_2a_3x3"), "Conv2d_2b_3x3", 1)
        x = self.unit(self.unit(F.max_pool2d(x, 3, 2), "Conv2d_3b_1x1"), "Conv2d_4a_3x3")
        x = F.max_pool2d(x, 3, 2)
        for block in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
            x = self.a(x, block)
        x = self.b(x, "Mixed_6a")
        for block in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
            x = self.c(x, block)
        x = self.e(self.e(self.d(x, "Mixed_7a"), "Mixed_7b", False), "Mixed_7c", True)
        assert x.shape[1:] == (2048, 8, 8)
        return F.avg_pool2d(x, 8).flatten(1)


def resized_by_hand(image: np.ndarray, size: int) -> np.ndarray:
    """TensorFlow 1's resize_bilinear of (height, width), pixel by pixel."""
    height, width = image.shape
    found = np.empty((size, size))
    for i in range(size):
        for j in range(size):
            y, x = i * height / size, j * width / size
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            upper = image[top, left] * (1 - (x - left)) + image[top, right] * (x - left)
            lower = image[bottom, left] * (1 - (x - left)) + image[bottom, right] * (x - left)
            found[i, j] = upper * (1 - (y - top)) + lower * (y - top)
    return found


def test_against_a_forward_by_hand(extractor: InceptionExtractor, plain: dict[str, Tensor]) -> None:
    large = np.stack([[resized_by_hand(channel, 299) for channel in image] for image in IMAGES.double().numpy()])
    seen = ((large + 1) * 127.5 - 128) / 128
    expected = Reference(plain)(torch.from_numpy(seen).float())
    assert extractor.features == 2048
    torch.testing.assert_close(extractor(IMAGES), expected, rtol=2e-3, atol=2e-3 * expected.abs().max().item())
    assert expected.std(dim=0).mean() > 1e-3 * expected.abs().mean()  # the two images are told apart


def test_an_image_alone_has_the_same_features(extractor: InceptionExtractor) -> None:
    torch.testing.assert_close(extractor(IMAGES)[:1], extractor(IMAGES[:1]), rtol=1e-3, atol=1e-3)


def test_the_scripted_file_gives_the_same_network(extractor: InceptionExtractor, plain: dict[str, Tensor], tmp_path: Path) -> None:
    tensors = as_nvidia(plain)
    # what Keras counts for this network with 1,000 classes, and 8 more
    assert sum(tensor.numel() for tensor in tensors.values()) == 23_851_784 + 8 * 2049
    assert {
        "layers.conv.beta",
        "layers.mixed.tower_1.conv_2.mean",
        "layers.mixed_8.tower_1.conv_3.var",
        "layers.mixed_10.tower_1_mixed_conv_1.weight",
        "layers.mixed_9.tower_mixed_conv.weight",
    } <= tensors.keys()
    scripted = make_extractor("inception", weights=save_script(tensors, tmp_path / "inception.pt"))
    torch.testing.assert_close(scripted(IMAGES), extractor(IMAGES), rtol=1e-5, atol=1e-5)
    assert scripted.key != extractor.key  # another file


def test_probabilities_leave_out_the_bias(extractor: InceptionExtractor, plain: dict[str, Tensor]) -> None:
    features = torch.randn(3, 2048, generator=torch.Generator().manual_seed(0))
    odds = np.exp(features.double().numpy() @ plain["fc.weight"].double().numpy().T)
    expected = odds / odds.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(extractor.probabilities(features).numpy(), expected, rtol=1e-9)


def test_the_key_names_file_size_and_precision(extractor: InceptionExtractor) -> None:
    assert extractor.key.startswith("inception, weights ")
    assert extractor.key.endswith("TF1 bilinear to 299, float32")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {"features.0.weight": torch.zeros(1)}, r"tensors features\.0\.weight …"),
        (lambda t: {**t, "fc.weight": torch.zeros(1000, 2048)}, r"1,000 classes: another Inception"),
        (lambda t: {name: one for name, one in t.items() if "Mixed_7c" not in name}, "without a tensor Mixed_7c"),
        (lambda t: {**t, "fc.bias": torch.full((1008,), torch.nan)}, "with NaN"),
        (lambda t: {**t, "Conv2d_2a_3x3.conv.weight": torch.zeros(32, 32, 1, 1)}, r"of shape \(32, 32, 1, 1\)"),
    ],
)
def test_other_weights_are_refused(change: object, message: str, plain: dict[str, Tensor], tmp_path: Path) -> None:
    path = save_plain(change(plain), tmp_path / "other.pth")  # type: ignore[operator]
    with pytest.raises(CheckpointError, match=message):
        make_extractor("inception", weights=path)


def test_weights_are_needed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs its weights"):
        make_extractor("inception")
    (tmp_path / "weights.pth").write_bytes(b"nothing of the kind")
    with pytest.raises(CheckpointError, match=r"weights\.pth"):
        make_extractor("inception", weights=tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="another file than the one meant"):
        make_extractor("inception", weights=tmp_path / "weights.pth", sha256="0" * 64)


def test_networks_stored_as_nvidia_stores_them_have_the_same_names(tmp_path: Path) -> None:
    """StyleGAN3's pickle of the network: an object of a class that is not ours, of which only the tensors are taken."""
    tensors = {"layers.conv.weight": torch.ones(2, 2), "layers.mixed_9.tower_conv.beta": torch.zeros(3)}
    dump(tmp_path / "inception.pkl", persistent_network("InceptionV3", {}, tensors))
    found = read_weights(tmp_path / "inception.pkl").tensors
    assert found.keys() == tensors.keys()
    torch.testing.assert_close(found["layers.conv.weight"], torch.ones(2, 2))
