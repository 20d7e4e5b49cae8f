"""The other side of the comparisons: a DCGAN as people run it, and CLA as one would first write it down from the paper."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from qualitygate.generators.families.dcgan import DCGAN


def plain_dcgan(generator: DCGAN) -> nn.Sequential:
    """The same generator as the usual chain of transposed convolutions, batch norms and ReLUs.

    The weights hold the folded batch norms; the batch norms here are identities that cost what any others do.
    """
    widths = [generator.latent_size, *generator.settings["units"], generator.settings["image_channels"]]
    chain: list[nn.Module] = []
    for index, (inputs, outputs) in enumerate(pairwise(widths)):
        stride, padding = (1, 0) if index == 0 else (2, 1)
        convolution = nn.ConvTranspose2d(inputs, outputs, 4, stride, padding)
        with torch.no_grad():
            convolution.weight.copy_(generator.weight[index].permute(2, 3, 0, 1))
            assert convolution.bias is not None
            convolution.bias.copy_(generator.bias[index])
        last = index == len(widths) - 2
        chain += [convolution, nn.Tanh()] if last else [convolution, nn.BatchNorm2d(outputs, eps=0.0), nn.ReLU()]
    return nn.Sequential(*chain).eval().to(generator.device)


def reading(model: nn.Sequential, layer: int) -> Callable[[Tensor], Tensor]:
    """Activations (N, units, height, width) at a layer for latents (N, D), taken by a hook. Everything up to the layer is run, nothing
    after it."""
    stem = model[: 3 * (layer + 1)]

    def read(z: Tensor) -> Tensor:
        seen: list[Tensor] = []
        hook = stem[-1].register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        try:
            stem(z[:, :, None, None])
        finally:
            hook.remove()
        return seen.pop()

    return read


def plain_curvature(read: Callable[[Tensor], Tensor], z: Tensor, bound: float, divisions: int) -> Tensor:
    """CLA (units, height, width) of one sample z (D,): a loop over the axes, with one batch of grid points on each."""
    steps = divisions // 2
    r = bound * torch.arange(1, steps + 1, device=z.device) / steps
    start = read(z[None])
    total = torch.zeros_like(start[0])
    for axis in range(len(z)):
        points = z.repeat(2 * steps, 1)
        points[:, axis] += torch.cat((r, -r)).to(z)
        right, left = read(points).split(steps)
        (a, b), (x, y) = _change_point(start, right, r), _change_point(start, left, -r)
        total += ((a - start[0]) / b - (x - start[0]) / y) / (b - y)
    return total / len(z)


def _change_point(start: Tensor, along: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """Value and distance at the first sign change on one side, those of the bound where there is none."""
    changed = (along > 0) != (start > 0)
    first = torch.where(changed.any(dim=0), changed.int().argmax(dim=0), len(r) - 1)
    return along.gather(0, first[None])[0], r[first]
