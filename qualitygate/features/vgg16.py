"""VGG16 (Simonyan and Zisserman 2015): feature vectors for precision and recall, maps for explanations, distances for path lengths.

The published weights are read from

- ``vgg16.pt`` of NVIDIA's StyleGAN2-ADA (TorchScript): convolutions, fully connected layers and LPIPS weights;
- ``vgg16-397923af.pth`` of torchvision (a state dict): convolutions and fully connected layers;
- ``vgg.pth`` of richzhang/PerceptualSimilarity (a state dict): LPIPS weights, to go with the former; or the state dict of
  the whole ``lpips.LPIPS(net="vgg")``, which holds the convolutions too.

With random weights it is an embedding that needs no file and knows no data set (Naeem et al. 2020). Unlike theirs, at 224×224, its input
size is free and part of the name: the first fully connected layer reads what the convolutions leave of it (at 32×32 one position in place
of 7×7). Weights are of He's normal distribution (He et al. 2015: variance 2 / fan-in, biases 0), from our own stream of random numbers:
the same in every version of every library.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualitygate.errors import InputError
from qualitygate.features.extractor import PerceptualDistance, SpatialExtractor, imagenet_scaled, in_colour
from qualitygate.features.weights import Weights
from qualitygate.generators.passes import scored_pass
from qualitygate.latents import Purpose, normals

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Units of the convolutions, a maximum over 2×2 after each stage."""
DENSE = 4096
INPUT = 224  # height and width of the images that the published weights were trained on
SEED = 0  # of the random weights
_SHRINK = 2 ** len(STAGES)
_LEAST = _SHRINK // 2  # height and width of which the last stage has one position
_WIDTHS = (3, *(units for stage in STAGES for units in stage))
_DRAWN_AT_ONCE = 2**21
_FORMS = "vgg16.pt of NVIDIA, or vgg16-397923af.pth of torchvision"
_LPIPS_FORMS = "vgg16.pt of NVIDIA, or torchvision's file and the vgg.pth of PerceptualSimilarity together"
_BY_INDEX = re.compile(r"(?:features|net\.slice\d)\.(\d+)\.weight")
"""torchvision's convolutions, whose numbers count ReLUs and maxima too; lpips keeps them in slices."""


