"""Inception-v3 of 2015-12-05, the network of the Fréchet Inception distance (Heusel et al. 2017) and of the inception score
(Salimans et al. 2016).

It is the graph that TensorFlow published on that day: unlike the later Inception-v3, it has 1,008 classes, padding does not count in
average pooling, and the last block takes a maximum where the others average. Parts have their names in the graph. Weights are read from

- ``inception-2015-12-05.pt`` of NVIDIA's StyleGAN2-ADA (TorchScript), and the pickle of StyleGAN3 with the same names;
- ``pt_inception-2015-12-05-6726825d.pth`` of pytorch-fid (a state dict under torchvision's names).

Images are prepared as in the graph, whatever file the weights come from: TensorFlow 1's ``resize_bilinear`` to 299×299
(no half-pixel centres, no low-pass filter), then ``(x − 128) / 128`` of 0 … 255. (pytorch-fid resizes with half-pixel
centres and scales by 127.5: its numbers are close to the graph's, but not the same.)
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualitygate.features.extractor import Extractor, in_colour, tf1_resized
from qualitygate.features.weights import Weights, set_parameter

SIZE = 299
FEATURES = 2048
CLASSES = 1008

_EPSILON = 1e-3  # of the batch norms
_FORMS = "inception-2015-12-05.pt of NVIDIA, or pt_inception-2015-12-05-6726825d.pth of pytorch-fid"
_average = partial(nn.AvgPool2d, 3, stride=1, padding=1, count_include_pad=False)
_DOUBLE = ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
_SEVEN = (*(f"branch7x7_{i}" for i in (1, 2, 3)), *(f"branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5)))
_THREE = ("branch3x3_1", "branch3x3_2a", "branch3x3_2b")
_BLOCKS = {
    **dict.fromkeys(("5b", "5c", "5d"), ("branch1x1", "branch5x5_1", "branch5x5_2", *_DOUBLE, "branch_pool")),
    "6a": ("branch3x3", *_DOUBLE),
    **dict.fromkeys(("6b", "6c", "6d", "6e"), ("branch1x1", *_SEVEN, "branch_pool")),
    "7a": ("branch3x3_1", "branch3x3_2", *(f"branch7x7x3_{i}" for i in (1, 2, 3, 4))),
    **dict.fromkeys(("7b", "7c"), ("branch1x1", *_THREE, *_DOUBLE[:2], "branch3x3dbl_3a", "branch3x3dbl_3b", "branch_pool")),
}
_STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
_PYTORCH_FID = (*_STEM, *(f"Mixed_{block}.{name}" for block, names in _BLOCKS.items() for name in names))
"""pytorch-fid's names of the convolutions, in the order of the graph's."""


class Unit(nn.Conv2d):
    """Convolution and ReLU; the batch norm between them is folded into weight and bias, which are to be filled in."""

    def __init__(self, inputs: int, outputs: int, kernel: int | tuple[int, int], *, stride: int = 1, padded: bool = True) -> None:
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (height // 2, width // 2) if padded else 0
        super().__init__(inputs, outputs, (height, width), stride, padding, device="meta")

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))


class Joined(nn.ModuleDict):
    """Parts that read the same activation, their units side by side."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__(parts)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part(x) for part in self.values()], dim=1)


class Inception(nn.Module):
    """The network up to its last average, and the weights of the classes."""

    def __init__(self) -> None:
        super().__init__()
        parts = OrderedDict(
            conv=Unit(3, 32, 3, stride=2, padded=False),
            conv_1=Unit(32, 32, 3, padded=False),
            conv_2=Unit(32, 64, 3),
            pool=nn.MaxPool2d(3, stride=2),
            conv_3=Unit(64, 80, 1),
            conv_4=Unit(80, 192, 3, padded=False),
            pool_1=nn.MaxPool2d(3, stride=2),
            mixed=_at_35(192, 32),
            mixed_1=_at_35(256, 64),
            mixed_2=_at_35(288, 64),
            mixed_3=_to_17(288),
            mixed_4=_at_17(768, 128),
            mixed_5=_at_17(768, 160),
            mixed_6=_at_17(768, 160),
            mixed_7=_at_17(768, 192),
            mixed_8=_to_8(768),
            mixed_9=_at_8(1280, _average()),
            mixed_10=_at_8(2048, nn.MaxPool2d(3, stride=1, padding=1)),
        )
        self.layers = nn.Sequential(parts)
        self.classes = nn.Linear(FEATURES, CLASSES, device="meta")
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """The average of the last activation over positions, "pool_3" (N, 2048), of RGB images (N, 3, 299, 299) in [-1, 1]."""
        x = (images + 1.0) * (127.5 / 128.0) - 1.0
        features: Tensor = self.layers(x).mean(dim=(2, 3))
        return features


class InceptionExtractor(Extractor):
    """The pool_3 features of Inception-v3 of 2015-12-05. It works where the network is."""

    features = FEATURES

    def __init__(self, network: Inception, key: str) -> None:
        self.key = key
        self._network = network

    def __call__(self, images: Tensor) -> Tensor:
        device = self._network.classes.weight.device
        features: Tensor = self._network(tf1_resized(in_colour(images.to(device)), SIZE))
        return features

    def probabilities(self, features: Tensor) -> Tensor:
        """Probability of each class float64 (N, 1008), from features (N, 2048), on their device; without the bias of the classes, as the
        inception score has always been computed."""
        directions = self._network.classes.weight.to(features.device, torch.float64)
        return F.linear(features.double(), directions).softmax(dim=1)


