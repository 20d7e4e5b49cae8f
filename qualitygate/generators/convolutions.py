"""What families convolve with: filters that resample, and small convolutions in the form that suits the device.

Resampling follows the definition of the StyleGAN papers: insert zeros between samples, pad, convolve with the filter, keep every n-th
sample. The zeros are never made: a transposed convolution visits only the samples that exist.

3×3 convolutions, and transposed 4×4 ones of stride 2, use the library's kernels on a GPU, and on the CPU but for small outputs: there these
reach about 60 % of the matrix rate, and multiply the padding too, so it is a matrix product for each output position and tap instead.
Activations stand as (height, width, samples, units), so that an input position is a matrix already: nothing is copied, and nothing outside
the border is computed. Not where gradients are wanted, which products in place cannot give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import repeat

import torch
import torch.nn.functional as F
from torch import Tensor


@cache
def binomial(device: torch.device, dtype: torch.dtype) -> Tensor:
    """StyleGAN2's filter (4,), summing to 1. Brought to a device once: each time is a wait for it."""
    with torch.inference_mode(False):  # whoever comes first, it is for gradients too
        return torch.tensor((0.125, 0.375, 0.375, 0.125), device=device, dtype=dtype)


def upfirdn(x: Tensor, taps: Tensor, *, up: int = 1, down: int = 1, padding: tuple[int, int] = (0, 0), gain: float = 1.0) -> Tensor:
    """``up``-fold zero insertion, padding, convolution with ``taps``, every ``down``-th sample; alike along both axes.

    Args:
        x: (N, C, height, width).
        taps: filter, (t,) for a separable one or (t, t).
        padding: zeros before and after, counted in up-sampled samples; negative crops.
        gain: factor of the result; ``up**2`` keeps the mean of a signal.

    Returns:
        (N, C, height', width') with ``height' = ⌊(up·height + sum(padding) − t) / down⌋ + 1``.
    """
    if taps.ndim == 2:
        return _convolved(x, taps * gain, (up, up), (down, down), (padding, padding))
    rows = _convolved(x, taps[:, None] * gain, (up, 1), (down, 1), (padding, (0, 0)))
    return _convolved(rows, taps[None, :], (1, up), (1, down), ((0, 0), padding))


def upsampled(x: Tensor) -> Tensor:
    """Twice the size (N, C, 2·height, 2·width), with StyleGAN2's filter."""
    taps = 2.0 * binomial(x.device, x.dtype)
    return upfirdn(x, taps[:, None] * taps, up=2, padding=(2, 1))


def downsampled(x: Tensor) -> Tensor:
    """Half the size (N, C, height/2, width/2), with StyleGAN2's filter."""
    taps = binomial(x.device, x.dtype)
    return upfirdn(x, taps[:, None] * taps, down=2, padding=(1, 1))


def blurred(x: Tensor, padding: tuple[int, int], gain: float = 1.0) -> Tensor:
    """StyleGAN2's filter at the same resolution: (N, C, height + sum(padding) − 3, width + sum(padding) − 3)."""
    taps = gain**0.5 * binomial(x.device, x.dtype)
    return upfirdn(x, taps[:, None] * taps, padding=padding)


Pair = tuple[int, int]


def _convolved(x: Tensor, kernel: Tensor, up: Pair, down: Pair, padding: tuple[Pair, Pair]) -> Tensor:
    """The definition with a two-dimensional kernel: a depthwise convolution, transposed where ``up`` is more than 1."""
    channels = x.shape[1]
    if up == (1, 1):
        x = F.pad(x, (*padding[1], *padding[0]))
        return F.conv2d(x, kernel.flip(0, 1).expand(channels, 1, -1, -1), stride=down, groups=channels)
    # the transposed convolution gives every position that the filter touches; margins say which more (fewer, if negative) are wanted
    full = F.conv_transpose2d(x, kernel.expand(channels, 1, -1, -1), stride=up, groups=channels)
    margins = []
    for axis in (1, 0):  # as `F.pad` wants them
        (before, after), size, taps = padding[axis], x.shape[2 + axis], kernel.shape[axis]
        margins += [before - (taps - 1), (up[axis] * size + after) - (up[axis] * (size - 1) + taps)]
    return F.pad(full, margins)[:, :, :: down[0], :: down[1]]


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
    """The output (N, outputs), a position at a time in order of rows, of x (N, inputs, height, width), taps (k, k, inputs, outputs) and
    bias (outputs,), with `doubling` or `keeping`. It is put into ``places``; by default all in one place, each over the one before.

    All taps of a position come in a row: what is added to is still in the cache.
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


def conv_transpose_4x4_stride_2(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Output (N, outputs, 2·height, 2·width) of x (N, inputs, height, width) with weight (4, 4, inputs, outputs)."""
    if runs_by_positions(4 * x.shape[2] * x.shape[3], x, weight, bias):
        return convolved(x, weight, bias, doubling)
    x, kernel = x.contiguous(memory_format=torch.channels_last), weight.permute(2, 3, 0, 1)
    return F.conv_transpose2d(x, kernel, bias, stride=2, padding=1)


def nearest_then_3x3(weight: Tensor) -> Tensor:
    """Weight (4, 4, inputs, outputs) with which `conv_transpose_4x4_stride_2` is nearest ×2 up-sampling and a 3×3 convolution with padding
    1 of this weight (outputs, inputs, 3, 3): 4 multiply-adds an output position in place of 9. Computed in float64, rounded once."""
    # along one side: each tap of the transposed kernel is the sum of those of 3 taps that read the same input once doubled
    taps = weight.new_tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], dtype=torch.float64)
    return torch.einsum("ya,xb,oiab->yxio", taps, taps, weight.double()).to(weight.dtype)
