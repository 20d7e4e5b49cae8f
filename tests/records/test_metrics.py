from __future__ import annotations

import pytest
from pydantic import ValidationError
from small_records import metrics_report

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.metrics.metric import set_metric
from qualitygate.records.metrics import METRICS, GroupRow, Measurement, metric, shown


def test_a_measurement_survives_json_and_must_be_of_a_known_metric() -> None:
    fid = Measurement(metric=names.FID, value=3.0, low=2.0, high=4.0, samples=10, settings={"k": 3.0}, blocks=(3.0, 3.1))
    assert Measurement.model_validate_json(fid.model_dump_json()) == fid
    with pytest.raises((ValidationError, InputError), match="no such metric"):
        Measurement(metric="niceness", value=1.0, samples=1)
    assert metric(names.REALISM).higher_is_better
    assert not metric(names.PPL).higher_is_better
    assert metric(names.RARITY).higher_is_better is None
    assert metric(names.RARITY).heading == "rarity"
    assert fid.higher_is_better is False


def test_records_of_earlier_versions_have_no_blocks() -> None:
    old = Measurement(metric=names.FID, value=3.0, samples=10).model_dump(exclude={"blocks"})
    assert Measurement.model_validate(old).blocks is None


@pytest.mark.parametrize("name", METRICS)
def test_every_name_in_the_table_has_its_metric(name: str) -> None:
    assert METRICS[name].name == name
    assert set_metric(name).info is METRICS[name]


def _shares(group: str, inside: float, rare: float, reach: float | None = 0.05) -> GroupRow:
    bounds = [{} if reach is None else {"low": value - reach, "high": value + reach} for value in (inside, rare)]
    pairs = zip((names.PRECISION, names.RARE_SHARE), (inside, rare), bounds, strict=True)
    measurements = {name: Measurement(metric=name, value=value, samples=100, **ends) for name, value, ends in pairs}
    return GroupRow(group=group, samples=100, what=group, measurements=measurements)


@pytest.mark.parametrize(
    ("inside", "rare", "answer"),
    [
        (0.5, 0.1, "More are wrong than of the accepted: in no real image's neighbourhood 0.50 (0.45 to 0.55) against 0.10"),
        (0.85, 0.4, "MORE ARE RARE than of the accepted, and no more are wrong: "),
        (0.5, 0.4, "More are wrong than of the accepted, and more are rare: "),
        (0.85, 0.1, "No more are wrong or rare than of the accepted, within the intervals: "),
    ],
)
def test_what_is_rejected_is_rare_or_wrong(inside: float, rare: float, answer: str) -> None:
    groups = (_shares(names.ACCEPTED, 0.9, 0.1), _shares(names.REJECTED, inside, rare))
    (said,) = metrics_report(*groups).rare_or_wrong
    assert said.startswith(f"Rejected: rare or wrong? {answer}")
    assert said.endswith(f"sparsest real images alone {rare:.2f} ({rare - 0.05:.2f} to {rare + 0.05:.2f}) against 0.10 (0.05 to 0.15)")


def test_nothing_is_said_of_rare_or_wrong_without_both_sides() -> None:
    for groups in ((_shares(names.REJECTED, 0.5, 0.1),), (_shares(names.ACCEPTED, 0.9, 0.1), _shares(names.REJECTED, 0.5, 0.1, None)), ()):
        assert metrics_report(*groups).rare_or_wrong == ()


def test_columns_follow_the_table() -> None:
    found = shown([{"kid": 1, "precision": 1}, {"fid": 1}])
    assert [one.heading for one in found] == ["FID ↓", "KID ↓", "precision ↑"]
