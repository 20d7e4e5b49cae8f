"""BigGAN-deep (Brock, Donahue, Simonyan 2019, appendix B) as in Hugging Face's pytorch-pretrained-BigGAN.

A layer is the ReLU after a batch norm: four in each block (``block0.relu1`` before the narrowing 1×1 convolution, ``relu2`` and
``relu3`` before the 3×3 convolutions, ``relu4`` before the widening 1×1 convolution; a doubling block doubles between ``relu2`` and
``relu3``), and ``output.relu`` before the output convolution. The shortcut around a block passes an edit by: see `ResidualGenerator`.

Batch-norm statistics are stored for a row of truncations; the one in use is ``latents.sampling.psi``. Between two rows
the released code blends with the weights swapped (at 0.433 it takes 0.65 of row 0.42 and 0.35 of row 0.44). Published
numbers and images depend on it, so it is done here too, with the same rounding of psi/step.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualitygate.generators.base import State
from qualitygate.generators.network import settings_of
from qualitygate.generators.residual import ResidualBlock, ResidualGenerator, SelfAttention, UpsamplingConv, operations
from qualitygate.latents import Latents

BOTTOM_WIDTH = 4
NARROWING = 4  # a block's 3×3 convolutions have so many times fewer units than its input


class _Carry(NamedTuple):
    """Input of the current block; z and embedded label (N, features); the two rows of the statistics (N, 2) int64 and
    the share of the first (N, 1)."""

    shortcut: Tensor
    condition: Tensor
    rows: Tensor
    share: Tensor


class _Statistics(nn.Module):
    """Means and variances of batch norm, a row for each truncation. The variances hold ε already."""

    mean: Tensor
    variance: Tensor

    def __init__(self, rows: int, units: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(rows, units))
        self.register_buffer("variance", torch.ones(rows, units))

    def forward(self, carry: _Carry) -> list[Tensor]:
        """Mean and variance (N, units), blended."""
        (first, second), share = carry.rows.unbind(1), carry.share
        return [rows[first] * share + rows[second] * (1.0 - share) for rows in (self.mean, self.variance)]


class _Norm(nn.Module):
    """Batch norm with gain and offset linear in the condition, the gain around 1; of its own where ``condition`` is 0."""

    gain: Any
    offset: Any

    def __init__(self, rows: int, units: int, condition: int) -> None:
        super().__init__()
        self.statistics = _Statistics(rows, units)
        self.gain = nn.Linear(condition, units, bias=False) if condition else nn.Parameter(torch.ones(units))
        self.offset = nn.Linear(condition, units, bias=False) if condition else nn.Parameter(torch.zeros(units))

    def forward(self, x: Tensor, carry: _Carry) -> Tensor:
        gain, offset = self.gain, self.offset
        if isinstance(gain, nn.Linear):
            gain, offset = 1.0 + gain(carry.condition), offset(carry.condition)
        mean, variance = self.statistics(carry)
        scale = gain * variance.rsqrt()
        shift = offset - mean * scale
        return torch.addcmul(shift[:, :, None, None], x, scale[:, :, None, None])


class _Block(ResidualBlock):
    """Bottleneck block: 1×1, 3×3, 3×3, 1×1 convolutions. The shortcut drops the last units where the block has fewer outputs."""

    def __init__(self, inputs: int, outputs: int, doubles: bool) -> None:
        super().__init__()
        narrow = inputs // NARROWING
        self.doubles = doubles
        wide = UpsamplingConv(narrow, narrow) if doubles else nn.Conv2d(narrow, narrow, 3, padding=1)
        self.convs = nn.ModuleList([nn.Conv2d(inputs, narrow, 1), wide, nn.Conv2d(narrow, narrow, 3, padding=1)])
        self.last = nn.Conv2d(narrow, outputs, 1)

    def close(self, activation: Tensor, block_input: Tensor) -> Tensor:
        shortcut = block_input[:, : self.last.out_channels]
        if self.doubles:
            shortcut = F.interpolate(shortcut, scale_factor=2.0, mode="nearest")
        return self.last(activation).add_(shortcut)

    def close_operations(self, size: int) -> int:
        return operations(self.last, size)


class BigGANDeep(ResidualGenerator):
    """Every axis of z reaches every layer: z and the embedded label are read whole by the first linear layer and by every block.

    Args:
        units: of the first block's input, then of every block's output (the same or half of the input's).
        doubles: whether each block doubles the size.
        attention: numbers of the blocks that are followed by self-attention.
        statistics: rows of batch-norm statistics, for truncations evenly spaced from 0 to 1.
    """

    family = "biggan-deep"
    steps = 4

    def __init__(
        self,
        latent_size: int,
        label_size: int,
        label_features: int,
        units: list[int],
        doubles: list[bool],
        attention: list[int],
        statistics: int = 51,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        self.settings = settings_of(locals())
        self.latent_size, self.label_size = latent_size, label_size
        self._step = 1.0 / (statistics - 1)
        condition = latent_size + label_features

        self.embedding = nn.Linear(label_size, label_features, bias=False)
        self.linear = nn.Linear(condition, units[0] * BOTTOM_WIDTH**2)
        self.blocks = nn.ModuleList(_Block(inputs, outputs, up) for inputs, outputs, up in zip(units[:-1], units[1:], doubles, strict=True))
        self.attention = nn.ModuleDict({str(block): SelfAttention(units[block + 1]) for block in attention})
        normalised = [count for inputs in units[:-1] for count in (inputs, *[inputs // NARROWING] * 3)]
        self.norms = nn.ModuleList(_Norm(statistics, count, condition) for count in normalised)
        self.norms.append(_Norm(statistics, units[-1], 0))
        self.to_rgb = nn.Conv2d(units[-1], image_channels, 3, padding=1)
        start = operations(self.embedding) + operations(self.linear)
        self._describe(start, BOTTOM_WIDTH, [*normalised, units[-1]])

    def begin(self, latents: Latents) -> State:
        label = self.tap("label", self.embedding(self.label_vectors(latents)))
        condition = torch.cat((latents.z, label), dim=1)
        x = self.tap("linear", self.linear(condition).unflatten(1, (-1, BOTTOM_WIDTH, BOTTOM_WIDTH)))
        share, row = math.modf(latents.sampling.psi / self._step)
        rows = (int(row), int(row) + 1) if share else (int(row), int(row))
        both = torch.tensor(rows, device=x.device).expand(len(latents), 2)
        return State(-1, x, _Carry(x, condition, both, x.new_full((len(latents), 1), share)))

    def _normalised(self, index: int, x: Tensor, carry: _Carry) -> Tensor:
        return self.norms[index](x, carry)
