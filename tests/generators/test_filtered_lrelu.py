"""The filtered LeakyReLU against its definition, zeros and all, and its operations against counting."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from qualitygate.generators.filtered_lrelu import Resampling, filtered_lrelu

PLANS = [
    Resampling(inputs=7, outputs=5, up=2, down=2, up_taps=6, down_taps=6, radial=False),
    Resampling(inputs=6, outputs=9, up=4, down=2, up_taps=12, down_taps=6, radial=False),
    Resampling(inputs=6, outputs=5, up=2, down=2, up_taps=6, down_taps=4, radial=True),
    Resampling(inputs=9, outputs=3, up=2, down=4, up_taps=4, down_taps=8, radial=False),
]


def filters(plan: Resampling) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = [plan.down_taps] * (2 if plan.radial else 1)
    return torch.rand(plan.up_taps, generator=generator), torch.rand(shape, generator=generator)


def square(taps: Tensor) -> Tensor:
    return taps if taps.ndim == 2 else taps[:, None] * taps


def by_definition(x: Tensor, up_filter: Tensor, down_filter: Tensor, plan: Resampling, clamp: float) -> Tensor:
    """One image: zeros inserted, padded or cropped, convolved, bent, convolved, thinned out."""
    size = x.shape[-1] * plan.up
    spread = torch.zeros(1, 1, size, size)
    spread[..., :: plan.up, :: plan.up] = x
    total = (plan.outputs - 1) * plan.down + plan.down_taps + plan.up_taps - 1 - size
    before = (total + plan.up) // 2
    padded = F.pad(spread, (before, total - before) * 2)
    high = F.conv2d(padded, square(up_filter).flip(0, 1)[None, None]) * plan.up**2
    bent = torch.where(high > 0, high, 0.2 * high) * 2**0.5
    low = F.conv2d(bent.clamp(-clamp, clamp), square(down_filter).flip(0, 1)[None, None])
    return low[..., :: plan.down, :: plan.down]


@pytest.mark.parametrize("plan", PLANS)
def test_equals_the_definition(plan: Resampling) -> None:
    x = torch.randn(2, 3, plan.inputs, plan.inputs, generator=torch.Generator().manual_seed(1))
    up_filter, down_filter = filters(plan)
    ours = filtered_lrelu(x, up_filter, down_filter, plan, clamp=8.0)
    assert ours.shape == (2, 3, plan.outputs, plan.outputs)
    for sample in range(2):
        for unit in range(3):
            expected = by_definition(x[sample, unit], up_filter, down_filter, plan, clamp=8.0)[0, 0]
            torch.testing.assert_close(ours[sample, unit], expected)


def test_a_constant_far_from_the_border_keeps_its_value() -> None:
    plan = PLANS[0]
    taps = torch.full((6,), 1 / 6)
    x = torch.stack((torch.full((7, 7), 3.0), torch.full((7, 7), -3.0)))[None]
    middle = filtered_lrelu(x, taps, taps, plan, clamp=256.0)[0, :, 2, 2]
    torch.testing.assert_close(middle, torch.tensor([3.0, -0.6]) * 2**0.5)


def test_the_clamp_can_be_left_out_and_has_an_effect() -> None:
    plan = PLANS[0]
    up_filter, down_filter = filters(plan)
    x = torch.ones(1, 1, 7, 7)
    free = filtered_lrelu(x, up_filter, down_filter, plan, clamp=None)
    assert torch.equal(filtered_lrelu(x, up_filter, down_filter, plan, clamp=1e6), free)
    clamped = filtered_lrelu(x, up_filter, down_filter, plan, clamp=0.5)
    torch.testing.assert_close(clamped[0, 0, 2, 2], 0.5 * square(down_filter).sum())


def test_the_input_is_left_alone() -> None:
    plan = PLANS[0]
    x = torch.randn(1, 2, 7, 7)
    before = x.clone()
    filtered_lrelu(x, *filters(plan), plan, clamp=1.0)
    assert torch.equal(x, before)


def test_operations_by_hand() -> None:
    plan = PLANS[0]
    assert plan.between == 14
    up = 14 * 7 * 3 + 14 * 14 * 3  # 3 of the 6 taps meet a sample, along one axis and then the other
    assert plan.operations == 2 * (up + 5 * 14 * 6 + 5 * 5 * 6)
    radial = PLANS[2]
    assert radial.between == 12
    assert radial.operations == 2 * (12 * 6 * 3 + 12 * 12 * 3 + 5 * 5 * 16)
