"""How passes are run: fixed micro-batches, full float32, no gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from qualitygate.generators.base import Edit, Generator
from qualitygate.latents import Latents, Sampling, draw_latents

MICRO_BATCH = 64
"""Samples in one pass. Scored passes always have this shape (the last one is padded), so a sample's numbers do not depend on how many
were asked for at once."""

Progress = Callable[[int], None]
"""Called with the number of samples just finished."""


def silent(_: int) -> None:
    """A `Progress` that shows nothing."""


class Reporter:
    """Shows how far long work is; this one shows nothing. The command line has one with bars."""

    @contextlib.contextmanager
    def phase(self, name: str, total: int) -> Iterator[Progress]:
        """One stretch of work over ``total`` samples."""
        yield silent


@contextlib.contextmanager
def scored_pass(*, tf32: bool = False) -> Iterator[None]:
    """No gradients, and float32 that is float32: no TF32 in convolutions or matrix products on a GPU, unless it is asked for."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=tf32):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def micro_batches(latents: Latents, size: int = MICRO_BATCH) -> Iterator[tuple[slice, Latents]]:
    """Rows and latents of each micro-batch; the latents are padded to ``size``, the rows are not."""
    for start in range(0, len(latents), size):
        stop = min(start + size, len(latents))
        yield slice(start, stop), latents[start:stop].padded(size)


def sample_latents(
    generator: Generator, ids: range | Sequence[int] | np.ndarray, seed: int, *, sampling: Sampling | None = None
) -> Latents:
    """Latents of the given sample ids, of the size, classes and kind of truncation that the generator needs."""
    return draw_latents(ids, seed, generator.latent_size, label_size=generator.label_size, sampling=sampling,
                        truncate_z=generator.truncates == "z")  # fmt: skip


def read_layers(
    generator: Generator, latents: Latents, indices: Sequence[int], edits: Mapping[int, Edit] | None = None
) -> Iterator[tuple[int, Tensor]]:
    """Index and activation of each of the given layers, in one pass up to the last of them."""
    for state in generator.states(generator.start(latents), max(indices), edits):
        if state.layer in indices:
            yield state.layer, state.activation
