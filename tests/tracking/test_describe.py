from __future__ import annotations

from qualitygate.policy.corrections import SequentialAblation, SequentialCorrection
from qualitygate.policy.model import BatchRule, Calibration, Limit, Policy, Rule
from qualitygate.records.gate import ExpectationResult, SuiteResult, Verdict
from qualitygate.tracking.describe import NOTE, note, run_params, run_tags
from qualitygate.tracking.gated_set import read_gated_set
from tests.tracking.gated_folder import write_gated_folder


def test_note_and_tags_stay_within_limits(tmp_path):
    results = tuple(
        ExpectationResult(id="x" * 300, type="t", severity="critical", success=False, observed=["y" * 999], kwargs={}) for _ in range(500)
    )
    suite = SuiteResult(passed=False, evaluated=500, results=results)
    not_finite = {f"{'m' * 200}{i}": float("nan") for i in range(500)}
    gated = read_gated_set(write_gated_folder(tmp_path / "set", suite=suite, metrics=not_finite, checkpoint="c" * 5000))
    assert all(len(value) < 8000 for value in run_tags(gated).values())
    assert "- and 480 more" in run_tags(gated)[NOTE]
    assert "500 of 500 expectations failed" in note(gated)


def test_params_are_the_decisive_values(tmp_path):
    policy = Policy(
        rules=(Rule(id="cla", score="cla/layer_1", limit=Limit(value=12.0), action=Verdict.REJECT),),
        correction=None,
        calibration=Calibration(curvature_samples=200),
        batch=(BatchRule(id="y", metric="yield", min=0.5),),
    )
    assert run_params(read_gated_set(write_gated_folder(tmp_path / "none", policy=policy))) == {
        "family": "dcgan",
        "seed": "1",
        "detection.layers": "preset",
        "detection.rates": "0.02, 0.05, 0.1, 0.2, 0.3",
        "rule.cla.score": "cla/layer_1",
        "rule.cla.limit": "12",
        "rule.cla.action": "reject",
        "correction": "none",
        "limit.low_rate/low_rate_0.1": "17.5",
    }


def test_params_of_a_correction(tmp_path):
    policy = Policy(correction=SequentialAblation(layers=(0, 1), rates=(0.2,), judged_at=0.1, limit=Limit(quantile=0.95)))
    params = run_params(read_gated_set(write_gated_folder(tmp_path / "set", policy=policy)))
    assert {key: value for key, value in params.items() if key.startswith("correction")} == {
        "correction": "sequential_ablation",
        "correction.layers": "0, 1",
        "correction.rates": "0.2",
        "correction.judged_at": "0.1",
        "correction.limit": "quantile 0.95",
    }


def test_params_of_a_correction_of_units(tmp_path):
    policy = Policy(correction=SequentialCorrection(units=(10, 20), stop=1, judged_at=0.1))
    params = run_params(read_gated_set(write_gated_folder(tmp_path / "set", policy=policy)))
    assert {name: value for name, value in params.items() if name.startswith("correction")} == {
        "correction": "sequential_correction",
        "correction.layers": "preset",
        "correction.stop": "1",
        "correction.units": "10, 20",
        "correction.shares": "default",
        "correction.score": "low_rate_activity",
        "correction.ranking": "sample",
        "correction.rate": "0.1",
        "correction.lambdas": "0.9",
        "correction.judged_at": "0.1",
        "correction.limit": "quantile 0.9",
    }
