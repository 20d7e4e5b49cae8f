from __future__ import annotations

import pytest
from pydantic import ValidationError

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.metrics.metric import set_metric
from qualitygate.records.metrics import METRICS, Measurement, metric, shown


def test_a_measurement_survives_json_and_must_be_of_a_known_metric() -> None:
    fid = Measurement(metric=names.FID, value=3.0, low=2.0, high=4.0, samples=10, settings={"k": 3.0}, blocks=(3.0, 3.1))
    assert Measurement.model_validate_json(fid.model_dump_json()) == fid
    with pytest.raises((ValidationError, InputError), match="no such metric"):
        Measurement(metric="niceness", value=1.0, samples=1)
    assert metric(names.REALISM).higher_is_better
    assert not metric(names.PPL).higher_is_better
    assert fid.higher_is_better is False


def test_records_of_earlier_versions_have_no_blocks() -> None:
    old = Measurement(metric=names.FID, value=3.0, samples=10).model_dump(exclude={"blocks"})
    assert Measurement.model_validate(old).blocks is None


@pytest.mark.parametrize("name", METRICS)
def test_every_name_in_the_table_has_its_metric(name: str) -> None:
    assert METRICS[name].name == name
    assert set_metric(name).info is METRICS[name]


def test_columns_follow_the_table() -> None:
    found = shown([{"kid": 1, "precision": 1}, {"fid": 1}])
    assert [one.heading for one in found] == ["FID ↓", "KID ↓", "precision ↑"]
