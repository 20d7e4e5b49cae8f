"""VGG16 with random weights: an embedding that needs no file and knows no data set (Naeem et al. 2020, "Reliable
fidelity and diversity metrics for generative models").

They embed with an untrained VGG16 at 224×224 and report its fc2 activation beside ImageNet's, for images that ImageNet
has nothing to say about. Here the input size is free and part of the name: the first fully connected layer reads what
the convolutions leave of it (at 32×32 one position in place of 7×7). They leave the draw to their framework; here it is
written down: He's normal distribution (He et al. 2015: variance 2 / fan-in, biases 0) in every layer, from our own
stream of random numbers, so that the embedding is the same in every version of every library.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from qualitygate.features.vgg16 import VGG16, Convolutions
from qualitygate.latents import Purpose, normals

SEED = 0
_DRAWN_AT_ONCE = 2**21


@lru_cache(maxsize=1)  # drawing takes seconds; the network is frozen, and copied to other devices
def random_vgg16(size: int) -> VGG16:
    """A VGG16 for images of this size, on the CPU; its convolutions are the same for every size.

    Raises:
        InputError: the size is no multiple of 32.
    """
    network = VGG16(size).to_empty(device="cpu")
    network.convolutions = random_convolutions()
    for index, layer in enumerate(network.dense, start=len(network.convolutions.layers)):
        _draw(layer, index)
    return network


@lru_cache(maxsize=1)
def random_convolutions() -> Convolutions:
    """The convolutions alone, on the CPU."""
    convolutions = Convolutions().to_empty(device="cpu")
    for index, layer in enumerate(convolutions.layers):
        _draw(layer, index)
    return convolutions


def _draw(layer: nn.Module, index: int) -> None:
    """Fill a layer from the stream of its place in the network."""
    assert isinstance(layer, (nn.Conv2d, nn.Linear))
    layer.weight.copy_(_he_normal(layer.weight.shape, Purpose.EMBEDDING + 16 * index))
    assert layer.bias is not None
    layer.bias.zero_()


def _he_normal(shape: torch.Size, stream: int) -> Tensor:
    """Weights (units, …). Each unit owns its stretch of the stream, however many are drawn at once."""
    inputs = math.prod(shape[1:])
    weight = np.empty((shape[0], inputs), dtype=np.float32)
    step = max(1, _DRAWN_AT_ONCE // inputs)
    for start in range(0, len(weight), step):
        units = np.arange(start, min(start + step, len(weight)))
        weight[units] = normals(SEED, stream, units, inputs) * math.sqrt(2.0 / inputs)
    return torch.from_numpy(weight).view(shape)
