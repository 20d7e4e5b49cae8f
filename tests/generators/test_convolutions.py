"""FIR resampling against its definition, zeros and all; convolutions by position and the doubling one against the library's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from qualitygate.generators import convolutions
from qualitygate.generators.convolutions import conv_3x3, conv_transpose_4x4_stride_2, downsampled, upfirdn, upsampled


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


@pytest.mark.parametrize(
    ("samples", "size", "by_position"),
    [(128, (1, 1), True), (130, (2, 3), True), (128, (8, 8), True), (127, (4, 4), False), (128, (8, 9), False)],
)
@pytest.mark.parametrize("biased", [True, False])
def test_both_forms_are_the_convolution(
    samples: int, size: tuple[int, int], by_position: bool, biased: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(samples, 3, *size), torch.randn(5, 3, 3, 3), torch.randn(5) if biased else None
    taken = []
    convolved = convolutions.convolved
    monkeypatch.setattr(convolutions, "convolved", lambda *inputs: taken.append(1) or convolved(*inputs))
    result = conv_3x3(x, weight, bias)
    assert bool(taken) == by_position
    truth = F.conv2d(x.double(), weight.double(), None if bias is None else bias.double(), padding=1)
    assert torch.allclose(result.double(), truth, atol=1e-5)


def test_gradients_flow_where_they_are_wanted() -> None:
    x = torch.randn(128, 4, 4, 4, requires_grad=True)
    conv_3x3(x, torch.randn(3, 4, 3, 3)).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0


@pytest.mark.parametrize(("size", "by_positions"), [((1, 1), True), ((2, 3), True), ((4, 4), True), ((4, 5), False)])
def test_both_forms_are_the_transposed_convolution(size: tuple[int, int], by_positions: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(5, 3, *size), torch.randn(4, 4, 3, 7), torch.randn(7)
    truth = F.conv_transpose2d(x.double(), weight.permute(2, 3, 0, 1).double(), bias.double(), stride=2, padding=1)
    taken = []
    products = convolutions.convolved
    monkeypatch.setattr(convolutions, "convolved", lambda *inputs: taken.append(1) or products(*inputs))
    result = conv_transpose_4x4_stride_2(x, weight, bias)
    assert bool(taken) == by_positions
    assert torch.allclose(result.double(), truth, atol=1e-5)


def test_gradients_flow_through_the_doubling_where_they_are_wanted() -> None:
    x = torch.randn(2, 64, 4, 4, requires_grad=True)
    conv_transpose_4x4_stride_2(x, torch.randn(4, 4, 64, 3), torch.zeros(3)).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0
