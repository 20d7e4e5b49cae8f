"""The nonlinearity of StyleGAN3 (Karras et al. 2021, section 3.2): a LeakyReLU at a higher sampling rate, between two
low-pass filters.

A pointwise nonlinearity makes frequencies that the layer's grid cannot hold. So the signal is up-sampled, bent there,
and low-pass filtered while it is brought to the rate of the next layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from qualitygate.generators.resampling import upfirdn
from qualitygate.generators.styles import GAIN, SLOPE


@dataclass(frozen=True)
class Resampling:
    """Sizes and rates of one filtered LeakyReLU; everything is square.

    Attributes:
        inputs, outputs: size of what comes in and of what goes out.
        up, down: factors of the sampling rate.
        up_taps, down_taps: length of the filters.
        radial: the down filter is circular, (down_taps, down_taps), and not separable.
    """

    inputs: int
    outputs: int
    up: int
    down: int
    up_taps: int
    down_taps: int
    radial: bool

    @property
    def between(self) -> int:
        """Size at which the LeakyReLU is applied."""
        return (self.outputs - 1) * self.down + self.down_taps

    @property
    def padding(self) -> tuple[int, int]:
        """Zeros before and after, in up-sampled samples; negative crops. The output is centred on the input."""
        total = self.between + self.up_taps - 1 - self.inputs * self.up
        before = (total + self.up) // 2
        return before, total - before

    @property
    def operations(self) -> int:
        """Operations of one unit, 2 per multiply-add: a separable filter goes along one axis and then the other, and
        the inserted zeros cost nothing."""
        up = self.between * (self.inputs + self.between) * self.up_taps // self.up
        separable = self.outputs * (self.between + self.outputs) * self.down_taps
        down = self.outputs**2 * self.down_taps**2 if self.radial else separable
        return 2 * (up + down)


def filtered_lrelu(x: Tensor, up_filter: Tensor, down_filter: Tensor, plan: Resampling, clamp: float | None) -> Tensor:
    """Up-sampling, LeakyReLU·√2 clamped to ±``clamp`` (None: not), down-sampling.

    Args:
        x: (N, units, plan.inputs, plan.inputs), the bias added.
        up_filter: (plan.up_taps,).
        down_filter: (plan.down_taps,), or square where ``plan.radial``.

    Returns:
        (N, units, plan.outputs, plan.outputs).
    """
    x = upfirdn(x, up_filter, up=plan.up, padding=plan.padding, gain=plan.up**2)
    x = F.leaky_relu_(x, SLOPE).mul_(GAIN)
    x = x if clamp is None else x.clamp_(-clamp, clamp)
    return upfirdn(x, down_filter, down=plan.down)
