"""The policy: read, checked as a whole, written out again, hashed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from qualitygate.errors import PolicyError
from qualitygate.gating.calibrate import default_policy
from qualitygate.policy import scores
from qualitygate.policy.corrections import SequentialAblation, recheck_layers
from qualitygate.policy.model import (
    TO_BASELINE,
    Check,
    Limit,
    Policy,
    Rule,
    default_rules,
    higher_is_better,
    load_policy,
    needs_of,
    of_images,
    parse_policy,
    policy_yaml,
)
from qualitygate.records.metrics import METRICS

FULL: dict[str, Any] = {
    "format": 1,
    "detection": {"layers": [0, 2], "rates": [0.1, 0.25], "curvature": "exact"},
    "calibration": {"rate_samples": 500, "score_samples": 200, "curvature_samples": 50, "seed": 9},
    "rules": [
        {"id": "count", "score": "low_rate_0.25", "limit": {"quantile": 0.95}},
        {"id": "layer", "score": "low_rate_0.1/layer_2", "limit": {"value": 12.0}, "action": "reject"},
        {"id": "new", "score": "never_seen_active", "limit": {"value": 0.0}},
        {"id": "new-2", "score": "never_seen_active/layer_2", "limit": {"value": 0.0}},
        {"id": "cla", "score": "cla/layer_1", "limit": {"quantile": 0.5}, "action": "reject"},
    ],
    "correction": {"layers": [0, 1], "rates": [0.05, 0.3], "judged_at": 0.25, "limit": {"quantile": 0.8}},
    "batch": [{"id": "yield", "metric": "yield", "min": 0.5, "max": 0.9, "severity": "info"}],
}


def test_a_full_document_is_read_and_written_out_again(tmp_path: Path) -> None:
    policy = parse_policy(FULL, "here")
    assert policy.detection.layers == (0, 2)
    assert policy.correction is not None
    assert policy.correction.rates == (0.05, 0.3)
    assert policy.curvature_layers() == (1,)
    assert policy.headline_rate == 0.25
    (tmp_path / "policy.yaml").write_text(policy_yaml(policy))
    again = load_policy(tmp_path / "policy.yaml")
    assert again == policy
    assert again.hash == policy.hash


@pytest.mark.parametrize("family", ["dcgan", "stylegan2", "pggan", "toy"])
def test_defaults_survive_the_round_trip(family: str, tmp_path: Path) -> None:
    policy = default_policy(family)
    (tmp_path / "policy.yaml").write_text(policy_yaml(policy))
    assert load_policy(tmp_path / "policy.yaml") == policy


def test_an_empty_file_is_the_default(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("# nothing\n")
    assert load_policy(tmp_path / "policy.yaml") == Policy()


def test_defaults_of_the_families() -> None:
    """Small R ranks the faces of a DCGAN better; the papers' 0.3 elsewhere."""
    assert default_policy("dcgan") == Policy()
    assert default_policy("dcgan").headline_rate == 0.1
    for family in ("stylegan2", "pggan", "module"):
        policy = default_policy(family)
        assert policy.headline_rate == 0.3
        assert policy.correction is not None
        assert policy.correction.judged_at == 0.3
        assert policy.correction.rates == (0.1, 0.2, 0.3)
    only_new = Policy(rules=(Rule(id="new", score="never_seen_active", limit=Limit(value=0.0)),))
    assert only_new.headline_rate == 0.3


