"""Rules on how a metric moves."""

from __future__ import annotations

import math

import pytest

from qualitygate.errors import InputError
from qualitygate.studies.dynamics import Alarm, parse_alarm, raised_alarms

DOUBLED = Alarm(metric="a", factor=2, within=200)


def course(*points: tuple[float, float]) -> list[tuple[float, dict[str, float]]]:
    return [(at, {"a": value}) for at, value in points]


def test_doubled_within_the_stretch() -> None:
    (found,) = raised_alarms(course((0, 3), (100, 1), (300, 2)), [DOUBLED])
    assert (found.since, found.before, found.at, found.value) == (100, 1, 300, 2)
    assert "from 1 at 100 to 2 at 300" in str(found)
    assert raised_alarms(course((0, 1), (201, 2)), [DOUBLED]) == []
    assert raised_alarms(course((0, 1), (200, 1.9)), [DOUBLED]) == []


def test_halved() -> None:
    halved = Alarm(metric="a", factor=0.5, within=50)
    (found,) = raised_alarms(course((0, 4), (10, 5), (20, 2.5), (100, 0.1)), [halved])
    assert (found.since, found.at) == (10, 20)


def test_once_for_every_time_it_begins() -> None:
    points = course((0, 1), (10, 2), (20, 2), (210, 2), (220, 2), (230, 5))
    assert [one.at for one in raised_alarms(points, [DOUBLED])] == [10, 230]


def test_points_without_a_number_and_bases_of_zero_are_passed_over() -> None:
    points = [(0, {"a": 0.0}), (1, {"a": 1.0}), (2, {"a": math.nan}), (3, {}), (4, {"a": 2.0}), (5, {"a": math.inf})]
    assert [(one.since, one.at) for one in raised_alarms(points, [DOUBLED])] == [(1, 4)]


def test_as_people_write_it() -> None:
    text = "dynamics/cla_unit_q0.99/layer_3 x2 in 200"
    assert parse_alarm(text) == Alarm(metric="dynamics/cla_unit_q0.99/layer_3", factor=2, within=200)
    assert str(parse_alarm(text)) == text


@pytest.mark.parametrize("text", ["", "a doubled", "a x0 in 3", "a x1 in 3", "a x2 in 0", "a x2..1 in 3"])
def test_what_is_no_alarm(text: str) -> None:
    with pytest.raises(InputError, match="no alarm"):
        parse_alarm(text)
