"""The machine's matrix rate, and what an exact CLA costs in the same unit: 2 operations per multiply-add."""

from __future__ import annotations

from collections.abc import Callable

import torch

from qualitygate.generators.base import Generator
from qualitygate.generators.families.stylegan2 import StyleGAN2
from qualitygate.generators.passes import scored_pass

CPU_PRODUCTS = ((400, 512, 256), (1024, 1024, 1024), (2048, 2048, 2048))
GPU_PRODUCTS = ((8192, 512, 512), (16384, 4608, 512), (8192, 8192, 8192))


def product(
    device: torch.device, shape: tuple[int, int, int], operations: float, *, dtype: torch.dtype = torch.float32, tf32: bool = False
) -> Callable[[], None]:
    """Matrix products of this shape with (nearly) so many operations in all."""
    m, k, n = shape
    a, b, out = (torch.randn(size, device=device, dtype=dtype) for size in ((m, k), (k, n), (m, n)))
    whole, rest = divmod(operations, 2 * m * k * n)
    part = max(1, round(m * rest / (2 * m * k * n)))

    def run() -> None:
        with scored_pass(tf32=tf32):
            for _ in range(int(whole)):
                torch.mm(a, b, out=out)
            torch.mm(a[:part], b, out=out[:part])

    return run


def operations_of_a_pass(generator: Generator, layer: int) -> float:
    """Operations of one grid point in the cheapest exact form. A linear first layer moves by a multiple of one row of its weights, which
    costs no product; StyleGAN2's first layer has one input for all, which makes it a product with the style. Padding at the border
    is counted, though we leave it out on the CPU."""
    first = generator.layers[0]
    if isinstance(generator, StyleGAN2):
        inputs = generator.settings["units"][0]
        return float(generator.layers[layer].operations - 2 * inputs * first.units * (9 - 1) * first.height * first.width)
    return float(generator.layers[layer].operations - (first.operations if layer else 0))