def changed(**changes: Any) -> dict[str, Any]:
    """The full document with values replaced, by path: ``rules__0__id="x"``."""
    document = yaml.safe_load(yaml.safe_dump(FULL))
    for path, value in changes.items():
        *way, last = [int(step) if step.isdigit() else step for step in path.split("__")]
        place = document
        for step in way:
            place = place[step]
        place[last] = value
    return document


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"detections": {}}, "detections: Extra inputs"),
        ({"detection__rate": [0.1]}, "detection.rate: Extra inputs"),
        ({"rules__0__treshold": 3}, "rules.0.treshold: Extra inputs"),
        ({"rules__0__limit__value": 3.0}, "rules.0.limit: Value error, a limit is either a quantile or a value"),
        ({"rules__0__limit": {}}, "a limit is either a quantile or a value"),
        ({"rules__0__limit": {"quantile": 1.0}}, "rules.0.limit.quantile"),
        ({"rules__0__limit": {"quantile": 0.0}}, "rules.0.limit.quantile"),
        ({"rules__0__limit": {"value": float("nan")}}, "rules.0.limit.value"),
        ({"rules__0__limit": {"value": float("inf")}}, "rules.0.limit.value"),
        ({"rules__0__action": "accept"}, "rules.0.action"),
        ({"rules__0__id": "a/b"}, "rules.0.id"),
        ({"rules__1__id": "count"}, "the ids of rules must differ"),
        ({"rules": []}, "rules: "),
        ({"rules__0__score": "low_rate_0.3"}, r"needs low_rate_0.3, but detection.rates has only \[0.1, 0.25\]"),
        ({"rules__0__score": "low_rate_0.3/layer_1"}, "detection.rates has only"),
        ({"rules__0__score": "brightness"}, "unknown score 'brightness'"),
        ({"rules__0__score": "low_rate_0.10"}, "unknown score 'low_rate_0.10'"),
        ({"rules__0__score": "low_rate_0.1.0"}, "unknown score 'low_rate_0.1.0'"),
        ({"rules__0__score": "never_seen_active_at_all"}, "unknown score 'never_seen_active_at_all'"),
        ({"rules__0__score": "cla"}, "unknown score 'cla'"),
        ({"rules__0__score": "cla/layer_01"}, "unknown score 'cla/layer_01'"),
        ({"calibration__curvature_samples": 0}, "set calibration.curvature_samples"),
        ({"calibration__rate_samples": 99}, "calibration.rate_samples"),
        ({"calibration__seed": -1}, "calibration.seed"),
        ({"calibration__seed": 2**64}, "calibration.seed"),
        ({"detection__rates": []}, "detection.rates"),
        ({"detection__rates": [0.25, 0.1]}, "rates must rise"),
        ({"detection__rates": [0.1, 0.1, 0.25]}, "rates must rise"),
        ({"detection__rates": [0.0, 0.1, 0.25]}, r"rates must lie in \(0, 1\]"),
        ({"detection__rates": [0.1, 0.25, 1.5]}, r"rates must lie in \(0, 1\]"),
        ({"detection__rates": [0.1, 0.1000000001, 0.25]}, "0.1000000001 has no short name"),
        ({"detection__rates": [0.00001, 0.1, 0.25]}, "1e-05 has no short name"),
        ({"correction__rates": [0.3, 0.1]}, "rates must rise"),
        ({"correction__judged_at": 0.3}, "correction.judged_at is 0.3, which is not one of detection.rates"),
        ({"correction": None}, "asks for a correction, but there is no correction section"),
        ({"batch__0__min": 0.95}, "min 0.95 is over max 0.9: nothing can pass"),
        ({"batch__0": {"id": "yield", "metric": "yield"}}, "give min, max or both"),
        ({"batch__0__severity": "fatal"}, "batch.0.severity"),
        ({"format": 2}, "format"),
    ],
)
def test_what_cannot_be_used(change: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message) as raised:
        parse_policy(changed(**change), "policy.yaml")
    assert "policy.yaml" in raised.value.what
    assert raised.value.exit_code == 2


def test_all_that_is_wrong_is_listed() -> None:
    with pytest.raises(PolicyError) as raised:
        parse_policy(changed(format=3, detection__rates=[0.0], unknown=1), "p")
    assert all(part in str(raised.value) for part in ("format: ", "detection: ", "unknown: "))


def test_files_that_hold_no_policy(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="no such file"):
        load_policy(tmp_path / "none.yaml")
    for name, data, message in [
        ("list.yaml", b"- 1\n", "policy: "),
        ("broken.yaml", b"rules: [", "Cannot read the policy"),
        ("bytes.yaml", b"\xff\xfe\xfa", "Cannot read the policy"),
        ("code.yaml", b"!!python/object/apply:os.system ['true']", "Cannot read the policy"),
    ]:
        (tmp_path / name).write_bytes(data)
        with pytest.raises(PolicyError, match=message):
            load_policy(tmp_path / name)
    with pytest.raises(PolicyError, match="Cannot read the policy"):
        load_policy(tmp_path)


def test_every_value_changes_the_hash() -> None:
    hashes = [parse_policy(FULL, "p").hash]
    for change in (
        {"detection__layers": None},
        {"detection__rates": [0.1, 0.2, 0.25]},
        {"calibration__seed": 8},
        {"rules__0__limit": {"quantile": 0.94}},
        {"rules__0__id": "other"},
        {"rules__1__action": "correct"},
        {"correction__rates": [0.05]},
        {"correction__limit": {"value": 3.0}},
        {"batch__0__min": 0.4},
        {"batch": []},
    ):
        hashes.append(parse_policy(changed(**change), "p").hash)
    assert len(set(hashes)) == len(hashes)
    assert parse_policy(yaml.safe_load(yaml.safe_dump(FULL, sort_keys=True)), "p").hash == hashes[0]


@pytest.mark.parametrize(
    ("edited", "last", "judged"),
    [
        ((0, 1, 2), 3, (1, 2, 3)),
        ((0, 1, 2), 2, (1, 2)),
        ((0, 1, 3), 8, (1, 2, 3, 4)),
        ((0, 1, 3), 3, (1, 2, 3)),
        ((2,), 5, (3,)),
        ((1, 3, 5), 7, (2, 3, 4, 5, 6)),
        ((0,), 3, (1,)),
    ],
)
def test_layers_that_a_corrected_sample_is_judged_on(edited: tuple[int, ...], last: int, judged: tuple[int, ...]) -> None:
    assert recheck_layers(edited, last) == judged


