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
    """Collects states and finishes them in batches of `MICRO_BATCH`; the last one may be smaller. Finished images go into the sink."""

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
        state, done = states[0] if len(states) == 1 else State.concatenated(states), 0
        while len(keys) - done >= at_least:
            batch = keys[done : done + MICRO_BATCH]

            def finish(rows: slice, first: int = done) -> Tensor:
                return self._generator.resume(_rows(state, first + rows.start, first + rows.stop))

            with timing.part(timing.LATE):
                parts = in_halves(finish, len(batch))
                self._sink(batch, parts[0] if len(parts) == 1 else torch.cat(parts))
            done += len(batch)
        self._waiting = [(keys[done:], _rows(state, done, len(keys)))] if done < len(keys) else []


def _rows(state: State, start: int, stop: int) -> State:
    return state if stop - start == len(state.activation) else state.rows(torch.arange(start, stop))


class BlockBuffer:
    """What a block of so many samples collects while it is gated.

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
        self.columns[names.IMAGE_FINITE][rows] = torch.isfinite(images.sum(dim=(1, 2, 3))).cpu().numpy()
        self.images.update(zip(rows.tolist(), images.cpu().numpy(), strict=True))
