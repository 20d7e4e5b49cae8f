"""Figures of patterns and courses: PNG bytes of the stated size, the same every time."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from qualitygate.errors import InputError
from qualitygate.records.dynamics import AxisPattern, DynamicsRecord, Neuron, PatternColumn, PlanePattern, SnapshotRecord
from qualitygate.reports.dynamics_figures import dynamics_figure, pattern_figure, training_figure
from qualitygate.studies.dynamics.pattern import secants

NEURON = Neuron(3, 1, 2, 5)
OFFSETS = np.linspace(-30, 30, 61)


def along(axes: int) -> AxisPattern:
    values = np.cos(OFFSETS[None, :] / 10 * np.arange(1, axes + 1)[:, None]).astype(np.float32)
    return AxisPattern(np.arange(axes), OFFSETS, values, *secants(values[:, ::3].astype(float), OFFSETS[::3]))


def opened(png: bytes) -> Image.Image:
    return Image.open(BytesIO(png))


def test_pattern() -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    plane = PlanePattern(along(2), np.outer(along(2).values[0], along(2).values[1]))
    arguments = (image, np.linspace(-1, 1, 64).reshape(8, 8), NEURON, along(12), plane, "a title")
    first = pattern_figure(*arguments)
    assert opened(first).width == 1200
    assert pattern_figure(*arguments) == first
    assert len(np.unique(np.asarray(opened(first).convert("L")))) > 100


def column(height: float) -> PatternColumn:
    score = np.zeros((8, 8), np.float32)
    score[2, 5] = height
    return PatternColumn(f"{height:g} kimg", np.full((61, 61), height, np.float32), np.zeros((32, 32, 1), np.uint8), score)


def test_one_column_for_each_snapshot() -> None:
    one = opened(dynamics_figure([column(1.0)], NEURON, (0, 3), 30.0, "a title"))
    three = opened(dynamics_figure([column(0.0), column(1.0), column(2.0)], NEURON, (0, 3), 30.0, "a title"))
    assert three.height == one.height
    assert three.width - one.width == 2 * 150
    assert opened(dynamics_figure([column(0.0)], NEURON, (0, 3), 30.0, "all zero"))
    with pytest.raises(InputError, match="no snapshot to draw"):
        dynamics_figure([], NEURON, (0, 3), 30.0, "")


def course(*metrics: dict[str, float]) -> DynamicsRecord:
    snapshots = tuple(
        SnapshotRecord(
            checkpoint="a",
            checkpoint_sha256="b",
            family="pggan",
            model_id=None,
            at=float(at),
            metrics=of,
            error=None if of else "unreadable",
        )
        for at, of in enumerate(metrics)
    )
    return DynamicsRecord(unit="kimg", settings={}, snapshots=snapshots, rising={}, alarms=())


def test_a_panel_for_each_metric() -> None:
    cla = {"dynamics/cla_mean/layer_3": 1.0}
    small = opened(training_figure(course(cla, {}, {"dynamics/cla_mean/layer_3": 2.0, "dynamics/cla_mean/layer_5": 2.0})))
    assert small.size == (900, 240)
    more = {**cla, "dynamics/activation_rate/layer_1": 0.5, "dynamics/fid": 12.0}
    assert opened(training_figure(course(more, more))).size == (900, 480)
    with pytest.raises(InputError, match="nothing to draw"):
        training_figure(course({}, {}))
