"""Toy generators, and a toy feature extractor, with values one can work out by hand.

Every layer of a toy generator is ``act(W · x + b)`` with ``x`` the flattened activation before it and ``act`` a leaky ReLU, so

- a neuron of the first layer with weights ``a`` and bias ``b`` is active with probability ``Φ(b / |a|)`` over standard normal latents;
- along axis ``d`` it is piecewise linear, with its only change point at ``r = −(a·z + b) / a_d``.

>>> toy = ToyGenerator([[[3.0, 4.0]]], [[5.0]])
>>> float(toy.activation_probability())
0.8413447460685429
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualitygate.errors import InputError
from qualitygate.features.extractor import SpatialExtractor
from qualitygate.generators.base import Generator, Layer, Presets, State
from qualitygate.generators.passes import on_host
from qualitygate.latents import Latents


class ToyGenerator(Generator):
    """A chain of small dense layers. The image has one channel at the size of the last layer: ``tanh`` of the sum over its units.

    Args:
        weights: one matrix a layer, (neurons, inputs); the inputs of the first are z and, if there are classes, the one-hot label.
            Neurons are in the order unit, row, column.
        biases: one vector a layer, (neurons,).
        shapes: (units, height, width) of each layer; by default every neuron is a unit of 1×1.
        slope: of the leaky ReLU below 0; 0 is ReLU.
        label_size: number of classes; 0 for unconditional.

    Raises:
        InputError: weights, biases and shapes do not fit together.
    """

    family = "toy"

    def __init__(
        self,
        weights: Sequence[Tensor | Sequence[Sequence[float]]],
        biases: Sequence[Tensor | Sequence[float]],
        shapes: Sequence[tuple[int, int, int]] | None = None,
        *,
        slope: float = 0.0,
        label_size: int = 0,
    ) -> None:
        super().__init__()
        matrices = [torch.as_tensor(one, dtype=torch.float32) for one in weights]
        vectors = [torch.as_tensor(one, dtype=torch.float32) for one in biases]
        self.shapes = [(len(one), 1, 1) for one in vectors] if shapes is None else list(shapes)
        _check(matrices, vectors, self.shapes)
        self.weight = nn.ParameterList(nn.Parameter(one.clone(), requires_grad=False) for one in matrices)
        self.bias = nn.ParameterList(nn.Parameter(one.clone(), requires_grad=False) for one in vectors)
        self.slope, self.label_size = slope, label_size
        self.latent_size = matrices[0].shape[1] - label_size
        self.settings = {"shapes": [list(one) for one in self.shapes], "slope": slope, "label_size": label_size}
        self.image_shape = (1, self.shapes[-1][1], self.shapes[-1][2])
        spent = accumulate(2 * one.numel() for one in matrices)
        self.layers = tuple(Layer(i, f"layer{i}", *of, done) for i, (of, done) in enumerate(zip(self.shapes, spent, strict=True)))
        self.operations = self.layers[-1].operations + self.layers[-1].neurons
        self.presets = Presets.within(self.layers, (0, 1, 2), curvature=1, stop=len(self.layers))

    def begin(self, latents: Latents) -> State:
        x = torch.cat((latents.z, self.label_vectors(latents)), dim=1) if self.label_size else latents.z
        return State(-1, x[:, :, None, None])

    def advance(self, state: State) -> State:
        index = state.layer + 1
        before = F.linear(state.activation.flatten(1), self.weight[index], self.bias[index])
        activation = F.leaky_relu(before, self.slope).unflatten(1, self.shapes[index])
        return State(index, self.tap(f"activation/layer{index}", activation))

    def finish(self, state: State) -> Tensor:
        return torch.tanh(state.activation.sum(dim=1, keepdim=True))

    def activation_probability(self) -> Tensor:
        """Probability ``Φ(b / |a|)`` that each neuron of the first layer is active, over latents without truncation and uniform labels:
        float64 (units, height, width). A neuron with ``a = 0`` is active always or never."""
        weight, bias = self.weight[0].double(), self.bias[0].double()[:, None]
        a, offsets = weight.tensor_split([self.latent_size], dim=1)
        shifted = bias + offsets if self.label_size else bias
        length = a.norm(dim=1, keepdim=True)
        chance = torch.where(length > 0, torch.special.ndtr(shifted / length), (shifted > 0).double())
        return chance.mean(dim=1).reshape(self.shapes[0])


def random_toy(
    latent_size: int, shapes: Sequence[tuple[int, int, int]], *, slope: float = 0.0, label_size: int = 0, shift: float = 0.0, seed: int = 0
) -> ToyGenerator:
    """A toy of such layers (units, height, width), with seeded random weights that keep activations of order one. The shift is added to
    every bias; below 0 it makes activity rarer."""
    random = torch.Generator().manual_seed(seed)
    weights, biases, inputs = [], [], latent_size + label_size
    for units, height, width in shapes:
        neurons = units * height * width
        weights.append(torch.randn(neurons, inputs, generator=random) * (2.0 / inputs) ** 0.5)
        biases.append(torch.randn(neurons, generator=random) * 0.5 + shift)
        inputs = neurons
    return ToyGenerator(weights, biases, shapes, slope=slope, label_size=label_size)


def _check(weights: Sequence[Tensor], biases: Sequence[Tensor], shapes: Sequence[tuple[int, int, int]]) -> None:
    inputs = weights[0].shape[1] if weights and weights[0].ndim == 2 else 0
    fits = bool(weights) and len(weights) == len(biases) == len(shapes)
    for weight, bias, (units, height, width) in zip(weights, biases, shapes, strict=False):
        neurons = units * height * width
        fits = fits and weight.shape == (neurons, inputs) and bias.shape == (neurons,)
        inputs = neurons
    if not fits:
        found = f"weights {[tuple(one.shape) for one in weights]}, biases {[tuple(one.shape) for one in biases]}, shapes {list(shapes)}"
        raise InputError("The layers of the toy do not fit together", found, "for each layer (neurons, inputs), (neurons,) and its shape")


class PatchExtractor(SpatialExtractor):
    """One convolution and a ReLU: each feature is how well one of the filters (channels, image channels, size, size) fits a patch. As a
    vector, the mean over patches, which are ``stride`` pixels apart."""

    def __init__(self, filters: Tensor, stride: int) -> None:
        self._filters, self._stride = filters, stride
        self.channels = self.features = len(filters)
        digest = hashlib.sha256(on_host(filters).contiguous().numpy().tobytes()).hexdigest()
        self.key = f"patches {digest[:12]}, stride {stride}, float32"

    def __call__(self, images: Tensor) -> Tensor:
        return self.spatial(images).mean(dim=(2, 3))

    def spatial(self, images: Tensor) -> Tensor:
        filters = self._filters.to(images.device)
        return F.relu(F.conv2d(images, filters, stride=self._stride, padding=filters.shape[2] // 2))


def random_patches(image_channels: int, channels: int = 64, size: int = 7, stride: int = 4, seed: int = 0) -> PatchExtractor:
    """Seeded random filters of length 1."""
    filters = torch.randn(channels, image_channels, size, size, generator=torch.Generator().manual_seed(seed))
    return PatchExtractor(filters / filters.flatten(1).norm(dim=1)[:, None, None, None], stride)
