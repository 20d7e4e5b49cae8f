"""Up- and down-sampling with a finite impulse response filter, in plain torch.

The definition is the one of the StyleGAN papers: insert zeros between samples, pad, convolve with the filter, keep
every n-th sample. The zeros are never made: a transposed convolution visits only the samples that exist.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BINOMIAL = (1.0, 3.0, 3.0, 1.0)
"""The filter of StyleGAN2, before normalisation to sum 1."""


def binomial(like: Tensor) -> Tensor:
    """StyleGAN2's filter (4,), summing to 1, with the device and dtype of ``like``."""
    return torch.tensor(BINOMIAL, device=like.device, dtype=like.dtype) / sum(BINOMIAL)


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
    taps = 2.0 * binomial(x)
    return upfirdn(x, taps[:, None] * taps, up=2, padding=(2, 1))


def downsampled(x: Tensor) -> Tensor:
    """Half the size (N, C, height/2, width/2), with StyleGAN2's filter."""
    taps = binomial(x)
    return upfirdn(x, taps[:, None] * taps, down=2, padding=(1, 1))


def blurred(x: Tensor, padding: tuple[int, int], gain: float = 1.0) -> Tensor:
    """StyleGAN2's filter at the same resolution: (N, C, height + sum(padding) − 3, width + sum(padding) − 3)."""
    taps = gain**0.5 * binomial(x)
    return upfirdn(x, taps[:, None] * taps, padding=padding)


Pair = tuple[int, int]


def _convolved(x: Tensor, kernel: Tensor, up: Pair, down: Pair, padding: tuple[Pair, Pair]) -> Tensor:
    """The definition with a two-dimensional kernel: a depthwise convolution, transposed where ``up`` is more than 1."""
    channels = x.shape[1]
    if up == (1, 1):
        x = F.pad(x, (*padding[1], *padding[0]))
        return F.conv2d(x, kernel.flip(0, 1).expand(channels, 1, -1, -1), stride=down, groups=channels)
    # the transposed convolution gives every position that the filter touches; padding says which of them are wanted
    full = F.conv_transpose2d(x, kernel.expand(channels, 1, -1, -1), stride=up, groups=channels)
    (top, bottom), (left, right) = (_margins(x.shape[2 + axis], kernel.shape[axis], up[axis], padding[axis]) for axis in (0, 1))
    return F.pad(full, (left, right, top, bottom))[:, :, :: down[0], :: down[1]]


def _margins(size: int, taps: int, up: int, padding: Pair) -> Pair:
    """How many samples more (fewer, if negative) the definition has at either end than the full convolution."""
    before, after = padding
    return before - (taps - 1), (up * size + after) - (up * (size - 1) + taps)
