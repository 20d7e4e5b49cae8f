"""Figures: PNG bytes with something on them, and no global state."""

from __future__ import annotations

import subprocess
import sys
from io import BytesIO

import matplotlib
import numpy as np
import pytest
from PIL import Image
from reports.made_up import SCORE, limits

from qualitygate.errors import InputError
from qualitygate.records.gate import RuleLimit, Verdict
from qualitygate.reports import gate_figures
from qualitygate.reports.gate_figures import score_figure, trade_off_figure
from qualitygate.reports.style import LINE_COLORS, VERDICT_COLORS

COUNT = 400
CLA = "cla/layer_2"


@pytest.fixture
def scores() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {SCORE: random.poisson(350, COUNT).astype(float), CLA: random.normal(2.0, 0.5, COUNT), "unused": np.zeros(COUNT)}


@pytest.fixture
def verdicts(scores: dict[str, np.ndarray]) -> np.ndarray:
    low = scores[SCORE]
    return np.where(low > 380, Verdict.REJECT, np.where(low > 370, Verdict.CORRECT, Verdict.ACCEPT))


@pytest.fixture
def rules() -> list[RuleLimit]:
    (soft,) = limits()
    hard = soft.model_copy(update={"rule": "hard", "limit": 380.0, "source": "absolute", "action": Verdict.REJECT})
    return [soft, hard, soft.model_copy(update={"rule": "curvature", "score": CLA, "limit": 3.2})]


def decode(png: bytes) -> Image.Image:
    image = Image.open(BytesIO(png))
    assert image.format == "PNG"
    return image.convert("RGB")


def pixels_of(image: Image.Image, color: str) -> int:
    return int((np.asarray(image) == [int(color[at : at + 2], 16) for at in (1, 3, 5)]).all(axis=2).sum())


def test_score_figure_shows_every_verdict(scores, verdicts, rules) -> None:
    two = decode(score_figure(scores, rules, verdicts))
    one = decode(score_figure(scores, rules[:2], verdicts))
    assert two.width == one.width == 900
    assert two.height > one.height  # a panel for each score, not for each rule
    shown = [pixels_of(two, color) for color in VERDICT_COLORS.values()]
    assert all(count > 300 for count in shown)
    assert pixels_of(decode(score_figure(scores, rules, np.full(COUNT, "accept"))), VERDICT_COLORS[Verdict.REJECT]) < shown[2]


def test_words_of_a_figure_stay_inside(scores, verdicts, rules, monkeypatch) -> None:
    """Nothing is drawn at the very edge, with labels as long as they get."""
    long = [rule.model_copy(update={"rule": "a_rule_with_quite_a_long_name", "limit": rule.limit * 1.2}) for rule in rules]
    for png in (score_figure(scores, long, verdicts), trade_off_figure(scores, scores, long)):
        pixels = np.asarray(decode(png))
        edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        assert (edge == 255).all()


def test_verdicts_as_plain_strings_or_objects(scores, verdicts, rules) -> None:
    png = score_figure(scores, rules, verdicts)
    assert score_figure(scores, rules, verdicts.astype(str)) == png
    assert score_figure(scores, rules, np.array([Verdict(one) for one in verdicts.tolist()], dtype=object)) == png


def test_values_that_are_not_finite_are_left_out_and_said(scores, verdicts, rules) -> None:
    before = score_figure(scores, rules, verdicts)
    scores[CLA] = np.where(np.arange(COUNT) < 7, np.nan, scores[CLA])
    assert score_figure(scores, rules, verdicts) != before
    decode(score_figure({**scores, CLA: np.full(COUNT, np.inf)}, rules, verdicts))


@pytest.mark.parametrize("values", [np.array([370.0]), np.full(9, 0.25), np.arange(5000.0), np.array([-1.5, 700.25]), np.array([])])
@pytest.mark.parametrize("limit", [370.0, 0.25, -3.5])
def test_bins_hold_all_values_and_no_bin_spans_the_limit(values: np.ndarray, limit: float) -> None:
    edges = gate_figures._bin_edges(values, np.array([limit, limit + 1]))
    assert 2 <= len(edges) <= gate_figures.BINS + 4
    assert np.histogram(values, edges)[0].sum() == len(values)
    assert edges[0] <= limit <= edges[-1]
    over = np.histogram(values[values > limit], edges)[0] > 0
    within = np.histogram(values[values < limit], edges)[0] > 0
    assert not (over & within).any()


def test_trade_off_share_kept_by_hand() -> None:
    gated = np.array([1.0, 2.0, 3.0, np.nan])
    calibration = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    kept = gate_figures._share_within(gated, calibration, np.array([0.0, 0.25, 0.5, 1.0]))
    assert kept.tolist() == [0.0, 0.25, 0.5, 0.75]


def test_trade_off_figure_draws_each_score(scores, rules) -> None:
    calibration = {name: values - 0.2 for name, values in scores.items()}
    image = decode(trade_off_figure(scores, calibration, rules))
    assert image.width == 900
    assert all(pixels_of(image, color) > 100 for color in LINE_COLORS[:2])
    assert trade_off_figure(scores, calibration, rules) != trade_off_figure(scores, scores, rules)


def test_same_input_same_bytes(scores, verdicts, rules) -> None:
    assert score_figure(scores, rules, verdicts) == score_figure(scores, rules, verdicts)
    assert trade_off_figure(scores, scores, rules) == trade_off_figure(scores, scores, rules)


def test_errors(scores, verdicts, rules) -> None:
    with pytest.raises(InputError, match="no rule to draw"):
        score_figure(scores, [], verdicts)
    with pytest.raises(InputError, match=f"no score {CLA} among {SCORE}"):
        score_figure({SCORE: scores[SCORE]}, rules, verdicts)
    with pytest.raises(InputError, match="399 verdicts"):
        score_figure(scores, rules, verdicts[1:])
    with pytest.raises(InputError, match="found: maybe"):
        score_figure(scores, rules, np.full(COUNT, "maybe"))
    with pytest.raises(InputError, match="no samples to draw"):
        score_figure({SCORE: np.array([])}, rules[:1], np.array([]))
    with pytest.raises(InputError, match=f"calibration holds no score {SCORE}"):
        trade_off_figure(scores, {**scores, SCORE: np.full(3, np.nan)}, rules)


def test_nothing_global_is_touched(scores, verdicts, rules) -> None:
    before = dict(matplotlib.rcParams)
    score_figure(scores, rules, verdicts)
    trade_off_figure(scores, scores, rules)
    assert dict(matplotlib.rcParams) == before
    code = (
        "import sys, numpy as np; from qualitygate.reports import gate_figures, sheets;"
        "from qualitygate.records.gate import RuleLimit;"
        "limits = [RuleLimit(rule='r', score='s', limit=4.0, source='absolute', action='reject')];"
        "gate_figures.score_figure({'s': np.arange(9.0)}, limits, np.full(9, 'accept'));"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
