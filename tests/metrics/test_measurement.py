from __future__ import annotations

import pickle

import pytest
from pydantic import ValidationError

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.records.metrics import METRICS, Measurement, Outcome, compare, metric


def fid(value: float, reach: float = 1.0, /, **changes: object) -> Measurement:
    made = Measurement(
        metric=names.FID,
        value=value,
        low=value - reach,
        high=value + reach,
        samples=1000,
        real_samples=500,
        real="r" * 64,
        extractor="network, weights, resize, float32",
        settings={"k": 3.0},
    )
    return made.model_copy(update=changes)


def test_direction_comes_from_the_table() -> None:
    assert compare(fid(10), fid(20)) is Outcome.BETTER
    assert compare(fid(20), fid(10)) is Outcome.WORSE
    assert compare(fid(10), fid(11)) is Outcome.INCONCLUSIVE
    precision = {"metric": names.PRECISION}
    assert compare(fid(20, **precision), fid(10, **precision)) is Outcome.BETTER


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"extractor": "network, weights, resize, float16"}, "extractor: network, weights, resize, float32 against"),
        ({"samples": 999}, "samples: 1000 against 999"),
        ({"real_samples": 499}, "real samples: 500 against 499"),
        ({"real": "s" * 64}, "real: r"),
        ({"settings": {"k": 5.0}}, "k: 3.0 against 5.0"),
        ({"settings": {}}, "k: 3.0 against None"),
        ({"metric": names.KID}, "metric: fid against kid"),
        ({"value": None, "note": "too few: 3 samples"}, "the second has no value \\(too few: 3 samples\\)"),
        ({"low": None}, "the second has no interval"),
    ],
)
def test_what_differs_is_refused_and_said(change: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said) as refused:
        compare(fid(10), fid(20, **change))
    assert pickle.loads(pickle.dumps(refused.value)).found == refused.value.found


def test_all_differences_are_said_at_once() -> None:
    with pytest.raises(InputError) as refused:
        compare(fid(10), fid(20, samples=1, extractor="other", value=None))
    assert all(word in str(refused.value) for word in ("samples", "extractor", "no value"))


def test_a_measurement_survives_json_and_must_be_of_a_known_metric() -> None:
    assert Measurement.model_validate_json(fid(3).model_dump_json()) == fid(3)
    with pytest.raises((ValidationError, InputError), match="no such metric"):
        Measurement(metric="niceness", value=1.0, samples=1)
    assert set(METRICS) == {one.name for one in METRICS.values()}
    assert metric(names.REALISM).higher_is_better
    assert not metric(names.PPL).higher_is_better
    assert fid(3).higher_is_better is False
