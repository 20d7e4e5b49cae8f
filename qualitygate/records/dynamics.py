"""How a generator trains: what was measured of its snapshots, and the activation patterns of its neurons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qualitygate.records import Record


class SnapshotRecord(Record):
    """One snapshot of a training run. ``error`` says why there are no metrics."""

    checkpoint: str
    checkpoint_sha256: str | None
    family: str | None
    model_id: str | None
    """MLflow's logged model that it came from."""
    at: float
    metrics: dict[str, float]
    error: str | None


class DynamicsRecord(Record):
    """The snapshots of a training run, in order, scored on the same latents."""

    unit: str
    """What ``at`` counts: ``kimg`` or ``step``."""
    settings: dict[str, Any]
    snapshots: tuple[SnapshotRecord, ...]
    rising: dict[int, tuple[tuple[int, float], ...]]
    """By layer, the units whose CLA rose most, and by how much."""
    alarms: tuple[str, ...]


@dataclass(frozen=True)
class Neuron:
    """One value of one layer."""

    layer: int
    unit: int
    y: int
    x: int

    def __str__(self) -> str:
        return f"layer {self.layer}, unit {self.unit}, ({self.y}, {self.x})"


@dataclass(frozen=True)
class AxisPattern:
    """A neuron's activation along axes of z."""

    axes: np.ndarray
    """int64 (A,)."""
    offsets: np.ndarray
    """r, float64 (P,), from −bound to bound, 0 in the middle."""
    values: np.ndarray
    """Activation at ``z + r·e_d``, float32 (A, P)."""
    left: np.ndarray
    right: np.ndarray
    """Change points ``l_p ≤ 0 ≤ r_p`` of each axis, float64 (A,)."""
    curvature: np.ndarray
    """Of each axis, float64 (A,); its mean over all axes is the neuron's CLA."""
    slope: np.ndarray
    """Coefficient of the first degree of each axis's parabola, float64 (A,)."""

    @property
    def at_sample(self) -> float:
        return float(self.values[0, len(self.offsets) // 2])

    def parabola(self, row: int, offsets: np.ndarray) -> np.ndarray:
        """The parabola through the two change points and the sample on the axis of a row."""
        return self.at_sample + self.slope[row] * offsets + self.curvature[row] * offsets**2

    def rows(self, rows: Sequence[int] | np.ndarray) -> AxisPattern:
        of_axes = ("axes", "values", "left", "right", "curvature", "slope")
        return replace(self, **{name: getattr(self, name)[np.asarray(rows)] for name in of_axes})

    def by_local_activation(self) -> AxisPattern:
        """The axes with the most local first: concave around a positive activation, convex around a negative one."""
        return self.rows(np.argsort(self.curvature if self.at_sample > 0 else -self.curvature, kind="stable"))


@dataclass(frozen=True)
class PlanePattern:
    """A neuron's activation over two axes; ``values``: float32 (P, P), first axis down, second across, at the offsets of ``along``."""

    along: AxisPattern
    values: np.ndarray


@dataclass(frozen=True)
class PatternColumn:
    """One snapshot in the figure of the dynamics."""

    title: str
    plane: np.ndarray
    """Activation over two axes of z, float32 (P, P)."""
    image: np.ndarray
    """uint8 (image height, image width, 1 or 3)."""
    unit_score: np.ndarray
    """CLA of the unit's neurons as it enters the score, at least 0, float32 (height, width)."""
