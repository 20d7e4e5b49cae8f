"""The benchmark of planted defects: its numbers worked out by hand, and every row on a small chain."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from testing.small import dcgan

from qualitygate.testing.planted import Defect, plant

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # after the tests: `metrics` is there too

from planted_rows import measures
from planted_rows.columns import all_columns
from planted_rows.grid import GRID
from planted_rows.scene import Scene, Sizes
from planted_rows.table import page

SIZES = Sizes(rates=128, reference=128, defective=8, others=32, exact_defective=2, exact_others=2, corrected=8)


def columns(name: str) -> dict[str, Any]:
    case = next(case for case in GRID if case.name == name)
    defect = Defect(case.defect.layer, min(case.defect.units, 2), 0.1, mark=case.defect.mark)
    return all_columns(Scene(plant(dcgan(), defect, case.seed), None, SIZES))


def test_auc_counts_ties_half() -> None:
    positive = np.array([True, True, False, False])
    assert measures.auc(np.array([3.0, 1.0, 2.0, 0.0]), positive) == 0.75
    assert measures.auc(np.zeros(4), positive) == 0.5
    assert measures.auc(np.array([1.0, 0.0, 0.0, 0.0]), positive) == 0.75


def test_recall_is_of_the_true_mix() -> None:
    positive = np.array([True] * 5 + [False] * 5)
    perfect = positive.astype(float)
    assert measures.recall(perfect, positive, share=0.01, rejected=0.01) == pytest.approx(1.0)
    assert measures.recall(perfect, positive, share=0.05, rejected=0.01) == pytest.approx(0.2)
    assert measures.recall(np.zeros(10), positive, share=0.05, rejected=0.1) == pytest.approx(0.1)


def test_iou_of_as_many_hottest_pixels() -> None:
    pixels = torch.tensor([[True, True], [False, False]])
    heat = torch.tensor([[[2.0, 1.0], [0.0, 0.0]], [[2.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [1.0, 2.0]]])
    assert measures.iou(heat, pixels) == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert measures.chance_iou(pixels) == pytest.approx(1 / 3)


def test_unit_recall_over_the_ranked_layers() -> None:
    scores = {0: torch.tensor([3.0, 2.0, 1.0, 0.0]), 1: torch.tensor([0.0, 1.0])}
    assert measures.unit_recall(scores, {0: (0, 2), 1: (1,), 5: (7,)}, None) == pytest.approx(2 / 3)
    assert measures.unit_recall(scores, {0: (0, 2), 1: (1,)}, 3) == 1.0
    assert np.isnan(measures.unit_recall(scores, {5: (7,)}, None))


def test_distance_of_all_pixels_or_some() -> None:
    a, b = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    b[..., 0, 0] = 2.0
    assert measures.distance(a, b).tolist() == [0.25]
    assert measures.distance(a, b, torch.tensor([[True, False], [False, False]])).tolist() == [1.0]


def test_every_row_on_a_small_chain() -> None:
    names = ("nothing", "decoy-1", "half-10")
    results = {name: columns(name) for name in names}
    assert results["nothing"]["detection"] == results["nothing"]["place"] == results["nothing"]["unit_recall"] == {}
    assert results["decoy-1"]["place"] == {}
    found = results["half-10"]
    assert found["detection"]["low_rate_0.2/layer_0"]["auc"] > 0.7
    assert found["place"].keys() == {"chance", "CLA", *(f"low-rate neurons, R = {rate}" for rate in (0.02, 0.1, 0.3))}
    assert found["unit_recall"]["low-rate activity, R = 0.3, defective samples"]["top_20"] == 1.0
    assert found["correction"]["sequential ablation, R = 0.2"]["mark_gone"] > 0.5
    assert set(found["correction"]["gate, least correction"]) > {"repaired", "mark_gone", "harm", "others_reject"}
    text = page(results, {"checkpoint": "x", "sha256": "0" * 64, "sizes": {"rates": 1}})
    assert all(f"**{name}**" in text for name in names)