def test_a_correction_that_leaves_nothing_to_judge_by() -> None:
    with pytest.raises(PolicyError, match="only the last layer 3 is edited"):
        recheck_layers((3,), 3)


def test_policies_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        SequentialAblation().judged_at = 0.3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"id": "a", "metric": "yield"}, "exactly one of"),
        ({"id": "a", "metric": "yield", "min": 0.1, "max": 0.2}, "exactly one of"),
        ({"id": "a", "metric": "yeild", "min": 0.1}, "there is no metric 'yeild'"),
        ({"id": "a", "metric": "low_rate_0.1/q9", "max": 1}, "there is no metric"),
        ({"id": "a", "metric": "low_rate_0.77/q0.9", "max": 1}, "R = 0.77"),
        ({"id": "a", "metric": "cla/layer_1/q0.9", "max": 1}, "curvature_layers"),
        ({"id": "a", "metric": "rarity", "min": 1.0}, "neither more nor less rarity is better"),
        ({"id": "a", "metric": "yield", "worse_by": {}}, "give relative"),
        ({"id": "a", "metric": "yield", "worse_by": {"percent": 5}}, "percent"),
        ({"id": "a", "metric": "yield", "worse_by": {"relative": -1}}, "greater than or equal"),
        ({"id": "a", "metric": "yield", "min": 0.1, "severity": "fatal"}, "severity"),
    ],
)
def test_rules_that_make_no_sense_are_refused(rule: dict, said: str) -> None:
    with pytest.raises(PolicyError, match=said):
        parse_policy({"check": {"rules": [rule]}}, "p.yaml")


@pytest.mark.parametrize(
    "check", [{"rules": []}, {"sample": 3}, {"samples": 9000}, {"seed": 0}, {"rules": [{"id": "a", "metric": "yield", "min": 0.5}] * 2}]
)
def test_sections_that_make_no_sense_are_refused(check: dict) -> None:
    with pytest.raises(PolicyError):
        parse_policy({"check": check}, "p.yaml")


@pytest.mark.parametrize("field", ["extractor", "distance"])
def test_a_policy_names_no_code(field: str) -> None:
    with pytest.raises(PolicyError, match="a policy names no code; give module:os:getcwd as an option"):
        parse_policy({"check": {field: "module:os:getcwd"}}, "p.yaml")


def test_looks_are_doublings_within_the_budget() -> None:
    assert Check(samples=1000, budget={"samples": 1999}).looks == 1
    assert Check(samples=1000, budget={"samples": 8000}).looks == 4


def test_the_default_rules_follow_the_policy() -> None:
    rules = {rule.id: rule for rule in Policy().check_rules()}
    assert rules["low_rate_tail"].metric == "low_rate_0.1/q0.9"
    assert {rule.id: rule for rule in default_rules(0.3)}["low_rate_neurons"].metric == "low_rate_share_0.3"
    assert not rules["yield"].optional  # what needs nothing but the candidate is always asked


def test_with_real_images_they_decide_and_counts_warn() -> None:
    critical = {real: {rule.id for rule in Policy().check_rules(real=real) if rule.severity == "critical"} for real in (False, True)}
    by_images = {"precision", "recall", "copies"}
    assert critical == {False: {"yield", "low_rate_tail", "rejected", "dead_units", *by_images}, True: by_images}
    assert Policy().check_hash(real=True) != Policy().check_hash()


def test_the_check_changes_no_verdict_of_a_sample() -> None:
    other = Policy(check=Check(samples=2048))
    assert other.hash == Policy().hash
    assert other.check_hash() != Policy().check_hash()


def test_a_quantile_of_a_score_has_the_direction_of_the_score(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "SCORES", {"glow": scores.Score("glow", higher_is_worse=False), "dirt": scores.Score("dirt")})
    assert [higher_is_better(name) for name in ("glow/q0.1", "dirt/q0.9")] == [True, False]


def test_directions_are_those_of_the_metrics() -> None:
    for name in (*of_images(), *TO_BASELINE):
        assert higher_is_better(name) == METRICS[TO_BASELINE.get(name, name)].higher_is_better
    shares = ("accepted_share", "corrected_share", "rejected_share", "yield", "borderline_share", "dead_units", "low_rate_0.1/q0.9")
    assert [name for name in shares if higher_is_better(name)] == ["accepted_share", "yield"]
    assert {needs_of(name) for name in TO_BASELINE} == {"baseline"}
    assert [needs_of(name) for name in ("fid", "ppl", "discriminator", "yield")] == ["real", "paths", "discriminator", None]


def test_a_policy_is_validated_without_torch() -> None:
    program = (
        "import sys; from qualitygate.policy.model import Policy; Policy()\n"
        "assert not {'torch', 'mlflow', 'great_expectations', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