class Convolutions(nn.Module):
    """The thirteen convolutions of VGG16, for images of any size; parameters are to be filled in."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(inputs, outputs, 3, padding=1, device="meta") for inputs, outputs in pairwise(_WIDTHS))
        self.eval().requires_grad_(False)

    def stages(self, images: Tensor) -> Iterator[Tensor]:
        """The last activation of each stage (N, units, height, width), before the maximum, of RGB images in [-1, 1]."""
        x = imagenet_scaled(images)
        layers = iter(self.layers)
        for index, stage in enumerate(STAGES):
            x = F.max_pool2d(x, 2) if index else x
            for _ in stage:
                x = F.relu(next(layers)(x))
            yield x

    def forward(self, images: Tensor) -> Tensor:
        """The activation of the last convolution (N, 512, height / 16, width / 16)."""
        *_, last = self.stages(images)
        return last


class VGG16(nn.Module):
    """VGG16 up to its second fully connected layer, for images of a size that is a multiple of 32; parameters are to be filled in."""

    def __init__(self, size: int = INPUT) -> None:
        super().__init__()
        if size < _SHRINK or size % _SHRINK:
            raise InputError("VGG16 has no such input size", str(size), f"a multiple of {_SHRINK}")
        self.size = size
        self.convolutions = Convolutions()
        left = _WIDTHS[-1] * (size // _SHRINK) ** 2
        self.dense = nn.ModuleList(nn.Linear(inputs, DENSE, device="meta") for inputs in (left, DENSE))
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """The activation (after its ReLU) of the second fully connected layer, "fc2" (N, 4096)."""
        x = F.max_pool2d(self.convolutions(images), 2).flatten(1)
        for layer in self.dense:
            x = F.relu(layer(x))
        return x


class VGG16Extractor(SpatialExtractor):
    """The fc2 activation of a VGG16 (Kynkäänniemi et al. 2019, section 3.1; Naeem et al. 2020), and the activation of its last convolution
    as the spatial features. It works where the network is."""

    features = DENSE
    channels = STAGES[-1][-1]

    def __init__(self, network: VGG16, key: str, resize: Callable[[Tensor, int], Tensor]) -> None:
        self.key = key
        self._network, self._resize = network, resize

    def __call__(self, images: Tensor) -> Tensor:
        features: Tensor = self._network(self._prepared(images))
        return features

    def spatial(self, images: Tensor) -> Tensor:
        maps: Tensor = self._network.convolutions(self._prepared(images))
        return maps

    def _prepared(self, images: Tensor) -> Tensor:
        device = next(self._network.parameters()).device
        return self._resize(in_colour(images.to(device)), self._network.size)


class StageDistance(PerceptualDistance):
    """LPIPS (Zhang et al. 2018, equation 1): at each of VGG16's five stages, activations are scaled to length 1 over units, and the squared
    differences are weighed by unit, averaged over positions and summed over stages. Without weights (units,) of the stages every unit of a
    stage counts the same, and every stage as much as another. It works where the network is.

    Raises:
        InputError: when called with images of two sizes, or too small for the five stages.
    """

    def __init__(
        self, network: Convolutions, key: str, resize: Callable[[Tensor], Tensor], weights: Sequence[Tensor] | None = None
    ) -> None:
        self.key = key
        self._network, self._resize = network, resize
        device = next(network.parameters()).device
        even = [torch.full((stage[-1],), 1.0 / stage[-1]) for stage in STAGES]
        self._weights = [weight.to(device) for weight in weights or even]

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        if first.shape != second.shape:
            raise InputError("Only images of one size can be compared", f"{tuple(first.shape)} and {tuple(second.shape)}", "one shape")
        with scored_pass():
            pairs = zip(self._stages(first), self._stages(second), self._weights, strict=True)
            differences = [((a - b).square(), weight) for a, b, weight in pairs]
            return torch.stack([torch.einsum("nuhw,u->nhw", *one).mean(dim=(1, 2)) for one in differences]).sum(dim=0)

    def _stages(self, images: Tensor) -> list[Tensor]:
        """Activations of unit length over units."""
        images = self._resize(in_colour(images.to(self._weights[0].device)))
        if min(images.shape[2:]) < _LEAST:
            found, needed = "×".join(map(str, images.shape[2:])), f"at least {_LEAST}×{_LEAST}: it is halved between five stages"
            remedy = "take random-vgg16-32, which brings images to 32×32, or no distance"
            raise InputError("These images are too small for this distance", found, needed, remedy)
        stages = self._network.stages(images)
        return [one / (one.norm(dim=1, keepdim=True) + 1e-10) for one in stages]


def vgg16_of(weights: Weights) -> VGG16:
    """The network up to fc2, on the CPU. Raises `CheckpointError` where these are other weights, or only convolutions."""
    network = VGG16()
    network.convolutions = convolutions_of(weights)
    names = ("layers.fc1", "layers.fc2") if "layers.fc1.weight" in weights.tensors else ("classifier.0", "classifier.3")
    for layer, name in zip(network.dense, names, strict=True):
        weights.fill(layer, name)
    return network


def convolutions_of(weights: Weights) -> Convolutions:
    """The convolutions alone, on the CPU. Raises `CheckpointError` where these are other weights."""
    network = Convolutions()
    if "layers.conv1.weight" in weights.tensors:
        names = [f"layers.conv{index}" for index in range(1, len(_WIDTHS))]
    else:
        numbered = {int(found[1]): name.removesuffix(".weight") for name in weights.tensors if (found := _BY_INDEX.fullmatch(name))}
        names = [numbered[index] for index in sorted(numbered)]
    if len(names) != len(network.layers):
        raise weights.wrong(f"tensors {', '.join(list(weights.tensors)[:4])} …", _FORMS)
    for layer, name in zip(network.layers, names, strict=True):
        weights.fill(layer, name)
    return network


def lpips_weights_of(weights: Weights) -> list[Tensor]:
    """Weight of each unit (units,), one tensor a stage. Raises `CheckpointError` where there are none."""
    found = []
    for index, (*_, units) in enumerate(STAGES):
        shapes = {f"lpips{index}": (units, 1, 1), f"lin{index}.model.1.weight": (1, units, 1, 1)}
        name = next((one for one in shapes if one in weights.tensors), None)
        if name is None:
            raise weights.wrong("no LPIPS weights", _LPIPS_FORMS)
        found.append(weights.take(name, *shapes[name]).flatten())
    return found


@lru_cache(maxsize=1)  # drawing takes seconds; the network is frozen, and copied to other devices
def random_vgg16(size: int) -> VGG16:
    """A VGG16 with random weights for images of this size, on the CPU; its convolutions are the same for every size."""
    network = VGG16(size).to_empty(device="cpu")
    network.convolutions = random_convolutions()
    for index, layer in enumerate(network.dense, start=len(network.convolutions.layers)):
        _draw(layer, index)
    return network


@lru_cache(maxsize=1)
def random_convolutions() -> Convolutions:
    convolutions = Convolutions().to_empty(device="cpu")
    for index, layer in enumerate(convolutions.layers):
        _draw(layer, index)
    return convolutions


def _draw(layer: nn.Module, index: int) -> None:
    """Fill a layer with He's normal distribution, from the stream of its place in the network. Each unit owns its stretch of the
    stream, however many are drawn at once."""
    assert isinstance(layer, (nn.Conv2d, nn.Linear))
    assert layer.bias is not None
    shape = layer.weight.shape
    inputs = math.prod(shape[1:])
    weight = np.empty((shape[0], inputs), dtype=np.float32)
    step = max(1, _DRAWN_AT_ONCE // inputs)
    for start in range(0, len(weight), step):
        units = np.arange(start, min(start + step, len(weight)))
        weight[units] = normals(SEED, Purpose.EMBEDDING + 16 * index, units, inputs) * math.sqrt(2.0 / inputs)
    layer.weight.copy_(torch.from_numpy(weight).view(shape))
    layer.bias.zero_()
