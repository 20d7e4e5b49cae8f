"""Transposed 4×4 convolution of stride 2 and padding 1: the doubling step of DCGAN, in the form that suits the device.

Of the 16 kernel taps an output position reads 4 (fewer at the border). On a GPU the library's kernel is used. On the CPU, where the
library reaches about 60 % of the matrix rate at small sizes, it is a matrix product for each output position and tap, on
activations stored as (height, width, samples, units), which needs no copies, and no work outside the border; except where gradients are
wanted, which the products in place cannot give.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

_TAPS_3_TO_4 = ((0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.0, 0.0))
"""Along one side: each tap of the transposed kernel is the sum of those of 3 taps that read the same input once doubled."""

_SMALL = 4 * 4
"""Largest input area computed as matrix products; beyond it the library's convolution is the faster one."""


def conv_transpose_4x4_stride_2(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Output (N, outputs, 2·height, 2·width) of x (N, inputs, height, width) with weight (4, 4, inputs, outputs)."""
    if runs_by_positions(x.shape[2] * x.shape[3], x, weight, bias):
        return _by_positions(x, weight, bias)
    x, kernel = x.contiguous(memory_format=torch.channels_last), weight.permute(2, 3, 0, 1)
    return F.conv_transpose2d(x, kernel, bias, stride=2, padding=1)


def runs_by_positions(area: int, *tensors: Tensor) -> bool:
    """Whether an input of so many positions is convolved by position, given the tensors that take part."""
    differentiated = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    return area <= _SMALL and all(tensor.device.type == "cpu" for tensor in tensors) and not differentiated


def nearest_then_3x3(weight: Tensor) -> Tensor:
    """Weight (4, 4, inputs, outputs) with which `conv_transpose_4x4_stride_2` is nearest ×2 up-sampling and a convolution.

    The convolution is 3×3 with padding 1, of this weight (outputs, inputs, 3, 3). 4 multiply-adds an output position in place
    of 9. Computed in float64, rounded once.
    """
    taps = torch.tensor(_TAPS_3_TO_4, dtype=torch.float64, device=weight.device)
    return torch.einsum("ya,xb,oiab->yxio", taps, taps, weight.double()).to(weight.dtype)


def _by_positions(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    outputs = x.new_empty(2 * x.shape[2], 2 * x.shape[3], x.shape[0], weight.shape[3])
    for _ in positions(x, weight, bias, outputs.flatten(0, 1).unbind()):
        pass
    return outputs.permute(2, 3, 0, 1)


def positions(x: Tensor, weight: Tensor, bias: Tensor, places: Iterable[Tensor]) -> Iterator[Tensor]:
    """The doubled output of x (N, inputs, height, width), an output position at a time: each of ``places`` (N, outputs), filled.

    All taps of a position come in a row: what is added to is still in the cache.
    """
    _, _, height, width = x.shape
    inputs = x.permute(2, 3, 0, 1).contiguous().flatten(0, 1).unbind()
    taps = weight.flatten(0, 1).unbind()
    read = [(rows, columns) for rows in _readers(height) for columns in _readers(width)]
    for (rows, columns), place in zip(read, places, strict=False):
        (at, tap), *more = [(width * y + x, 4 * a + b) for y, a in rows for x, b in columns]
        torch.addmm(bias, inputs[at], taps[tap], out=place)
        for at, tap in more:
            place.addmm_(inputs[at], taps[tap])
        yield place


def _readers(size: int) -> list[list[tuple[int, int]]]:
    """For each output position along one side, the (input position, tap) pairs it reads: output = 2·input − 1 + tap."""
    return [[(at, out + 1 - 2 * at) for at in range(size) if 0 <= out + 1 - 2 * at < 4] for out in range(2 * size)]
