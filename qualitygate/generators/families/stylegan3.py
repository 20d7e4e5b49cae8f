"""StyleGAN3, configurations T and R (Karras et al. 2021, "Alias-Free Generative Adversarial Networks").

Fourier features placed by w, then modulated convolutions, each with a filtered LeakyReLU (section 3.2): a pointwise nonlinearity makes
frequencies that the layer's grid cannot hold, so the signal is up-sampled, bent there, and filtered while it is brought to the rate of the
next layer. A layer is what comes out: an activation's sign is that of the signal after its down-sampling filter. To-RGB is linear and part
of `finish`. There are no noise inputs: ``Sampling.noise`` has no effect.

The original normalises the styles of a layer over the whole batch, which makes a sample depend on the others beside it. Here they are
normalised per sample. Demodulation takes any factor of a sample's style out again, so the result is the same, to rounding.

Our choice of presets, as the papers have none: low-rate neurons in L0, L1 and L3; local activation in L0; sequential correction stops
at the last layer with a sampling rate of at most 32, which in the published configurations is the one whose bandwidth is that of a
16×16 image. (By size that would be no layer: L0 is 36×36 already, of which a margin of 10 on each side never reaches the image.)
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualitygate.generators.base import Presets, State, numbered
from qualitygate.generators.convolutions import upfirdn
from qualitygate.generators.network import settings_of
from qualitygate.generators.styles import GAIN, SLOPE, Dense, Mapping, StyleGenerator, ToRGB, demodulation, normalised, without_fp16
from qualitygate.latents import Latents


@dataclass(frozen=True)
class Resampling:
    """Sizes of what comes in and goes out of one filtered LeakyReLU, all square, factors of the sampling rate and lengths of the filters.
    A ``radial`` down filter is circular, (down_taps, down_taps), and not separable."""

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
        """Of one unit: a separable filter goes along one axis and then the other, and the inserted zeros cost nothing."""
        up = self.between * (self.inputs + self.between) * self.up_taps // self.up
        separable = self.outputs * (self.between + self.outputs) * self.down_taps
        down = self.outputs**2 * self.down_taps**2 if self.radial else separable
        return 2 * (up + down)


def filtered_lrelu(x: Tensor, up_filter: Tensor, down_filter: Tensor, plan: Resampling, clamp: float | None) -> Tensor:
    """Up-sampling, LeakyReLU·√2 clamped to ±``clamp`` (None: not), down-sampling: of x (N, units, plan.inputs, plan.inputs), its bias
    added, with filters (plan.up_taps,) and (plan.down_taps,), square where ``plan.radial``, to (N, units, plan.outputs, plan.outputs)."""
    x = upfirdn(x, up_filter, up=plan.up, padding=plan.padding, gain=plan.up**2)
    x = F.leaky_relu_(x, SLOPE).mul_(GAIN)
    x = x if clamp is None else x.clamp_(-clamp, clamp)
    return upfirdn(x, down_filter, down=plan.down)


LayerSettings = dict[str, Any]
"""``units``, ``size``, ``kernel``, and of `Resampling` ``up``, ``down``, ``up_taps``, ``down_taps``, ``radial``."""


class StyleGAN3(StyleGenerator):
    """The image has the size of the last layer, the Fourier features that of the first.

    Args:
        latent_size, mapping, label_size, label_features: as of `Mapping`.
        units, sampling_rate, bandwidth: as of `FourierFeatures`.
        clamp: bound of the magnitude before each down-sampling, and in to-RGB; None for none.
        output_scale: factor of the image.
        num_fp16_res: layers run in float16, where that is asked for, whose sampling rate is less than so many halvings below the image's
            size; 0 for all (NVIDIA's code: 4).
    """

    family = "stylegan3"
    judged_by = "stylegan2"

    def __init__(
        self,
        latent_size: int,
        mapping: list[int],
        label_size: int,
        label_features: int,
        units: int,
        sampling_rate: int,
        bandwidth: float,
        layers: list[LayerSettings],
        image_channels: int,
        clamp: float | None,
        output_scale: float,
        num_fp16_res: int = 0,
    ) -> None:
        super().__init__()
        self.settings = without_fp16(settings_of(locals()))
        self.latent_size, self.label_size = latent_size, label_size
        size = layers[-1]["size"]
        self.image_shape = (image_channels, size, size)
        self.output_scale = output_scale
        self.mapping = Mapping(latent_size, mapping, label_size, label_features)
        self.input = FourierFeatures(self.mapping.size, units, layers[0]["size"], sampling_rate, bandwidth)
        widths = [units, *(layer["units"] for layer in layers)]
        sizes = [layers[0]["size"], *(layer["size"] for layer in layers)]
        convolutions = [
            FilteredConvolution(self.mapping.size, inputs, from_size, layer, clamp)
            for inputs, from_size, layer in zip(widths[:-1], sizes[:-1], layers, strict=True)
        ]
        self.convolutions = nn.ModuleList(convolutions)
        self.to_rgb = ToRGB(widths[-1], image_channels, self.mapping.size, clamp)
        costs = [convolution.operations for convolution in convolutions]
        costs[0] += self.mapping.operations + self.input.operations
        places = zip(widths[1:], sizes[1:], costs, strict=True)
        self.layers = numbered((f"L{index}_{side}_{count}", count, side, cost) for index, (count, side, cost) in enumerate(places))
        self.operations = self.layers[-1].operations + self.to_rgb.operations(size)
        rates = accumulate(layers, lambda rate, layer: rate * layer["up"] // layer["down"], initial=sampling_rate)
        self._rates = list(islice(rates, 1, None))
        stop = max((index for index, rate in enumerate(self._rates) if rate <= 32), default=0)
        self.presets = Presets(low_rate=tuple(sorted({min(index, len(layers) - 1) for index in (0, 1, 3)})), curvature=(0,), stop=stop)

    def lowered(self, dtype: torch.dtype) -> torch.dtype:
        doublings = self.settings.get("num_fp16_res", 0)
        if dtype != torch.float16 or not doublings:
            return super().lowered(dtype)
        for rate, convolution in zip(self._rates, self.convolutions, strict=True):
            if rate * 2**doublings > self.image_shape[1]:
                convolution.to(dtype)
        self.to_rgb.to(dtype)
        return torch.float32

    def begin(self, latents: Latents) -> State:
        ws = self._style_inputs(latents, len(self.convolutions) + 2)  # one for the input, one for to-RGB
        return State(-1, self.tap("activation/input", self.input(ws[:, 0])), ws)

    def advance(self, state: State) -> State:
        index = state.layer + 1
        name = self.layers[index].name
        convolution = cast(FilteredConvolution, self.convolutions[index])
        style = self.tap(f"style/{name}", convolution.style(state.carry[:, index + 1]))
        activation = convolution(state.activation, style)
        return State(index, self.tap(f"activation/{name}", activation), state.carry)

    def finish(self, state: State) -> Tensor:
        style = self.tap("style/rgb", self.to_rgb.style(state.carry[:, -1]))
        return self.tap("rgb", self.to_rgb(state.activation, style)) * self.output_scale


class FourierFeatures(nn.Module):
    """The first activation: plane waves, turned and moved by w, mixed by a matrix.

    Args:
        units: number of waves.
        size: of the square grid that is returned, margins included.
        sampling_rate: samples along a side of the square of size 1 that the image stands for.
        bandwidth: frequency from which waves are damped; they are gone at half the sampling rate.
    """

    def __init__(self, style_size: int, units: int, size: int, sampling_rate: int, bandwidth: float) -> None:
        super().__init__()
        self.size, self.sampling_rate, self.bandwidth = size, sampling_rate, bandwidth
        self.affine = Dense(style_size, 4)
        self.frequencies = nn.Parameter(torch.zeros(units, 2))
        self.phases = nn.Parameter(torch.zeros(units))
        self.transform = nn.Parameter(torch.zeros(3, 3))
        self.weight = nn.Parameter(torch.zeros(units, units))

    @property
    def operations(self) -> int:
        units = len(self.phases)
        return 2 * (self.affine.weight.numel() + self.size**2 * units * (2 + units))

    def forward(self, w: Tensor) -> Tensor:
        """(N, units, size, size) of w (N, style size)."""
        frequencies, phases = self._placed(w)
        nyquist = self.sampling_rate / 2
        amplitudes = 1.0 - (frequencies.norm(dim=2) - self.bandwidth) / (nyquist - self.bandwidth)
        positions = (torch.arange(self.size, device=w.device, dtype=w.dtype) - (self.size - 1) / 2) / self.sampling_rate
        grid = torch.cartesian_prod(positions, positions).flip(1)  # rows of (x, y), y the slow one
        cycles = torch.baddbmm(phases[:, :, None], frequencies, grid.T.expand(len(w), -1, -1))
        waves = torch.sin(2 * torch.pi * cycles) * amplitudes.clamp(0.0, 1.0)[:, :, None]
        return (self.weight @ waves).unflatten(2, (self.size, self.size))

    def _placed(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Frequencies (N, units, 2) and phases (N, units) in a plane turned and moved by w."""
        numbers = self.affine(w)
        cosine, sine, x, y = (numbers / numbers[:, :2].norm(dim=1, keepdim=True)).unbind(1)
        turned = torch.stack((cosine, -sine, sine, cosine), dim=1).unflatten(1, (2, 2))
        moved = turned @ torch.stack((-x, -y), dim=1)[:, :, None]
        matrix = turned @ self.transform[:2, :2]
        offset = turned @ self.transform[:2, 2:] + moved
        return self.frequencies @ matrix, self.phases + (self.frequencies @ offset).squeeze(2)


class FilteredConvolution(nn.Module):
    """A modulated convolution, whose weight has mean square 1 for each unit, and a filtered LeakyReLU. The gain brings the input to unit
    variance; demodulation would take it out of the weight again."""

    def __init__(self, style_size: int, inputs: int, from_size: int, layer: LayerSettings, clamp: float | None) -> None:
        super().__init__()
        units, kernel = layer["units"], layer["kernel"]
        filters = {name: layer[name] for name in ("up", "down", "up_taps", "down_taps", "radial")}
        self.from_size, self.clamp = from_size, clamp
        self.plan = Resampling(from_size + kernel - 1, layer["size"], **filters)
        self.style = Dense(style_size, inputs)
        self.weight = nn.Parameter(torch.zeros(units, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(units))
        self.gain = nn.Parameter(torch.zeros(()))
        self.up_filter = nn.Parameter(torch.zeros(self.plan.up_taps))
        self.down_filter = nn.Parameter(torch.zeros([self.plan.down_taps] * (2 if self.plan.radial else 1)))

    @property
    def operations(self) -> int:
        """Of one sample: style, demodulation, convolution (every input meets every tap), filters."""
        units, inputs = self.weight.shape[:2]
        products = self.style.weight.numel() + units * inputs + self.weight.numel() * self.from_size**2
        return 2 * products + units * self.plan.operations

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        style = normalised(style)
        factors = demodulation(self.weight, style) * self.gain
        x = F.conv2d(x.to(style.dtype) * style[:, :, None, None], self.weight, padding=self.weight.shape[-1] - 1)
        x = torch.addcmul(self.bias[:, None, None], x, factors[:, :, None, None])
        return filtered_lrelu(x, self.up_filter, self.down_filter, self.plan, self.clamp)
