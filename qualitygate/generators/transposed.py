"""Transposed 4×4 convolution of stride 2 and padding 1: the doubling step of DCGAN, in the form that suits the device.

Of the 16 kernel taps an output position reads 4 (fewer at the border). On a GPU the library's kernel is used, and so it is on the CPU but
for small outputs, which are computed by position.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from qualitygate.generators.positions import convolved, doubling, runs_by_positions

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
