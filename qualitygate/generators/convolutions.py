"""Convolutions of small inputs in the form that suits the device: 3×3, and transposed 4×4 of stride 2.

On a GPU the library's kernels are used, and so they are on the CPU but for small outputs: these reach about 60 % of the matrix rate, and
multiply the padding too. There it is a matrix product for each output position and tap instead. Activations stand as (height, width,
samples, units), so that an input position is a matrix already: nothing is copied, and nothing outside the border is computed. Not where
gradients are wanted, which products in place cannot give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat

import torch
import torch.nn.functional as F
from torch import Tensor

Readers = Sequence[Sequence[tuple[int, int]]]
"""Along one side: for each output position, the (input position, tap) pairs it reads."""

_AREA = 8 * 8  # largest output computed so; beyond it the library's convolution is the faster one
_SAMPLES = 128  # fewest that are worth bringing the weights of a 3×3 convolution into order


def runs_by_positions(area: int, *tensors: Tensor) -> bool:
    """Whether an output of so many positions is computed by position, given the tensors that take part."""
    differentiated = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    return area <= _AREA and all(tensor.device.type == "cpu" for tensor in tensors) and not differentiated


def doubling(size: int) -> Readers:
    """Of a transposed convolution with 4 taps, stride 2 and padding 1: output = 2 · input − 1 + tap."""
    return [[(at, out + 1 - 2 * at) for at in range(size) if 0 <= out + 1 - 2 * at < 4] for out in range(2 * size)]


def keeping(size: int) -> Readers:
    """Of a convolution with 3 taps and padding 1: input = output + tap − 1."""
    return [[(out + tap - 1, tap) for tap in range(3) if 0 <= out + tap - 1 < size] for out in range(size)]


def by_positions(
    x: Tensor, taps: Tensor, bias: Tensor, readers: Callable[[int], Readers], places: Iterable[Tensor] | None = None
) -> Iterator[Tensor]:
    """The output (N, outputs), a position at a time in order of rows.

    All taps of a position come in a row: what is added to is still in the cache.

    Args:
        x: (N, inputs, height, width).
        taps: (k, k, inputs, outputs).
        bias: (outputs,).
        readers: what is read along a side of that length: `doubling` or `keeping`.
        places: where to put each position; by default all in one place, each over the one before.
    """
    height, width = x.shape[2:]
    if places is None:
        places = repeat(x.new_empty(len(x), len(bias)))
    inputs = x.permute(2, 3, 0, 1).contiguous().flatten(0, 1).unbind()
    matrices = taps.flatten(0, 1).contiguous().unbind()
    pairs = ((rows, columns) for rows in readers(height) for columns in readers(width))
    for (rows, columns), place in zip(pairs, places, strict=False):
        (at, tap), *more = [(width * y + x, len(taps) * a + b) for y, a in rows for x, b in columns]
        torch.addmm(bias, inputs[at], matrices[tap], out=place)
        for at, tap in more:
            place.addmm_(inputs[at], matrices[tap])
        yield place


def convolved(x: Tensor, taps: Tensor, bias: Tensor, readers: Callable[[int], Readers]) -> Tensor:
    """The output (N, outputs, height, width) as one tensor, its units next to one another in memory."""
    outputs = x.new_empty(len(readers(x.shape[2])), len(readers(x.shape[3])), len(x), taps.shape[3])
    for _ in by_positions(x, taps, bias, readers, outputs.flatten(0, 1).unbind()):
        pass
    return outputs.permute(2, 3, 0, 1)


def conv_3x3(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolution with padding 1 of x (N, inputs, height, width) with weight (outputs, inputs, 3, 3), in the form that suits the device."""
    if len(x) < _SAMPLES or not runs_by_positions(x.shape[2] * x.shape[3], x, weight):
        x = x.contiguous(memory_format=torch.channels_last) if x.is_cuda else x  # what its matrix units read
        return F.conv2d(x, weight, bias, padding=1)
    return convolved(x, weight.permute(2, 3, 1, 0), x.new_zeros(len(weight)) if bias is None else bias, keeping)


_TAPS_3_TO_4 = ((0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.0, 0.0))
"""Along one side: each tap of the transposed kernel is the sum of those of 3 taps that read the same input once doubled."""


def conv_transpose_4x4_stride_2(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Output (N, outputs, 2·height, 2·width) of x (N, inputs, height, width) with weight (4, 4, inputs, outputs)."""
    if runs_by_positions(4 * x.shape[2] * x.shape[3], x, weight, bias):
        return convolved(x, weight, bias, doubling)
    x, kernel = x.contiguous(memory_format=torch.channels_last), weight.permute(2, 3, 0, 1)
    return F.conv_transpose2d(x, kernel, bias, stride=2, padding=1)


def nearest_then_3x3(weight: Tensor) -> Tensor:
    """Weight (4, 4, inputs, outputs) with which `conv_transpose_4x4_stride_2` is nearest ×2 up-sampling and a convolution.

    The convolution is 3×3 with padding 1, of this weight (outputs, inputs, 3, 3). 4 multiply-adds an output position in place
    of 9. Computed in float64, rounded once.
    """
    taps = torch.tensor(_TAPS_3_TO_4, dtype=torch.float64, device=weight.device)
    return torch.einsum("ya,xb,oiab->yxio", taps, taps, weight.double()).to(weight.dtype)
