"""How passes are run: fixed micro-batches, full float32, no gradients."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import torch

from qualitygate.latents import Latents

MICRO_BATCH = 64
"""Samples in one pass. Scored passes always have this shape (the last one is padded), so a sample's numbers do not depend on how many
were asked for at once."""

T = TypeVar("T")

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


def scored_steps(steps: Iterator[T]) -> Iterator[T]:
    """Each step is taken in a scored pass; whoever receives it is outside of that again."""
    while True:
        with scored_pass():
            try:
                step = next(steps)
            except StopIteration:
                return
        yield step
        del step


def micro_batches(latents: Latents, size: int = MICRO_BATCH) -> Iterator[tuple[slice, Latents]]:
    """Rows and latents of each micro-batch; the latents are padded to ``size``, the rows are not."""
    for start in range(0, len(latents), size):
        stop = min(start + size, len(latents))
        yield slice(start, stop), latents[start:stop].padded(size)


def padded_rows(rows: slice, size: int = MICRO_BATCH) -> np.ndarray:
    """Rows of a micro-batch, the last one repeated as `Latents.padded` does it: int64 (size,)."""
    return np.minimum(np.arange(rows.start, rows.start + size), rows.stop - 1)


def in_halves(run: Callable[[slice], T], rows: int) -> list[T]:
    """What ``run`` gives for all rows at once; where the device has no memory for that, for each of `halves`."""
    return [made for _, made in halves(lambda part: [run(part)], rows)]


def halves(steps: Callable[[slice], Iterable[T]], rows: int) -> Iterator[tuple[slice, T]]:
    """All rows and each of the steps that are taken with them; where the device has no memory for that, the first and the second half and
    the steps that were not given yet, and so on.

    A pass of another shape may differ in the last digits, as on another device.

    Raises:
        torch.OutOfMemoryError: not even a single row fits.
    """
    waiting = [(slice(0, rows), 0)]
    while waiting:
        part, given = waiting.pop()
        try:
            for step in itertools.islice(steps(part), given, None):
                given += 1
                yield part, step
                del step
            continue
        except torch.OutOfMemoryError:
            if part.stop - part.start < 2:
                raise
        if torch.cuda.is_available():  # out of the handler: what failed is let go of first
            torch.cuda.empty_cache()
        middle = (part.start + part.stop) // 2
        waiting += [(slice(middle, part.stop), given), (slice(part.start, middle), given)]
