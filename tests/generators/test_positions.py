"""Convolutions by position against the library's, at every border."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from qualitygate.generators import positions
from qualitygate.generators.positions import conv_3x3


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
    convolved = positions.convolved
    monkeypatch.setattr(positions, "convolved", lambda *inputs: taken.append(1) or convolved(*inputs))
    result = conv_3x3(x, weight, bias)
    assert bool(taken) == by_position
    truth = F.conv2d(x.double(), weight.double(), None if bias is None else bias.double(), padding=1)
    assert torch.allclose(result.double(), truth, atol=1e-5)


def test_gradients_flow_where_they_are_wanted() -> None:
    x = torch.randn(128, 4, 4, 4, requires_grad=True)
    conv_3x3(x, torch.randn(3, 4, 3, 3)).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0
