"""Verdicts from scores: every way to fail is closed, and rows do not know of each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qualitygate.errors import PolicyError
from qualitygate.policy.corrections import SequentialAblation
from qualitygate.policy.decide import Limits, Risk, decide, default_weights, initial_verdicts, repaired, resolve
from qualitygate.policy.model import Limit, Policy, Rule
from qualitygate.records.gate import RuleLimit, Verdict

NAN = float("nan")
COUNT, CLA, JUDGED = "low_rate_0.1", "cla/layer_1", "low_rate_0.1/layer_1"


def rule(name: str, score: str, limit: float, action: Verdict = Verdict.CORRECT) -> RuleLimit:
    return RuleLimit(rule=name, score=score, limit=limit, source="absolute", action=action)


LIMITS = Limits(
    rules=(rule("count", COUNT, 10.0), rule("cla", CLA, 2.0, Verdict.REJECT)),
    recheck_limits={JUDGED: rule("correction", JUDGED, 4.0), "low_rate_0.1/layer_2": rule("correction", "low_rate_0.1/layer_2", 6.0)},
    strengths=(0.1, 0.3),
)
TRIALS = [f"ablation_{at}/{what}" for at in ("0.1", "0.3") for what in ("tried", JUDGED, "low_rate_0.1/layer_2")]


def columns(*samples: dict[str, float]) -> dict[str, np.ndarray]:
    """Columns of samples given by what is special about them."""
    usual = {COUNT: 0.0, CLA: 1.0, "image_finite": 1.0, **{name: 0.0 if name.endswith("tried") else NAN for name in TRIALS}}
    return {name: np.array([{**usual, **sample}[name] for sample in samples], dtype=np.float64) for name in usual}


def tried(at: float, first: float, second: float) -> dict[str, float]:
    prefix = f"ablation_{at}/"
    return {f"{prefix}tried": 1.0, f"{prefix}{JUDGED}": first, f"{prefix}low_rate_0.1/layer_2": second}


HIGH = {COUNT: 30.0}
SAMPLES: list[tuple[dict[str, float], str, float, tuple[str, ...], bool]] = [
    ({}, "accept", NAN, (), False),
    ({COUNT: 10.0}, "accept", NAN, (), True),  # equal to the limit passes, and is borderline
    ({COUNT: 7.0}, "accept", NAN, (), False),
    ({COUNT: 8.0}, "accept", NAN, (), True),
    ({CLA: 2.0}, "accept", NAN, (), True),
    ({CLA: 2.001}, "reject", NAN, ("over_limit:cla",), False),
    ({CLA: 2.0001}, "reject", NAN, ("over_limit:cla",), True),
    ({CLA: NAN}, "reject", NAN, ("score_not_finite:cla",), False),
    ({CLA: float("-inf")}, "reject", NAN, ("score_not_finite:cla",), False),
    ({CLA: float("inf")}, "reject", NAN, ("score_not_finite:cla", "over_limit:cla"), False),
    ({COUNT: NAN, CLA: 3.0}, "reject", NAN, ("score_not_finite:count", "over_limit:cla"), False),
    ({**HIGH, CLA: 3.0, **tried(0.1, 0.0, 0.0)}, "reject", NAN, ("over_limit:count", "over_limit:cla"), False),
    ({**HIGH, **tried(0.1, 1.0, 1.0)}, "correct", 0.1, ("over_limit:count", "repaired:0.1"), False),
    ({**HIGH, **tried(0.1, 4.0, 1.0)}, "correct", 0.1, ("over_limit:count", "repaired:0.1"), True),
    # the first that passes wins, and both layers must pass
    ({**HIGH, **tried(0.1, 0.0, 0.0), **tried(0.3, 0.0, 0.0)}, "correct", 0.1, ("over_limit:count", "repaired:0.1"), False),
    ({**HIGH, **tried(0.1, 9.0, 0.0), **tried(0.3, 1.0, 1.0)}, "correct", 0.3, ("over_limit:count", "repaired:0.3"), False),
    ({**HIGH, **tried(0.1, 0.0, 9.0), **tried(0.3, 1.0, 1.0)}, "correct", 0.3, ("over_limit:count", "repaired:0.3"), False),
    ({**HIGH, **tried(0.1, 9.0, 0.0), **tried(0.3, 0.0, 9.0)}, "reject", NAN, ("over_limit:count", "not_repaired"), False),
    ({**HIGH, **tried(0.1, NAN, 0.0), **tried(0.3, NAN, 0.0)}, "reject", NAN, ("over_limit:count", "not_repaired"), False),
    # a strength that was not tried ends it, whatever stands behind it
    (HIGH, "reject", NAN, ("over_limit:count", "correction_not_tried"), False),
    ({**HIGH, **tried(0.1, 9.0, 0.0)}, "reject", NAN, ("over_limit:count", "correction_not_tried"), False),
    ({**HIGH, **tried(0.3, 0.0, 0.0)}, "reject", NAN, ("over_limit:count", "correction_not_tried"), False),
    # what was tried without need changes nothing
    (tried(0.1, 4.0, 0.0), "accept", NAN, (), False),
    ({"image_finite": 0.0}, "reject", NAN, ("image_not_finite",), False),
    ({"image_finite": NAN}, "accept", NAN, (), False),
    ({**HIGH, **tried(0.1, 0.0, 0.0), "image_finite": 0.0}, "reject", 0.1, ("over_limit:count", "repaired:0.1", "image_not_finite"), False),
]


@pytest.mark.parametrize(("sample", "verdict", "strength", "reasons", "borderline"), SAMPLES)
def test_one_sample(sample: dict[str, float], verdict: str, strength: float, reasons: Sequence[str], borderline: bool) -> None:
    made = decide(LIMITS, columns(sample))
    assert made.verdict.tolist() == [verdict]
    np.testing.assert_equal(made.strength, [strength])
    assert made.reasons == [reasons]
    assert made.borderline.tolist() == [borderline]


def as_rows(made: Any) -> list[tuple[Any, ...]]:
    strengths = [None if np.isnan(one) else float(one) for one in made.strength]
    return list(zip(made.verdict.tolist(), strengths, made.reasons, made.borderline.tolist(), strict=True))


def test_a_column_is_decided_as_each_of_its_samples() -> None:
    samples = [sample for sample, *_ in SAMPLES]
    alone = [as_rows(decide(LIMITS, columns(sample)))[0] for sample in samples]
    assert as_rows(decide(LIMITS, columns(*samples))) == alone


VALUES = st.one_of(st.sampled_from([NAN, float("inf"), 0.0, 2.0, 4.0, 6.0, 10.0]), st.floats(-1, 20))
SAMPLE = st.fixed_dictionaries(
    {},
    optional={name: st.sampled_from([0.0, 1.0]) if name.endswith("tried") else VALUES for name in (COUNT, CLA, *TRIALS)}
    | {"image_finite": st.sampled_from([0.0, 1.0, NAN])},
)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), samples=st.lists(SAMPLE, min_size=1, max_size=8))
def test_permuted_rows_are_permuted_decisions(data: st.DataObject, samples: list[dict[str, float]]) -> None:
    order = data.draw(st.permutations(range(len(samples))))
    rows = as_rows(decide(LIMITS, columns(*samples)))
    assert as_rows(decide(LIMITS, columns(*(samples[row] for row in order)))) == [rows[row] for row in order]
    for sample, (verdict, strength, reasons, _) in zip(samples, rows, strict=True):
        assert (verdict == "accept") == (reasons == ())
        if verdict != "reject":  # nothing unknown, over a limit or broken ever passes
            assert np.isfinite(sample.get(COUNT, 0.0))
            assert sample.get(CLA, 1.0) <= 2.0
            assert sample.get("image_finite", 1.0) != 0.0
        if verdict == "correct":
            assert all(sample[f"ablation_{strength:g}/{name}"] <= one.limit for name, one in LIMITS.recheck_limits.items())


def test_a_missing_column_is_an_error() -> None:
    without = {name: column for name, column in columns({}).items() if name != CLA}
    with pytest.raises(PolicyError, match=f"Rule cla cannot be applied\n  found: no score {CLA} among .*{COUNT}"):
        decide(LIMITS, without)
    with pytest.raises(PolicyError, match="cannot be applied"):
        initial_verdicts(LIMITS, without)


def test_records_without_trials_reject_what_needs_a_correction() -> None:
    plain = {name: column for name, column in columns({}, HIGH).items() if name in (COUNT, CLA)}
    assert as_rows(decide(LIMITS, plain)) == [
        ("accept", None, (), False),
        ("reject", None, ("over_limit:count", "correction_not_tried"), False),
    ]
    # judged on a layer that the records do not hold
    some = {name: column for name, column in columns({**HIGH, **tried(0.1, 0.0, 0.0)}).items() if not name.endswith("layer_2")}
    assert decide(LIMITS, some).reasons == [("over_limit:count", "correction_not_tried")]


def test_without_a_correction_in_the_policy() -> None:
    limits = Limits((rule("count", COUNT, 10.0, Verdict.REJECT),), {}, ())
    made = decide(limits, columns({}, HIGH))
    assert as_rows(made) == [("accept", None, (), False), ("reject", None, ("over_limit:count",), False)]


def test_the_first_look_asks_for_a_correction() -> None:
    made = initial_verdicts(LIMITS, columns({}, HIGH, {**HIGH, CLA: 3.0}, {COUNT: NAN}))
    assert made.verdict.tolist() == ["accept", "correct", "reject", "reject"]
    assert np.isnan(made.strength).all()


def test_repaired_needs_every_layer() -> None:
    passed, borderline = repaired(LIMITS, {JUDGED: np.array([4.0, 5.0, 0.0, NAN]), "low_rate_0.1/layer_2": np.array([6.0, 0.0, 7.0, 0.0])})
    assert passed.tolist() == [True, False, False, False]
    assert borderline.tolist() == [True, True, True, False]


# limits


def policy(limit: Limit) -> Policy:
    return Policy(
        rules=(Rule(id="count", score=COUNT, limit=limit),), correction=SequentialAblation(rates=(0.1, 0.3), limit=Limit(quantile=0.8))
    )


def test_quantiles_become_numbers() -> None:
    asked: list[tuple[str, float]] = []

    def quantile(score: str, q: float) -> float:
        asked.append((score, q))
        return 10.0 * q

    limits = resolve(policy(Limit(quantile=0.9)), (1, 2), quantile)
    assert asked == [(COUNT, 0.9), (JUDGED, 0.8), ("low_rate_0.1/layer_2", 0.8)]
    assert [(one.rule, one.score, one.limit, one.source) for one in limits.rules] == [("count", COUNT, 9.0, "quantile 0.9")]
    assert {name: (one.limit, one.action) for name, one in limits.recheck_limits.items()} == {
        JUDGED: (8.0, "reject"),
        "low_rate_0.1/layer_2": (8.0, "reject"),
    }
    assert limits.strengths == (0.1, 0.3)
    absolute = resolve(policy(Limit(value=3.5)), (), quantile)
    assert (absolute.rules[0].limit, absolute.rules[0].source) == (3.5, "absolute")
    assert resolve(policy(Limit(value=0.0)), (), quantile).rules[0].limit == 0.0
    nothing = resolve(
        Policy(correction=None, rules=(Rule(id="a", score=COUNT, limit=Limit(value=1.0), action=Verdict.REJECT),)), (), quantile
    )
    assert (nothing.recheck_limits, nothing.strengths) == ({}, ())


@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_limits_must_be_numbers(value: float) -> None:
    with pytest.raises(PolicyError, match=f"The limit of {COUNT} is not a number\n  found: {value}"):
        resolve(policy(Limit(quantile=0.9)), (1,), lambda score, q: value)


REFERENCE = {"a": np.array([1.0, 2.0, 3.0, 4.0]), "b": np.array([0.0, 0.0, 0.0, 9.0, np.nan])}


def test_by_hand() -> None:
    risk = Risk(REFERENCE, {"a": 1.0, "b": 2.0})
    got = risk({"a": np.array([0.0, 3.0, 5.0]), "b": np.array([0.0, 9.0, 10.0])})
    # a: 4, 2 and 0 of 4 are as high; b: 4, 1 and 0 of 4
    expected = [-math.log(5 / 5) - 2 * math.log(5 / 5), -math.log(3 / 5) - 2 * math.log(2 / 5), -3 * math.log(1 / 5)]
    assert got == pytest.approx(expected)


def test_it_never_falls_as_a_part_rises() -> None:
    random = np.random.default_rng(0)
    risk = Risk({"a": random.normal(size=200), "b": random.normal(size=100)}, {"a": 1.0, "b": 0.3})
    low = {"a": random.normal(size=500), "b": random.normal(size=500)}
    high = {name: values + random.exponential(size=500) for name, values in low.items()}
    assert (risk(high) >= risk(low)).all()


def test_a_part_that_is_not_known_leaves_the_risk_unknown() -> None:
    assert np.isnan(Risk(REFERENCE, {"a": 1.0})({"a": np.array([np.nan])})).all()


def test_parts_must_be_calibrated_and_recorded() -> None:
    with pytest.raises(PolicyError, match="not calibrated"):
        Risk(REFERENCE, {"c": 1.0})
    with pytest.raises(PolicyError, match="no b"):
        Risk(REFERENCE, {"a": 1.0, "b": 1.0})({"a": np.zeros(1)})


def test_the_default_takes_every_layer_never_seen_neurons_and_cla() -> None:
    assert default_weights(0.1, (0, 2), (1,)) == {
        "low_rate_0.1/layer_0": 1.0,
        "low_rate_0.1/layer_2": 1.0,
        "never_seen_active": 1.0,
        "cla/layer_1": 1.0,
    }
