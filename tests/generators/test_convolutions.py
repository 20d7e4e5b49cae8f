"""Convolutions by position, and the doubling one: both forms against the library's, at every border."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from qualitygate.generators import convolutions
from qualitygate.generators.convolutions import conv_3x3, conv_transpose_4x4_stride_2


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
