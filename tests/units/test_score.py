"""One form for all unit scores: order, top units, normalisation, the table they are written to, and the agreement of two rankings."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from qualitygate.errors import InputError, LayerError
from qualitygate.units.score import UnitScores, compare, joined, load_unit_scores, rank_correlation, save_unit_scores

NAN = float("nan")


def scores(source: str = "cla", **settings: object) -> UnitScores:
    of_layers = {2: torch.tensor([1.0, 4.0, NAN, 4.0]), 0: torch.tensor([-1.0, 0.5])}
    return UnitScores.of_layers(of_layers, source, settings)


def test_layers_are_in_order() -> None:
    made = scores()
    assert made.layers == (0, 2)
    assert made.of(0).tolist() == [-1.0, 0.5]
    assert made.tensor(0).dtype == torch.float64


def test_top_by_count() -> None:
    made = scores()
    assert made.top(1, 2).tolist() == [1]
    assert made.top(2, 2).tolist() == [1, 3]
    assert made.top(100, 2).tolist() == [1, 3, 0]  # never the one without a score
    assert made.top(2, 0).tolist() == [1, 0]


@pytest.mark.parametrize("count", [0, -1])
def test_no_such_number_of_units(count: int) -> None:
    with pytest.raises(InputError, match="Not a number of units"):
        scores().top(count, 0)


def test_a_layer_that_was_not_scored() -> None:
    with pytest.raises(LayerError, match="not computed for layer 1"):
        scores().of(1)


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
        assert other.layers == one.layers
        assert all(np.array_equal(other.of(layer), one.of(layer), equal_nan=True) for layer in one.layers)
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


def scored(source: str, *of_layers: list[float]) -> UnitScores:
    return UnitScores.of_layers({layer: torch.tensor(one) for layer, one in enumerate(of_layers)}, source, {})


def test_rank_correlation() -> None:
    assert rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([10.0, 100.0, 1000.0])) == pytest.approx(1.0)
    assert rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])) == pytest.approx(-1.0)
    # ranks 1, 2, 3, 4 and 2, 1, 3.5, 3.5
    assert rank_correlation(np.arange(4.0), np.array([5.0, 4.0, 9.0, 9.0])) == pytest.approx(3.5 / math.sqrt(5 * 4.5))
    assert math.isnan(rank_correlation(np.arange(3.0), np.zeros(3)))


def test_every_pair_at_every_layer_that_both_know() -> None:
    a = scored("a", [4.0, 3.0, 2.0, 1.0], [1.0, 2.0])
    b = scored("b", [4.0, 1.0, 3.0, float("nan")], [2.0, 1.0])
    c = scored("c", [0.0, 1.0, 2.0, 3.0])
    found = {(one.layer, one.first, one.second): one for one in compare([a, b, c], top=2)}
    assert found.keys() == {(0, "a", "b"), (0, "a", "c"), (0, "b", "c"), (1, "a", "b")}
    ab = found[0, "a", "b"]
    assert (ab.units, ab.top, ab.overlap) == (3, 2, 0.5)
    assert ab.correlation == pytest.approx(0.5)  # ranks 3, 2, 1 and 3, 1, 2
    assert ab.by_chance == pytest.approx(2 / 3)
    assert found[0, "a", "c"].overlap == 0.0
    assert found[0, "a", "c"].correlation == pytest.approx(-1.0)
    assert found[1, "a", "b"].overlap == 1.0


def test_a_source_without_any_score() -> None:
    (one,) = compare([scored("a", [1.0]), scored("b", [float("nan")])])
    assert one.units == 0
    assert math.isnan(one.correlation)
    assert math.isnan(one.overlap)


def test_no_top() -> None:
    with pytest.raises(InputError, match="Not a number of units"):
        compare([], top=0)


def test_joined_is_the_mean_rank_in_the_layer() -> None:
    a = scored("a", [4.0, 3.0, 2.0, 1.0], [1.0, 2.0])
    b = scored("b", [0.0, 0.0, 5.0, float("nan")])
    found = joined([a, b])
    assert found.of(0).tolist() == pytest.approx([(1 + 0.5) / 2, (0.75 + 0.5) / 2, (0.5 + 1) / 2, 0.25])
    assert found.of(1).tolist() == [0.5, 1.0]
    assert found.settings == {"sources": ["a", "b"]}
    nothing = scored("a", [float("nan"), 1.0])
    assert math.isnan(joined([nothing]).of(0)[0])
