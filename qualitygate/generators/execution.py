"""How passes are run: fixed micro-batches, full float32, no gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from qualitygate.generators.base import Edit, Generator
from qualitygate.latents import Latents, Sampling, draw_latents

MICRO_BATCH = 64
"""Samples in one pass. Scored passes always have this shape (the last one is padded), so a sample's numbers do not depend on how many
were asked for at once."""

_Part = TypeVar("_Part")

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
    def download(self) -> Iterator[Callable[[int, int | None], None]]:
        """A download: called with the bytes so far, and with all that there are, where that is known."""
        yield lambda done, total: None


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


def in_halves(run: Callable[[slice], _Part], rows: int) -> list[_Part]:
    """What ``run`` gives for all rows at once; where the device has no memory for that, for the first and the second half, and so on.

    A pass of another shape may differ in the last digits, as on another device.

    Raises:
        torch.OutOfMemoryError: not even a single row fits.
    """
    waiting, done = [slice(0, rows)], []
    while waiting:
        part = waiting.pop()
        try:
            done.append(run(part))
            continue
        except torch.OutOfMemoryError:
            if part.stop - part.start < 2:
                raise
        if torch.cuda.is_available():  # out of the handler: what failed is let go of first
            torch.cuda.empty_cache()
        middle = (part.start + part.stop) // 2
        waiting += [slice(middle, part.stop), slice(part.start, middle)]
    return done


def sample_latents(
    generator: Generator, ids: range | Sequence[int] | np.ndarray, seed: int, *, sampling: Sampling | None = None
) -> Latents:
    """Latents of the given sample ids, of the size, classes and kind of truncation that the generator needs."""
    return draw_latents(
        ids, seed, generator.latent_size, label_size=generator.label_size, sampling=sampling, truncate_z=generator.truncates == "z"
    )


def read_layers(
    generator: Generator, latents: Latents, indices: Sequence[int], edits: Mapping[int, Edit] | None = None
) -> Iterator[tuple[int, Tensor]]:
    """Index and activation of each of the given layers, in one pass up to the last of them."""
    for state in generator.states(generator.start(latents), max(indices), edits):
        if state.layer in indices:
            yield state.layer, state.activation
