"""One form for all unit scores: order, top units, normalisation, and the table they are written to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from qualitygate.errors import InputError, LayerError
from qualitygate.units.score import UnitScores, load_unit_scores, save_unit_scores

NAN = float("nan")


def scores(source: str = "cla", **settings: object) -> UnitScores:
    of_layers = {2: torch.tensor([1.0, 4.0, NAN, 4.0]), 0: torch.tensor([-1.0, 0.5])}
    return UnitScores.of_layers(of_layers, source, settings)


def test_rows_are_in_order_of_layer_and_unit() -> None:
    made = scores()
    assert made.layers == (0, 2)
    assert made.layer.tolist() == [0, 0, 2, 2, 2, 2]
    assert made.unit.tolist() == [0, 1, 0, 1, 2, 3]
    assert made.of(0).tolist() == [-1.0, 0.5]
    assert made.tensor(0).dtype == torch.float64


def test_top_by_count_and_by_share() -> None:
    made = scores()
    assert made.top(1, 2).tolist() == [1]
    assert made.top(2, 2).tolist() == [1, 3]
    assert made.top(100, 2).tolist() == [1, 3, 0]  # never the one without a score
    assert made.top(0.5, 2).tolist() == [1, 3]
    assert made.top(0.01, 2).tolist() == [1]
    assert made.top(1.0, 0).tolist() == [1, 0]


@pytest.mark.parametrize("count", [0, -1, 0.0, 1.5])
def test_no_such_number_of_units(count: float) -> None:
    with pytest.raises(InputError, match="Not a number of units"):
        scores().top(count, 0)


def test_a_layer_that_was_not_scored() -> None:
    with pytest.raises(LayerError, match="not computed for layer 1"):
        scores().of(1)


def test_normalised_by_the_maximum_of_the_layer() -> None:
    made = scores().normalised()
    assert made.of(0).tolist() == [0.0, 1.0]
    assert np.array_equal(made.of(2), [0.25, 1.0, NAN, 1.0], equal_nan=True)
    harmless = UnitScores.of_layers({0: torch.tensor([-1.0, 0.0])}, "x", {}).normalised()
    assert harmless.of(0).tolist() == [0.0, 0.0]
    assert made.settings["normalised"] is True


def test_written_side_by_side_and_read_back(tmp_path: Path) -> None:
    first = scores(samples=3)
    second = UnitScores.of_layers({0: torch.tensor([7.0, NAN])}, "unit_fid", {"images": 2})
    save_unit_scores(tmp_path / "units.parquet", [first, second])
    table = pq.read_table(tmp_path / "units.parquet")
    assert table["unit_key"].to_pylist()[:3] == ["layer0/unit0", "layer0/unit1", "layer2/unit0"]
    assert table["unit_fid"].null_count == 4  # not known there, which is not the same as not defined
    again = load_unit_scores(tmp_path / "units.parquet")
    assert again.keys() == {"cla", "unit_fid"}
    for one in (first, second):
        other = again[one.source]
        assert np.array_equal(other.score, one.score, equal_nan=True)
        assert other.layer.tolist() == one.layer.tolist()
        assert other.unit.tolist() == one.unit.tolist()
        assert other.settings == one.settings


def test_what_makes_no_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="do not make a table"):
        save_unit_scores(tmp_path / "x", [scores(), scores()])
    with pytest.raises(InputError, match="no unit scores"):
        UnitScores.of_layers({}, "x", {})
    import pyarrow as pa

    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(InputError, match="not a table of unit scores"):
        load_unit_scores(tmp_path / "other.parquet")
