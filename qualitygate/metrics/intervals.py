"""Intervals of metrics: seeded, so that the same samples give the same interval, and without a loop over resamples.

What is drawn again are the samples of the group in question; what they are compared with (the real set, its radii) is taken as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from qualitygate.errors import InputError
from qualitygate.latents import Purpose, uniforms
from qualitygate.records import Interval

LEVEL = 0.95
RESAMPLES = 1000
BLOCKS = 10

_BOOTSTRAP, _BLOCKS, GROUPS = (Purpose.SUBSET + 16 * use for use in (1, 2, 3))
_NUMBERS = 2**22  # resampled values held at once


@dataclass(frozen=True)
class JackknifeInterval(Interval):
    """An interval with an estimate of how much too large the value is because the sample is small."""

    bias: float


def bootstrap_mean(values: np.ndarray, *, seed: int = 0, level: float = LEVEL, resamples: int = RESAMPLES) -> Interval:
    """Mean of values (N,) with the percentile interval of its bootstrap.

    Raises:
        InputError: no values.
    """
    return bootstrap_ratio(values, np.ones(len(values)), seed=seed, level=level, resamples=resamples)


def bootstrap_ratio(sums: np.ndarray, counts: np.ndarray, *, seed: int = 0, level: float = LEVEL, resamples: int = RESAMPLES) -> Interval:
    """``Σ sums / Σ counts`` over N samples: the mean of several values a sample, samples being what is drawn again.

    Raises:
        InputError: nothing was counted.
    """
    sums, counts = np.asarray(sums, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    if not counts.sum():
        raise InputError("There is nothing to take a mean of", f"{len(sums)} samples without a value", "at least one value")
    step = max(1, _NUMBERS // len(sums))
    means = [_resampled(sums, counts, seed, np.arange(start, min(start + step, resamples))) for start in range(0, resamples, step)]
    tail = (1.0 - level) / 2.0
    low, high = np.nanquantile(np.concatenate(means), (tail, 1.0 - tail))
    return Interval(float(sums.sum() / counts.sum()), float(low), float(high))


def jackknife(value: float, left_out: Sequence[float], *, level: float = LEVEL) -> JackknifeInterval:
    """Interval of a value of a whole set, from its values without each of B equal blocks of the set (delete-block jackknife).

    The standard error is ``√((B−1)/B · Σ(θᵢ − θ̄)²)``, the interval that of Student's t with B − 1 degrees of freedom around the value, and
    ``(B − 1)·(θ̄ − θ)`` the estimate of a bias that goes like 1/N.

    Raises:
        InputError: fewer than two blocks.
    """
    blocks = len(left_out)
    if blocks < 2:
        raise InputError("No interval from so few blocks", str(blocks), "at least 2")
    without = np.asarray(left_out, dtype=np.float64)
    error = float(np.sqrt((blocks - 1) / blocks * np.square(without - without.mean()).sum()))
    reach = student_t(level, blocks - 1) * error
    return JackknifeInterval(value, value - reach, value + reach, float((blocks - 1) * (without.mean() - value)))


def blocks_of(count: int, blocks: int = BLOCKS, *, seed: int = 0) -> list[np.ndarray]:
    """Rows 0 … count − 1 dealt at random to blocks of (nearly) equal size, at most one block a row."""
    order = np.argsort(uniforms(seed, _BLOCKS, np.arange(count), 1)[:, 0], kind="stable")
    return [np.sort(part) for part in np.array_split(order, min(blocks, count))]


def student_t(level: float, freedom: int) -> float:
    """Two-sided quantile of Student's t, from that of the normal distribution by the Cornish-Fisher series (Abramowitz and Stegun 26.7.5).

    >>> round(student_t(0.95, 9), 2)
    2.26
    """
    z, v = NormalDist().inv_cdf((1.0 + level) / 2.0), float(freedom)
    g1 = (z**3 + z) / 4.0
    g2 = (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0
    g3 = (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / 384.0
    return z + g1 / v + g2 / v**2 + g3 / v**3


def _resampled(sums: np.ndarray, counts: np.ndarray, seed: int, ids: np.ndarray) -> np.ndarray:
    """Ratios of some resamples, each with a random stream of its own."""
    rows = (uniforms(seed, _BOOTSTRAP, ids, len(sums)) * len(sums)).astype(np.int64)
    with np.errstate(invalid="ignore", divide="ignore"):  # a resample of samples without a value
        return sums[rows].sum(axis=1) / counts[rows].sum(axis=1)
