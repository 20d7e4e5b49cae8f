"""What a block of samples collects while it is gated, and the remaining layers: survivors are regrouped, so that these run on full
batches whatever was rejected in between."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from qualitygate import names, timing
from qualitygate.generators.base import Generator, State
from qualitygate.generators.passes import MICRO_BATCH, in_halves

Sink = Callable[[np.ndarray, Tensor], None]
"""Receives keys (N,) and their images (N, channels, height, width), float32 in [-1, 1], on the generator's device."""


class LateLayers:
    """Collects states and finishes them in batches of `MICRO_BATCH`; the last one may be smaller.

    Args:
        generator: the generator.
        sink: where finished images go.
    """

    def __init__(self, generator: Generator, sink: Sink) -> None:
        self._generator, self._sink = generator, sink
        self._waiting: list[tuple[np.ndarray, State]] = []

    def add(self, keys: np.ndarray, state: State, rows: np.ndarray) -> None:
        """Finish the given rows (n,) of a state, under these keys (n,)."""
        if not len(keys):
            return
        if len(rows) < len(state.activation):
            state = state.rows(torch.from_numpy(rows).to(state.activation.device))
        self._waiting.append((keys, state))
        if sum(len(waiting) for waiting, _ in self._waiting) >= MICRO_BATCH:
            self.flush(MICRO_BATCH)

    def flush(self, at_least: int = 1) -> None:
        """Finish what is waiting, as long as a batch of ``at_least`` can be made."""
        if not self._waiting:
            return
        keys = np.concatenate([keys for keys, _ in self._waiting])
        states = [state for _, state in self._waiting]
        state = states[0] if len(states) == 1 else State.concatenated(states)
        self._waiting = []
        while len(keys) >= at_least and len(keys):
            head, keys = keys[:MICRO_BATCH], keys[MICRO_BATCH:]
            with timing.part(timing.LATE):
                self._sink(head, self._images(state, len(head)))
            if len(keys):
                state = state.rows(torch.arange(len(head), len(head) + len(keys)))
        if len(keys):
            self._waiting = [(keys, state)]

    def _images(self, state: State, count: int) -> Tensor:
        """Images of the first rows of a state."""

        def finish(rows: slice) -> Tensor:
            whole = rows.stop - rows.start == len(state.activation)
            return self._generator.resume(state if whole else state.rows(torch.arange(rows.start, rows.stop)))

        parts = in_halves(finish, count)
        return parts[0] if len(parts) == 1 else torch.cat(parts)


class BlockBuffer:
    """What a block of samples collects while it is gated.

    Args:
        count: samples in the block.

    Attributes:
        columns: every score and every outcome of a correction, by name, float64 (count,).
        images: finished ones, by row: float32 (channels, height, width).
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self.columns = {name: np.full(count, np.nan) for name in (names.IMAGE_FINITE, names.MOVED)}
        self.images: dict[int, np.ndarray] = {}

    def write(self, rows: np.ndarray, columns: dict[str, np.ndarray]) -> None:
        """Put values of some rows (n,) into columns (N,); other rows of a new column are empty."""
        for name, values in columns.items():
            empty = 0.0 if names.is_tried(name) else np.nan
            self.columns.setdefault(name, np.full(self._count, empty))[rows] = values

    def receive(self, rows: np.ndarray, images: Tensor) -> None:
        """Keep finished images (n, channels, height, width), and whether they are finite; a `Sink`."""
        finite = torch.isfinite(images.sum(dim=(1, 2, 3))).cpu().numpy()
        self.columns[names.IMAGE_FINITE][rows] = finite
        self.images.update(zip(rows.tolist(), images.cpu().numpy(), strict=True))
