"""FIR resampling against its definition, written out with the zeros."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from qualitygate.generators.resampling import downsampled, upfirdn, upsampled


def by_definition(x: Tensor, taps: Tensor, up: int, down: int, padding: tuple[int, int], gain: float) -> Tensor:
    samples, channels, height, width = x.shape
    zeros = x.new_zeros(samples, channels, height * up, width * up)
    zeros[:, :, ::up, ::up] = x
    kernel = taps if taps.ndim == 2 else taps[:, None] * taps
    padded = F.pad(zeros, (*padding, *padding)).flatten(0, 1)[:, None]
    full = F.conv2d(padded, kernel.flip(0, 1)[None, None] * gain).unflatten(0, (samples, channels))[:, :, 0]
    return full[:, :, ::down, ::down]


@pytest.mark.parametrize("up", [1, 2, 3])
@pytest.mark.parametrize("down", [1, 2])
@pytest.mark.parametrize("padding", [(2, 1), (0, 0), (5, 6), (-2, 1), (1, -3)])
@pytest.mark.parametrize("shape", [(4,), (4, 4)])
def test_upfirdn(up: int, down: int, padding: tuple[int, int], shape: tuple[int, ...]) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 7, 8, generator=random, dtype=torch.float64)
    taps = torch.randn(shape, generator=random, dtype=torch.float64)
    ours = upfirdn(x, taps, up=up, down=down, padding=padding, gain=1.5)
    torch.testing.assert_close(ours, by_definition(x, taps, up, down, padding, 1.5))


def test_a_constant_stays_constant_away_from_the_border() -> None:
    x = torch.ones(1, 1, 8, 8)
    assert upsampled(x).shape == (1, 1, 16, 16)
    torch.testing.assert_close(upsampled(x)[:, :, 2:-2, 2:-2], torch.ones(1, 1, 12, 12))
    assert downsampled(x).shape == (1, 1, 4, 4)
    torch.testing.assert_close(downsampled(x)[:, :, 1:-1, 1:-1], torch.ones(1, 1, 2, 2))
