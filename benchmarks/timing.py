"""Sides of a comparison, timed in turn within one run, so that whatever else the machine does falls on all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of repeated measurements."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray) -> Spread:
        low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
        return cls(float(median), float(low), float(high))


@dataclass(frozen=True)
class Timed:
    """Seconds of each side, one value a round, by name."""

    seconds: Mapping[str, np.ndarray]

    def rate(self, side: str, work: float) -> Spread:
        """Work per second."""
        return Spread.of(work / self.seconds[side])

    def each(self, side: str, work: float) -> Spread:
        """Seconds for one unit of work."""
        return Spread.of(self.seconds[side] / work)

    def ratio(self, side: str, against: str) -> Spread:
        """Time of one side over that of another, round by round: both were measured within a moment."""
        return Spread.of(self.seconds[side] / self.seconds[against])

    def difference(self, side: str, against: str, work: float) -> Spread:
        """Seconds by which one side is slower than another for one unit of work, round by round."""
        return Spread.of((self.seconds[side] - self.seconds[against]) / work)


def interleaved(sides: Mapping[str, Callable[[], object]], rounds: int, device: torch.device) -> Timed:
    """Run every side once a round, in turn and every other round in reverse, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name in list(sides)[:: 1 if turn % 2 else -1]:
            taken = _seconds(sides[name], device)
            if turn:
                seconds[name].append(taken)
    return Timed({name: np.array(values) for name, values in seconds.items()})


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
