"""How passes are run: fixed micro-batches, full float32, no gradients."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from qualitygate.latents import Latents

MICRO_BATCH = 64
"""Samples in one pass of a generator on the CPU; see `micro_batch_on` for a GPU."""

IMAGE_BATCH = 64
"""Images in one pass of an extractor, a classifier or a discriminator, on every device and whichever generator they are of."""

LIVE = 6
"""Copies of a layer's activation that a pass and its reading hold at their peak, buffers of a convolution included."""

_MEMORY_SHARE = 4  # a pass takes such a part of a GPU's memory; the rest is for weights, states and images that wait, and other workers
_ENOUGH_WORK = 2**26  # activations of the widest layer: hundreds for each of the 10^5 threads of a large GPU; more would only be padding
_MOST_SAMPLES = 1024  # for small generators: a pass at 64×64 then takes milliseconds, and launching its kernels tenths of one

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
    cudnn: Any = torch.backends.cudnn
    on_cpu: Any = torch.backends.mkldnn
    # by operation, and by torch's newer names alone: these may be set whatever was asked for before, and by which names
    precisions: dict[Any, str] = dict.fromkeys((torch.backends.cuda.matmul, cudnn.conv), "tf32" if tf32 else "ieee")
    precisions |= dict.fromkeys((on_cpu.matmul, on_cpu.conv), "ieee")
    before = {one: one.fp32_precision for one in precisions}, cudnn.deterministic, cudnn.benchmark
    try:
        for one, precision in precisions.items():
            one.fp32_precision = precision
        cudnn.deterministic, cudnn.benchmark = True, False  # the algorithm that happens to be fastest is not the same one each time
        with torch.no_grad():
            yield
    finally:
        for one, precision in before[0].items():
            one.fp32_precision = precision
        _, cudnn.deterministic, cudnn.benchmark = before


def scored_steps(steps: Iterator[T], *, tf32: bool = False) -> Iterator[T]:
    """Each step is taken in a scored pass; whoever receives it is outside of that again."""
    while True:
        with scored_pass(tf32=tf32):
            try:
                step = next(steps)
            except StopIteration:
                return
        yield step
        del step


def on_host(tensor: Tensor) -> Tensor:
    """A tensor of any shape on the CPU: the one way by which numbers leave the device, after a wait for whatever makes them."""
    return leaving(tensor)()


def leaving(tensor: Tensor) -> Callable[[], Tensor]:
    """Begins to bring a tensor of any shape to the CPU, beside the passes that follow; what is given waits for it and has it."""
    if tensor.device.type != "cuda":
        return tensor.cpu
    stream = _copying(tensor.device)
    stream.wait_stream(torch.cuda.current_stream(tensor.device))
    with torch.cuda.stream(stream):
        copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        copy.copy_(tensor, non_blocking=True)
        done = stream.record_event()
    tensor.record_stream(stream)

    def arrived() -> Tensor:
        done.synchronize()
        return copy

    return arrived


def pixels(images: Tensor) -> Tensor:
    """Images (N, channels, height, width) in [-1, 1] as they are written: uint8 (N, height, width, channels), rounded to the nearest."""
    return ((images + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def positions(mask: Tensor) -> tuple[Tensor, ...]:
    """Where a bool mask of any shape holds, on its device: int64 (n,) for each axis. How many there are has to leave the device first."""
    return torch.nonzero_static(mask, size=int(on_host(mask.sum()))).unbind(1)


@cache
def _copying(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def micro_batch_on(device: torch.device, widest: int) -> int:
    """Samples in one pass on a device, of a generator whose widest layer has so many neurons. Scored passes always have this shape (the
    last one is padded), so a sample's numbers do not depend on how many were asked for at once. Of a GPU all memory counts, not what
    happens to be free: equal cards choose equally, and `MostRows` knows where less is there."""
    return micro_batch_within(total_memory(device), widest) if device.type == "cuda" else MICRO_BATCH


def micro_batch_within(memory: int, widest: int) -> int:
    """The micro-batch of a GPU with so many bytes of memory: a power of two."""
    enough = min(max(MICRO_BATCH, _ENOUGH_WORK // widest), _MOST_SAMPLES)
    fit = memory // (_MEMORY_SHARE * LIVE * 4 * widest)
    return 1 << max(1, min(enough, fit)).bit_length() - 1


def micro_batches(latents: Latents, size: int) -> Iterator[tuple[slice, Latents]]:
    """Rows and latents of each micro-batch; the latents are padded to ``size``, the rows are not."""
    for start in range(0, len(latents), size):
        stop = min(start + size, len(latents))
        yield slice(start, stop), latents[start:stop].padded(size)


def padded_rows(rows: slice, size: int) -> np.ndarray:
    """Rows of a micro-batch, the last one repeated as `Latents.padded` does it: int64 (size,)."""
    return np.minimum(np.arange(rows.start, rows.start + size), rows.stop - 1)


def total_memory(device: torch.device) -> int:
    """Bytes of memory that a GPU has."""
    return torch.cuda.get_device_properties(device).total_memory


def free_memory(device: torch.device) -> int:
    """Bytes that a pass on a GPU may use: what is free, and what the allocator keeps for us to use again."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


class MostRows(dict[int, int]):
    """Rows that a device has memory for, by the layer that their pass ends at: asked of it before the first pass, and less once it had none
    for them, so that no later batch runs into the same end."""

    def __init__(self, device: torch.device, neurons: Sequence[int]) -> None:
        super().__init__()
        self.device, self._neurons = device, neurons

    def __missing__(self, upto: int) -> int:
        memory = free_memory(self.device) if self.device.type == "cuda" else sys.maxsize
        self[upto] = max(1, memory // (LIVE * 4 * max(self._neurons[: upto + 1])))
        return self[upto]


def in_halves(run: Callable[[slice], T], rows: int, most: MostRows, upto: int) -> list[T]:
    """What ``run`` gives for all rows at once; where the device has no memory for that, for each of `halves`."""
    return [made for _, made in halves(lambda part: [run(part)], rows, most, upto)]


def halves(steps: Callable[[slice], Iterable[T]], rows: int, most: MostRows, upto: int) -> Iterator[tuple[slice, T]]:
    """All rows and each of the steps that are taken with them, up to a layer; where the device has no memory for that, the first and the
    second half and the steps that were not given yet, and so on.

    A pass of another shape may differ in the last digits, as on another device.

    Raises:
        torch.OutOfMemoryError: not even a single row fits.
    """
    waiting = [(slice(0, rows), 0)]
    while waiting:
        part, given = waiting.pop()
        size = part.stop - part.start
        if size <= most[upto]:
            try:
                for step in itertools.islice(steps(part), given, None):
                    given += 1
                    yield part, step
                    del step
                continue
            except torch.OutOfMemoryError:
                if size < 2:
                    raise
            most[upto] = size - size // 2
            if torch.cuda.is_available():  # out of the handler: what failed is let go of first
                torch.cuda.empty_cache()
        middle = (part.start + part.stop) // 2
        waiting += [(slice(middle, part.stop), given), (slice(part.start, middle), given)]