def inception_of(weights: Weights) -> Inception:
    """The network, on the CPU. Raises `CheckpointError` where these are other weights."""
    network = Inception()
    of_nvidia = "layers.conv.weight" in weights.tensors
    if not of_nvidia and "Conv2d_1a_3x3.conv.weight" not in weights.tensors:
        raise weights.wrong(f"tensors {', '.join(list(weights.tensors)[:4])} …", _FORMS)
    classes = "output" if of_nvidia else "fc"
    if (rows := len(weights.tensors.get(f"{classes}.weight", ()))) != CLASSES:
        raise weights.wrong(f"{rows:,} classes: another Inception-v3, e.g. torchvision's classifier", _FORMS)
    for unit, of_graph, of_fid in units(network):
        count = unit.out_channels
        if of_nvidia:
            weight, scale = f"{of_graph}.weight", torch.ones(count)
            norm = [weights.take(f"{of_graph}.{part}", count) for part in ("beta", "mean", "var")]
        else:
            weight = f"{of_fid}.conv.weight"
            scale, *norm = (weights.take(f"{of_fid}.bn.{part}", count) for part in ("weight", "bias", "running_mean", "running_var"))
        shift, mean, variance = (one.double() for one in norm)
        factor = scale.double() / torch.sqrt(variance + _EPSILON)
        folded = weights.take(weight, *unit.weight.shape).double() * factor[:, None, None, None]
        set_parameter(unit, "weight", folded.float())
        set_parameter(unit, "bias", (shift - mean * factor).float())
    weights.fill(network.classes, classes)
    return network


def units(network: Inception) -> list[tuple[Unit, str, str]]:
    """All convolutions, with their names in NVIDIA's file, which are the graph's, and in pytorch-fid's."""
    found = [(name, part) for name, part in network.layers.named_modules() if isinstance(part, Unit)]
    names = []
    for name, _ in found:
        block, _, part = name.partition(".")
        # in the last two blocks, NVIDIA's names join what is nested by underscores
        names.append(f"layers.{block}.{part.replace('.', '_')}" if block in ("mixed_9", "mixed_10") else f"layers.{name}")
    return [(unit, of_graph, of_fid) for (_, unit), of_graph, of_fid in zip(found, names, _PYTORCH_FID, strict=True)]


def _tower(*parts: nn.Module) -> nn.Sequential:
    """Parts after one another; units are called conv, conv_1, …, what is joined mixed."""
    tower, units = nn.Sequential(), 0
    for part in parts:
        if isinstance(part, Unit):
            tower.add_module(f"conv_{units}" if units else "conv", part)
            units += 1
        else:
            tower.add_module("mixed" if isinstance(part, Joined) else "pool", part)
    return tower


def _at_35(inputs: int, pooled: int) -> Joined:
    return Joined(
        conv=Unit(inputs, 64, 1),
        tower=_tower(Unit(inputs, 48, 1), Unit(48, 64, 5)),
        tower_1=_tower(Unit(inputs, 64, 1), Unit(64, 96, 3), Unit(96, 96, 3)),
        tower_2=_tower(_average(), Unit(inputs, pooled, 1)),
    )


def _to_17(inputs: int) -> Joined:
    return Joined(
        conv=Unit(inputs, 384, 3, stride=2, padded=False),
        tower=_tower(Unit(inputs, 64, 1), Unit(64, 96, 3), Unit(96, 96, 3, stride=2, padded=False)),
        pool=nn.MaxPool2d(3, stride=2),
    )


def _at_17(inputs: int, inner: int) -> Joined:
    row, column = (1, 7), (7, 1)
    return Joined(
        conv=Unit(inputs, 192, 1),
        tower=_tower(Unit(inputs, inner, 1), Unit(inner, inner, row), Unit(inner, 192, column)),
        tower_1=_tower(
            Unit(inputs, inner, 1), Unit(inner, inner, column), Unit(inner, inner, row), Unit(inner, inner, column), Unit(inner, 192, row)
        ),
        tower_2=_tower(_average(), Unit(inputs, 192, 1)),
    )


def _to_8(inputs: int) -> Joined:
    return Joined(
        tower=_tower(Unit(inputs, 192, 1), Unit(192, 320, 3, stride=2, padded=False)),
        tower_1=_tower(Unit(inputs, 192, 1), Unit(192, 192, (1, 7)), Unit(192, 192, (7, 1)), Unit(192, 192, 3, stride=2, padded=False)),
        pool=nn.MaxPool2d(3, stride=2),
    )


def _at_8(inputs: int, pool: nn.Module) -> Joined:
    def both() -> Joined:
        return Joined(conv=Unit(384, 384, (1, 3)), conv_1=Unit(384, 384, (3, 1)))

    return Joined(
        conv=Unit(inputs, 320, 1),
        tower=_tower(Unit(inputs, 384, 1), both()),
        tower_1=_tower(Unit(inputs, 448, 1), Unit(448, 384, 3), both()),
        tower_2=_tower(pool, Unit(inputs, 192, 1)),
    )
